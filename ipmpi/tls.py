"""TLS 1.3 without a socket, and the controller's certificate (layer L1, the only importer of OpenSSL).

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

import contextlib
import datetime
import enum
import hashlib
import hmac
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

from .errors import ConnectionError, LocalProtocolError, RemoteProtocolError, SecurityError
from .furl import read_private, write_private

CIPHER_SUITES: Final = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
EXPORTER_LABEL: Final = b"EXPORTER-Channel-Binding"
EXPORTER_BYTES: Final = 32

CERTIFICATE_DAYS: Final = 3650
BACKDATED: Final = datetime.timedelta(days=1)
"""A laptop's clock may be behind the controller's; the certificate is valid from a day before it was made."""

_PARTIAL_WRITE: Final = 1
"""SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets. Without it one call encrypts all, 1.6 times as fast."""
_RECORD: Final = 16 * 1024
_WRITE_PIECE: Final = 1024 * 1024
"""Plaintext handed to OpenSSL in one call; its ciphertext exists twice for a moment."""
_RECORD_OVERHEAD: Final = 22
_SNIFFED: Final = 16

Buffer = bytes | bytearray | memoryview


class TlsError(RemoteProtocolError):
    """What arrived is not TLS 1.3 between two ends of ipmpi. Send what ``ciphertext_to_send`` has, then close."""


class TlsClosed(ConnectionError):
    """The peer ended the link on purpose (close_notify): nothing was cut off."""


# --- the certificate -----------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Identity:
    """A controller's certificate (DER) and the private key that belongs to it."""

    certificate_der: bytes
    private_key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, now: float) -> Identity:
        """A new self-signed P-256 certificate, valid for ten years from ``now`` (seconds since the epoch)."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ipmpi")])
        start = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
        builder = x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=start - BACKDATED,
            not_valid_after=start + datetime.timedelta(days=CERTIFICATE_DAYS),
        )
        return cls(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER), key)

    @classmethod
    def from_pem(cls, data: bytes) -> Identity:
        """The identity that :meth:`to_pem` wrote; raises SecurityError if this is not one."""
        try:
            certificate = x509.load_pem_x509_certificate(data)
            key = load_pem_private_key(data, password=None)
            matches = key.public_key() == certificate.public_key()
        except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm):
            raise SecurityError("there is no readable certificate with its private key in it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not matches:
            raise SecurityError("the certificate and the private key in it do not belong together")
        return cls(certificate.public_bytes(Encoding.DER), key)

    def to_pem(self) -> bytes:
        """Private key and certificate as text, the key without a password: keep it in a private file."""
        key = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + x509.load_der_x509_certificate(self.certificate_der).public_bytes(Encoding.PEM)

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate, 32 bytes: what furls carry."""
        return hashlib.sha256(self.certificate_der).digest()

    @cached_property
    def _context(self) -> SSL.Context:
        context = _base_context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(x509.load_der_x509_certificate(self.certificate_der))
        context.use_privatekey(self.private_key)
        return context

    def __repr__(self) -> str:
        return f"<Identity {self.fingerprint.hex()[:16]}..., private key not shown>"


def load_or_create_identity(path: Path, now: float) -> Identity:
    """The identity in the file ``path``; a new one is made and written if there is none.

    Raises:
        SecurityError: the file cannot be trusted or understood; deleting it makes a new controller.
        FurlError: the file cannot be read or written.
    """
    try:
        data = read_private(path)
    except FileNotFoundError:
        identity = Identity.create(now)
        write_private(path, identity.to_pem())
        return identity
    try:
        return Identity.from_pem(data)
    except SecurityError as error:
        raise SecurityError(
            f"{path}: {error}. Delete the file to get a new certificate; every furl file must then be copied again"
        ) from None


# --- the session ---------------------------------------------------------------------------------------


class _State(enum.Enum):
    HANDSHAKE = "handshake"
    UNCHECKED = "unchecked"
    """The dialler has not compared the certificate: no application byte in either direction."""
    OPEN = "open"
    CLOSED = "closed"


class TlsSession:
    """One end of one TLS link: ciphertext in, plaintext out, and the other way round.

    Make one by :meth:`dialler` or :meth:`listener`. Call :meth:`handshake` at the start and whenever
    ciphertext arrived, until it returns True; a dialler then calls :meth:`check_peer`. After every call of
    any method, send what :meth:`ciphertext_to_send` gives, also after an error: it holds the alert that tells
    the peer why.
    """

    def __init__(self, context: SSL.Context, dials: bool) -> None:
        self._connection = SSL.Connection(context, None)
        if dials:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()
        self._dials = dials
        self._state = _State.HANDSHAKE
        self._failure: TlsError | TlsClosed | None = None
        self._first_bytes = b""
        self._ciphertext: deque[bytes] = deque()
        self._may_have_ciphertext = False

    @classmethod
    def dialler(cls) -> TlsSession:
        """The end that opened the connection; its handshake starts with :meth:`handshake`."""
        return cls(_base_context(SSL.TLS_CLIENT_METHOD), dials=True)

    @classmethod
    def listener(cls, identity: Identity) -> TlsSession:
        """The end that accepted the connection and shows ``identity``."""
        return cls(identity._context, dials=False)

    # --- handshake

    def handshake(self) -> bool:
        """Go as far as the ciphertext received so far allows; True when the handshake is done.

        Raises:
            TlsError: the peer does not speak TLS 1.3; the sentence says what it probably speaks.
            TlsClosed: the peer closed the link instead.
        """
        if self._state is not _State.HANDSHAKE:
            return True
        if self._failure is not None:
            raise self._failure
        self._may_have_ciphertext = True
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            self._fail(error)
        self._state = _State.UNCHECKED if self._dials else _State.OPEN
        return True

    @property
    def peer_fingerprint(self) -> bytes:
        """SHA-256 of the listener's certificate, 32 bytes. Dialler only, after the handshake."""
        return hashlib.sha256(self._peer_certificate().public_bytes(Encoding.DER)).digest()

    def _peer_certificate(self) -> x509.Certificate:
        if not self._dials or self._state is _State.HANDSHAKE:
            raise LocalProtocolError("only a dialler sees a certificate, and only after the handshake")
        try:
            certificate = self._connection.get_peer_certificate(as_cryptography=True)
        except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm, SSL.Error):
            certificate = None
        if certificate is None:
            raise SecurityError("the other end showed no certificate that can be read; nothing was sent to it")
        return certificate

    def check_peer(self, fingerprint: bytes, now: float, where: str = "this address") -> None:
        """Allow application data if the listener's certificate is the one of the furl, and valid ``now``.

        Args:
            fingerprint: SHA-256 of the certificate, from the furl.
            now: seconds since the epoch.
            where: ``host:port``, for the sentence of the error.

        Raises:
            SecurityError: it is another certificate, or out of date. Nothing can be written after that.
        """
        try:
            certificate = self._peer_certificate()
            shown = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
            if not hmac.compare_digest(shown, fingerprint):
                raise SecurityError(
                    f"this furl is of another controller: the one at {where} shows a different certificate. Fetch "
                    "the furl file again from the machine where the controller runs; if it did not change there, "
                    "somebody else answers at this address. Nothing was sent"
                )
            _check_dates(certificate, now, where)
        except SecurityError:
            if self._state is _State.UNCHECKED:
                self._state = _State.CLOSED
            raise
        if self._state is _State.UNCHECKED:
            self._state = _State.OPEN

    def exporter(self) -> bytes:
        """32 bytes that only the two ends of this very connection know (RFC 9266)."""
        self._require_open("exporter")
        return self._connection.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES, b"")

    def description(self) -> str:
        """Protocol, cipher suite and key exchange, for the log."""
        connection = self._connection
        parts = (connection.get_protocol_version_name(), connection.get_cipher_name(), connection.get_group_name())
        return ", ".join(part for part in parts if part)

    # --- ciphertext

    def receive_ciphertext(self, data: Buffer) -> None:
        """Take bytes from the network. Read them out again before giving more: what is not read stays here."""
        if not data or self._failure is not None:
            return
        if len(self._first_bytes) < _SNIFFED:
            self._first_bytes += bytes(data[: _SNIFFED - len(self._first_bytes)])
        view = memoryview(data)
        while view:
            view = view[self._connection.bio_write(view) :]

    def ciphertext_to_send(self, max: int | None = None) -> bytes:
        """Bytes for the network, b'' when there are none. ``max``: at most so many, the rest stays."""
        self._collect()
        if not self._ciphertext:
            return b""
        if max is None:
            data = self._ciphertext.popleft() if len(self._ciphertext) == 1 else b"".join(self._ciphertext)
            self._ciphertext.clear()
            return data
        data = self._ciphertext.popleft()
        if len(data) > max:
            self._ciphertext.appendleft(data[max:])
            data = data[:max]
        return data

    @property
    def has_ciphertext(self) -> bool:
        """Whether :meth:`ciphertext_to_send` would give something."""
        self._collect()
        return bool(self._ciphertext)

    def _collect(self, expected: int = _RECORD) -> None:
        # Always emptied: OpenSSL moves what is left in a memory BIO to its front at the next write.
        if not self._may_have_ciphertext:
            return
        self._may_have_ciphertext = False
        try:
            while True:
                piece = self._connection.bio_read(expected)
                self._ciphertext.append(piece)
                if len(piece) < expected:
                    return
        except SSL.WantReadError:
            return

    # --- plaintext

    def write(self, buffer: Buffer) -> None:
        """Encrypt all of ``buffer`` (any contiguous buffer, not copied); the ciphertext waits to be sent.

        Raises:
            LocalProtocolError: the handshake is not done, the certificate not checked, or the session closed.
            TlsError, TlsClosed: the session failed before.
        """
        self._require_open("write")
        view = memoryview(buffer)
        if not view.nbytes:
            return
        if view.ndim != 1 or view.itemsize != 1:
            view = view.cast("B")
        for start in range(0, len(view), _WRITE_PIECE):
            piece = view[start : start + _WRITE_PIECE]
            self._may_have_ciphertext = True
            try:
                self._connection.sendall(piece)
            except SSL.Error as error:
                self._fail(error)
            self._collect(len(piece) + (len(piece) // _RECORD + 2) * _RECORD_OVERHEAD)

    def read(self, max: int = 256 * 1024) -> bytes:
        """Plaintext, at most ``max`` bytes. Fewer than ``max``: nothing more until more ciphertext arrives.

        Raises:
            TlsClosed: the peer said goodbye, and everything before that was read.
            TlsError: what arrived was changed on the way or is not TLS; everything before that was read.
            LocalProtocolError: as for :meth:`write`.
        """
        self._require_open("read")
        pieces: list[bytes] = []
        room = max
        self._may_have_ciphertext = True  # a key update or an alert may have to be answered
        try:
            while room > 0:
                piece = self._connection.recv(min(room, _RECORD))
                pieces.append(piece)
                room -= len(piece)
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self._failure = self._translate(error)
            if not pieces:
                raise self._failure from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Say goodbye: queues close_notify for :meth:`ciphertext_to_send`. Then nothing can be written or read."""
        if self._state in (_State.OPEN, _State.UNCHECKED) and not isinstance(self._failure, TlsError):
            self._may_have_ciphertext = True
            with contextlib.suppress(SSL.Error):  # a link that failed already: nobody to say goodbye to
                self._connection.shutdown()
        self._state = _State.CLOSED

    # --- errors

    def _require_open(self, what: str) -> None:
        if self._failure is not None:
            raise self._failure
        if self._state is not _State.OPEN:
            raise LocalProtocolError(f"TlsSession.{what}() in state '{self._state.value}': it needs 'open'")

    def _fail(self, error: SSL.Error) -> NoReturn:
        self._failure = self._translate(error)
        raise self._failure from None

    def _translate(self, error: SSL.Error) -> TlsError | TlsClosed:
        if isinstance(error, SSL.ZeroReturnError):
            return TlsClosed("the other end closed the link")
        reasons = _reasons(error)
        return TlsError(_not_tls(self._first_bytes) or _sentence(reasons))


# --- helpers -------------------------------------------------------------------------------------------


def _base_context(method: int) -> SSL.Context:
    if not _maintained(SSL.OPENSSL_VERSION_NUMBER):
        raise SecurityError(
            "this OpenSSL has known holes (3.0.14, 3.1.6, 3.2.2 or newer is needed): upgrade it, with "
            "`pip install --upgrade cryptography pyOpenSSL`"
        )
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHER_SUITES)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.clear_mode(_PARTIAL_WRITE)
    return context


def _maintained(version: int) -> bool:
    # CVE-2024-2511: without tickets, memory grew with every connection. Layout of the number: 0xMNN00PP0.
    branch, patch = version >> 20, version >> 4 & 0xFF
    return branch > 0x302 or patch >= {0x300: 14, 0x301: 6, 0x302: 2}.get(branch, 256)


def _check_dates(certificate: x509.Certificate, now: float, where: str) -> None:
    try:
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    except ValueError:
        raise SecurityError(f"the certificate of the controller at {where} has no readable dates") from None
    if now > end:
        raise SecurityError(
            f"the certificate of the controller at {where} has expired: delete its .pem file in the security "
            "folder there, start the controller again and copy the new furl files"
        )
    if now < begin:
        raise SecurityError(
            f"the certificate of the controller at {where} is not valid yet: is the clock of this machine, or "
            "of the controller's, wrong?"
        )


def _reasons(error: SSL.Error) -> str:
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries) or str(error)


def _not_tls(first: bytes) -> str | None:
    """What a peer speaks whose first bytes are no TLS record, or None if they may be one."""
    if not first or (first[0] in (20, 21, 22, 23) and first[1:2] in (b"", b"\x03")):
        return None
    if first.startswith((b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"HTTP/", b"PRI * ")):
        return "the other end speaks plain HTTP, not TLS: this is no link of ipmpi; check host and port"
    if first.startswith(b"SSH-"):
        return "the other end speaks SSH, not TLS: this is no link of ipmpi; check host and port"
    return f"the other end does not speak TLS (its first bytes: {first!r}): check host and port"


def _sentence(reasons: str) -> str:
    if any(sign in reasons for sign in ("unsupported protocol", "protocol version", "wrong version", "wrong ssl")):
        return (
            "the other end does not offer TLS 1.3, only an older version or something else: it is no ipmpi, "
            f"or something between the two ends rewrites TLS ({reasons})"
        )
    if "no shared cipher" in reasons or "handshake failure" in reasons:
        return f"the other end offers no cipher suite that ipmpi accepts: it is no ipmpi ({reasons})"
    return f"the TLS link broke: what arrived was changed on the way, or is not from ipmpi ({reasons})"
