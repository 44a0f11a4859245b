"""One end of one TLS link, without a socket."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import hmac
from collections import deque
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from ..errors import LocalProtocolError, SecurityError
from .bulk import RECORD, bulk_of
from .context import base_context
from .diagnosis import TlsClosed, TlsError, check_dates, not_tls, reasons_of, sentence_for
from .identity import Identity

EXPORTER_LABEL: Final = b"EXPORTER-Channel-Binding"
EXPORTER_BYTES: Final = 32

_WRITE_PIECE: Final = 1024 * 1024
"""Plaintext handed to OpenSSL in one call; its ciphertext exists twice for a moment."""
_SNIFFED: Final = 16

Buffer = bytes | bytearray | memoryview


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
    any method, send what :meth:`ciphertext_to_send` gives until it is empty, also after an error: the alert that
    tells the peer why is in it.
    """

    def __init__(self, context: SSL.Context, dials: bool) -> None:
        self._connection = SSL.Connection(context, None)
        self._bulk = bulk_of(self._connection)
        if dials:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()
        self._dials = dials
        self._state = _State.HANDSHAKE
        self._failure: tuple[type[TlsError | TlsClosed], str] | None = None
        """What to raise from now on. Not the error itself, whose traceback would refer to this session."""
        self._first_bytes = b""
        self._ciphertext: deque[bytes | memoryview] = deque()
        self._uncollected = 0
        """Bytes of plaintext whose ciphertext OpenSSL has."""
        self._written = 0
        self._may_have_ciphertext = False

    @classmethod
    def dialler(cls) -> TlsSession:
        """The end that opened the connection; its handshake starts with :meth:`handshake`."""
        return cls(base_context(SSL.TLS_CLIENT_METHOD), dials=True)

    @classmethod
    def listener(cls, identity: Identity) -> TlsSession:
        """The end that accepted the connection and shows ``identity``."""
        return cls(identity.context, dials=False)

    # --- handshake

    def handshake(self) -> bool:
        """Go as far as the ciphertext received so far allows; True when the handshake is done.

        Raises:
            TlsError: the peer does not speak TLS 1.3; the sentence says what it probably speaks.
            TlsClosed: the peer closed the link instead.
        """
        if self._state is not _State.HANDSHAKE:
            return True
        self._require_no_failure()
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
            check_dates(certificate, now, where)
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

    def ciphertext_to_send(self) -> bytes | memoryview:
        """Bytes for the network: the next ones, up to 512 KiB; empty when there are none."""
        self._collect()
        return self._ciphertext.popleft() if self._ciphertext else b""

    @property
    def has_ciphertext(self) -> bool:
        """Whether :meth:`ciphertext_to_send` would give something."""
        self._collect()
        return bool(self._ciphertext)

    def _collect(self) -> None:
        # Always emptied: OpenSSL moves what is left in a memory BIO to its front at the next write.
        if self._may_have_ciphertext:
            self._may_have_ciphertext = False
            self._uncollected = 0
            self._ciphertext.extend(self._bulk.ciphertext())

    # --- plaintext

    @property
    def records(self) -> int:
        """Records that were encrypted with one key: those of the direction that has more of them."""
        return max(self._written, self._bulk.records)

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
            self._written += (len(piece) + RECORD - 1) // RECORD
            self._may_have_ciphertext = True
            try:
                self._connection.sendall(piece)
            except SSL.Error as error:
                self._fail(error)
            # Not after each: a chunk and what goes before it are read out as one.
            self._uncollected += len(piece)
            if self._uncollected >= _WRITE_PIECE:
                self._collect()

    def read(self, max: int = 256 * 1024) -> bytes | memoryview:
        """Plaintext, at most ``max`` bytes. Fewer than ``max``: nothing more until more ciphertext arrives.

        Raises:
            TlsClosed: the peer said goodbye, and everything before that was read.
            TlsError: what arrived was changed on the way or is not TLS; everything before that was read.
            LocalProtocolError: as for :meth:`write`.
        """
        self._require_open("read")
        self._may_have_ciphertext = True  # a key update or an alert may have to be answered
        data, error = self._bulk.plaintext(max)
        if error is not None:
            self._failure = self._translate(error)
            if not data:
                self._require_no_failure()
        return data

    def close(self) -> None:
        """Say goodbye: queues close_notify for :meth:`ciphertext_to_send`. Then nothing can be written or read."""
        if self._state in (_State.OPEN, _State.UNCHECKED) and not self._is_broken:
            self._may_have_ciphertext = True
            with contextlib.suppress(SSL.Error):  # a link that failed already: nobody to say goodbye to
                self._connection.shutdown()
        self._state = _State.CLOSED

    # --- errors

    @property
    def _is_broken(self) -> bool:
        return self._failure is not None and issubclass(self._failure[0], TlsError)

    def _require_no_failure(self) -> None:
        if self._failure is not None:
            kind, text = self._failure
            raise kind(text) from None

    def _require_open(self, what: str) -> None:
        self._require_no_failure()
        if self._state is not _State.OPEN:
            raise LocalProtocolError(f"TlsSession.{what}() in state '{self._state.value}': it needs 'open'")

    def _fail(self, error: SSL.Error) -> NoReturn:
        kind, text = self._failure = self._translate(error)
        raise kind(text) from None

    def _translate(self, error: SSL.Error) -> tuple[type[TlsError | TlsClosed], str]:
        if isinstance(error, SSL.ZeroReturnError):
            return TlsClosed, "the other end closed the link"
        reasons = reasons_of(error)
        return TlsError, not_tls(self._first_bytes) or sentence_for(reasons)
