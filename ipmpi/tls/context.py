"""The settings of every TLS connection."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from ..errors import SecurityError

CIPHER_SUITES: Final = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
LONG_LIVED_SUITES: Final = b"TLS_CHACHA20_POLY1305_SHA256"
"""For a link that carries any number of bytes under one key. AES-GCM should carry no more than 2^24.5 records,
about 390 GB; this suite has no limit below that of the record number (RFC 8446, section 5.5)."""

_PARTIAL_WRITE: Final = 1
"""SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets. Without it one call encrypts all, 1.6 times as fast."""


def base_context(method: int, suites: bytes = CIPHER_SUITES) -> SSL.Context:
    """TLS 1.3 only, without tickets, resumption or compression.

    Raises:
        SecurityError: this OpenSSL is no longer maintained by anybody.
    """
    if not _maintained(SSL.OPENSSL_VERSION_NUMBER):
        raise SecurityError(
            "this OpenSSL has known holes (3.0 or newer is needed, with your distribution's updates): upgrade it, "
            "with `pip install --upgrade cryptography pyOpenSSL`"
        )
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(suites)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # see _maintained
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.clear_mode(_PARTIAL_WRITE)
    return context


def _maintained(version: int) -> bool:
    """Whether somebody still mends this OpenSSL; layout of the number: 0xMNN00PP0.

    More cannot be read from a number: distributions mend holes and keep it. RHEL 9 has 3.0.7, Ubuntu 24.04 has
    3.0.13, and both are without the holes that were found in these later.

    Nor does one of the holes need a newer number here. CVE-2024-2511 (mended in 3.0.14, 3.1.6 and 3.2.2) lets the
    session cache of a TLS 1.3 server grow for ever, if OP_NO_TICKET is set. OpenSSL puts a session there only if
    the mode of the cache says so, and ours is SESS_CACHE_OFF, for both ends. With 3.2.1 a server of these settings
    needed 31 MiB after 8,000 handshakes and after 40,000, all by clients that tried to resume.
    """
    return version >> 28 >= 3
