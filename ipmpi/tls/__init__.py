"""TLS 1.3 without a socket, and the controller's certificate (the only importer of OpenSSL).

A :class:`TlsSession` turns plaintext into ciphertext and back in memory; whoever owns it moves the bytes.
Trust is decided here and nowhere else, in this order, which the session enforces:

1. the handshake runs, with nothing but TLS 1.3, no tickets, no resumption, and no Python callback (a callback
   needs memory that is writable and executable, which hardened hosts forbid);
2. the dialler compares the hash of the certificate that the listener proved to own with the one in its furl
   (:meth:`TlsSession.check_peer`). OpenSSL verifies the proof of ownership in any mode; what VERIFY_NONE
   leaves out is the chain of a certificate authority, which a self-signed certificate does not have;
3. only then can the dialler write or read one byte of application data.

One thread owns a session: OpenSSL's connections have no lock, and two threads in one of them crash.
"""

from __future__ import annotations

from .context import CIPHER_SUITES, LONG_LIVED_SUITES
from .diagnosis import TlsClosed, TlsError
from .identity import BACKDATED, CERTIFICATE_DAYS, Identity, load_or_create_identity
from .session import EXPORTER_BYTES, EXPORTER_LABEL, TlsSession

__all__ = [
    "BACKDATED",
    "CERTIFICATE_DAYS",
    "CIPHER_SUITES",
    "EXPORTER_BYTES",
    "EXPORTER_LABEL",
    "LONG_LIVED_SUITES",
    "Identity",
    "TlsClosed",
    "TlsError",
    "TlsSession",
    "load_or_create_identity",
]
