"""TLS over TCP: the pipe between machines. Only who dials or listens loads it, and OpenSSL with it."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Sequence

from .. import limits
from ..protocol.frames import Buffer
from ..tls import TlsClosed, TlsError, TlsSession
from .pipes import READ_SIZE, PipeClosed, closed_by, flush

_PLAINTEXT = 2 * READ_SIZE
"""More than one read can complete: what TLS kept of the read before (part of a record) counts in."""


_KEEPALIVE = {
    "TCP_KEEPIDLE": int(limits.PING_INTERVAL),
    "TCP_KEEPINTVL": int(limits.PING_INTERVAL / 3),
    "TCP_KEEPCNT": int((limits.SILENCE - limits.PING_INTERVAL) / (limits.PING_INTERVAL / 3)),
    # For data under way, in ms. Twice as long: it also counts a peer that lives and does not read for a while.
    "TCP_USER_TIMEOUT": int(2 * limits.SILENCE * 1000),
}


class _Scratch(threading.local):
    """One buffer for each thread. TLS copies what is read into it at once, and a thousand strangers share it."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))


_scratch = _Scratch()


def prepare(sock: socket.socket) -> None:
    """Settings of every TCP connection of ours."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    # What sits unsent in the kernel cannot be overtaken by a control message either.
    not_sent = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if os.uname().sysname == "Linux" else None)
    if not_sent is not None:
        sock.setsockopt(socket.IPPROTO_TCP, not_sent, limits.CIPHERTEXT_BACKLOG)


class TlsPipe:
    """TLS over a TCP socket."""

    kind = "TLS"
    files = None

    def __init__(self, sock: socket.socket, tls: TlsSession) -> None:
        self._sock = sock
        self._tls = tls
        self._out: deque[memoryview] = deque()
        self.backlog = 0

    def fileno(self) -> int | None:
        """The socket's descriptor."""
        return self._sock.fileno()

    write_fileno = fileno

    @property
    def peer(self) -> str:
        """The other end's address, for logs."""
        try:
            return "{}:{}".format(*self._sock.getpeername()[:2])
        except OSError:
            return "a closed connection"

    @property
    def records(self) -> int:
        """Records that were encrypted with one key, at most; see :data:`limits.TLS_RECORDS`."""
        return self._tls.records

    def send_plain(self, data: bytes) -> None:
        """Send what comes before TLS begins."""
        self._out.append(memoryview(data))
        self.backlog += len(data)

    def hear_plain(self, size: int, *, keep: bool = False) -> bytes:
        """Up to so many bytes of what has arrived, before TLS begins; they are still there if ``keep``."""
        try:
            data = self._sock.recv(size, socket.MSG_PEEK if keep else 0)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise closed_by(error) from None
        if not data:
            raise PipeClosed("the connection was closed", orderly=True)
        return data

    def let_go(self) -> socket.socket:
        """The socket, which is the caller's from now on; before TLS begins."""
        return self._sock

    def greet(self) -> None:
        """Wait: in TLS the dialler speaks first."""

    def secure(self) -> bool:
        """Go on with the TLS handshake; True when it is done."""
        done = self._tls.handshake()
        self.collect()
        return done

    def check_peer(self, fingerprint: bytes, now: float, where: str) -> None:
        """See :meth:`TlsSession.check_peer`."""
        self._tls.check_peer(fingerprint, now, where)

    def binding(self, fingerprint: bytes) -> bytes:
        """The exporter; the dialler has compared the certificate."""
        del fingerprint
        return self._tls.exporter()

    def heard(self) -> Buffer:
        """Decrypted bytes of what :meth:`hear` has taken in."""
        data = self._tls.read()
        self.collect()
        return data

    def hear(self) -> bool:
        """Hand what arrived to TLS; False when nothing did."""
        buffer = _scratch.view
        try:
            count = self._sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise closed_by(error) from None
        if not count:
            raise PipeClosed("the connection was closed", orderly=True)
        self._tls.receive_ciphertext(buffer[:count])
        return True

    def receive(self) -> Buffer:
        """Decrypted bytes that have arrived."""
        try:
            if not self.hear():
                return b""
            data = self._tls.read(_PLAINTEXT)
            # Half a record gives nothing yet; b"" would mean that the socket is empty.
            while not data and self.hear():
                data = self._tls.read(_PLAINTEXT)
        except TlsClosed:
            raise PipeClosed("the peer closed the connection", orderly=True) from None
        except TlsError as error:
            raise PipeClosed(str(error), orderly=False) from None
        return data

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Encrypt buffers; small neighbours share a TLS record."""
        try:
            self._encrypt(buffers)
        except TlsClosed:
            raise PipeClosed("the peer closed the connection", orderly=True) from None
        except TlsError as error:
            raise PipeClosed(str(error), orderly=False) from None
        self.collect()

    def _encrypt(self, buffers: Sequence[Buffer]) -> None:
        small: list[Buffer] = []
        for buffer in buffers:
            if len(buffer) < 4096:
                small.append(buffer)
                continue
            if small:
                self._tls.write(b"".join(small))
                small = []
            self._tls.write(buffer)
        if small:
            self._tls.write(b"".join(small))

    def collect(self) -> None:
        """Take what TLS wants to send."""
        while data := self._tls.ciphertext_to_send():
            self._out.append(memoryview(data))
            self.backlog += len(data)

    def flush(self) -> bool:
        """Give the socket what it takes."""
        return flush(self._sock.sendmsg, self._out, self._sent)

    def _sent(self, count: int) -> None:
        self.backlog -= count

    def close(self) -> None:
        """Say goodbye in TLS, and close."""
        try:
            self._tls.close()
            self.collect()
            self.flush()
        except (PipeClosed, TlsError, TlsClosed):
            pass
        finally:  # also where there is no memory for a goodbye
            self._sock.close()
