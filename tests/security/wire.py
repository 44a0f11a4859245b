"""Peers made by hand: they speak TLS and the protocol as a test wants them to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, get_args

from ipmpi.furl import Furl
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, MessageReceived
from ipmpi.protocol.frames import PREFIX, FrameKind
from ipmpi.protocol.handshake import VERSIONS, DiallerHandshake, Welcome
from ipmpi.tls import Identity, TlsClosed, TlsError, TlsSession

EVERY_MESSAGE = frozenset(get_args(m.AnyMessage))
_Message = TypeVar("_Message")


class TlsPeer:
    """A blocking TLS connection that somebody dialled; the certificate is taken as it comes."""

    def __init__(self, address: tuple[str, int], timeout: float = 10) -> None:
        self.sock = socket.create_connection(address, timeout)
        self.tls = TlsSession.dialler()
        try:
            while not self.tls.handshake():
                self._exchange()
            self.tls.check_peer(self.tls.peer_fingerprint, time.time())
            self.flush()
        except BaseException:
            self.sock.close()
            raise

    def _exchange(self) -> None:
        self.flush()
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.tls.receive_ciphertext(data)

    def flush(self) -> None:
        """Put what TLS made on the wire."""
        while data := self.tls.ciphertext_to_send():
            self.sock.sendall(data)

    def send(self, data: bytes) -> None:
        """Send application bytes."""
        self.tls.write(data)
        self.flush()

    def receive(self) -> bytes:
        """Application bytes; b'' at the end of the connection."""
        try:
            while not (data := self.tls.read()):
                self._exchange()
        except (EOFError, ConnectionError, TlsClosed, TlsError):
            return b""
        return data

    def rest(self) -> bytes:
        """All application bytes until the other end closes."""
        data = b""
        while piece := self.receive():
            data += piece
        return data

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def __enter__(self: _Peer) -> _Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_Peer = TypeVar("_Peer", bound=TlsPeer)


class Stranger(TlsPeer):
    """Says Hello with whatever it was told; :attr:`welcome` stays None if it is not let in."""

    def __init__(
        self,
        furl: Furl,
        *,
        role: str | None = None,
        secret: bytes | None = None,
        versions: Sequence[int] = VERSIONS,
        address: tuple[str, int] | None = None,
        change: Callable[[bytes], bytes] = bytes,
    ) -> None:
        super().__init__(address or furl.hints[0])
        self.handshake = DiallerHandshake(
            furl.role if role is None else role, furl.secret if secret is None else secret, self.tls.exporter(),
            "a test", versions,
        )  # fmt: skip
        self.send(change(self.handshake.hello()))


class Member(Stranger):
    """A peer that was let in, and may say anything."""

    def __init__(self, furl: Furl) -> None:
        super().__init__(furl)
        answer = None
        while answer is None:
            data = self.receive()
            if not data:
                self.close()
                raise EOFError("the controller did not let us in")
            answer = self.handshake.receive(data)
        assert isinstance(answer, Welcome)
        self.session = answer.session
        self.connection = Connection(EVERY_MESSAGE)
        # Tests also send frames past the connection, which it could not count.
        self.connection._outbox.acknowledge = lambda received: None  # type: ignore[method-assign]
        self._arrived: list[Any] = []
        self._pongs = 0
        self._frame = b""
        self._feed(self.handshake.leftover)

    def _feed(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, MessageReceived):
                self._arrived.append(event.message)
        # The connection keeps to itself that it was given a PONG.
        self._frame += data
        while len(self._frame) >= PREFIX.size:
            length, kind, *_ = PREFIX.unpack_from(self._frame)
            if len(self._frame) < PREFIX.size + length:
                break
            self._pongs += kind == FrameKind.PONG
            self._frame = self._frame[PREFIX.size + length :]

    def say(self, *messages: m.AnyMessage, body: Sequence[bytes] = ()) -> None:
        """Send messages; the body goes with the last."""
        for message in messages:
            self.connection.send(message, body if message is messages[-1] else ())
        with suppress(ConnectionError):
            self.send(b"".join(bytes(b) for b in self.connection.data_to_send(1 << 30)))

    def hear(self, kind: type[_Message]) -> _Message:
        """The next message of a kind; others are dropped. EOFError when the link ends."""
        while True:
            while self._arrived:
                message = self._arrived.pop(0)
                if isinstance(message, kind):
                    return message
            data = self.receive()
            if not data:
                raise EOFError("the controller ended the link")
            self._feed(data)

    def is_ended(self) -> bool:
        """Whether the controller ends the link rather than answer one more question."""
        try:
            self.ping()
        except (EOFError, ConnectionError, TlsError, TlsClosed):
            return True
        return False

    def ping(self) -> None:
        """Wait for an answer that any role can have: to a PING."""
        self.connection.ping()
        self.send(b"".join(bytes(b) for b in self.connection.data_to_send()))
        answered = self._pongs + 1
        while self._pongs < answered:
            data = self.receive()
            if not data:
                raise EOFError
            self._feed(data)


def register(furl: Furl, wanted: int = 0, host: str = "testhost") -> tuple[Member, int]:
    """An engine made by hand, and the id it got."""
    engine = Member(furl)
    engine.say(m.Register([m.EngineInfo(0, wanted, host, 1)], "no MPI", "3"))
    return engine, engine.hear(m.Registered).ids[0]


class TlsServer:
    """Answers one connection after the other with a certificate of the test's, and counts what arrives."""

    def __init__(self, identity: Identity, on_data: Callable[[TlsSession, bytes], None] | None = None) -> None:
        self._identity = identity
        self._on_data = on_data
        self.application_bytes = 0
        self.handshakes = 0
        self.over = threading.Event()
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._sock.getsockname()[:2]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            with sock, suppress(OSError, TlsError, TlsClosed, EOFError):
                sock.settimeout(10)
                self._talk(sock)
            self.over.set()

    def _talk(self, sock: socket.socket) -> None:
        tls = TlsSession.listener(self._identity)
        secure = False
        while data := sock.recv(65536):
            tls.receive_ciphertext(data)
            try:
                if not secure and tls.handshake():
                    secure = True
                    self.handshakes += 1
                if secure and (plain := tls.read()):
                    self.application_bytes += len(plain)
                    if self._on_data is not None:
                        self._on_data(tls, plain)
            finally:
                while out := tls.ciphertext_to_send():
                    sock.sendall(out)

    def close(self) -> None:
        """Stop."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(5)

    def __enter__(self) -> TlsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
