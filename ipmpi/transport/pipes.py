"""Byte pipes: what a link's bytes go through (layer L3).

A pipe never blocks. ``receive`` gives what has arrived (b"" when there is nothing now) and raises
:class:`PipeClosed` at the end; ``send`` takes buffers and keeps what cannot go out yet; ``flush`` tries again
and says whether all is out.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .. import limits
from ..protocol.frames import Buffer, size_of
from ..tls import TlsClosed, TlsError, TlsSession

READ_SIZE = limits.CHUNK
_PLAINTEXT = 2 * READ_SIZE
"""More than one read can complete: what TLS kept of the read before (part of a record) counts in."""

_GATHER = 64


class PipeClosed(Exception):
    """The other end is gone; ``orderly`` when its program or system closed, not the network."""

    def __init__(self, reason: str, *, orderly: bool) -> None:
        super().__init__(reason)
        self.orderly = orderly


class Pipe(Protocol):
    """What a link needs of a pipe."""

    def fileno(self) -> int | None:
        """The descriptor to wait on, or None if there is none."""
        ...

    @property
    def backlog(self) -> int:
        """Bytes taken and not yet given to the system."""
        ...

    def receive(self) -> Buffer:
        """What has arrived; b"" when nothing."""
        ...

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Take buffers."""
        ...

    def flush(self) -> bool:
        """Give the system what it takes; True when nothing is left."""
        ...

    def close(self) -> None:
        """End it."""
        ...


def prepare(sock: socket.socket) -> None:
    """Settings of every TCP connection of ours."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.SILENCE * 1000))
    # What sits unsent in the kernel cannot be overtaken by a control message either.
    not_sent = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if os.uname().sysname == "Linux" else None)
    if not_sent is not None:
        sock.setsockopt(socket.IPPROTO_TCP, not_sent, limits.CIPHERTEXT_BACKLOG)


def _closed(error: OSError) -> PipeClosed:
    gone = error.errno in (errno.ECONNRESET, errno.EPIPE)
    return PipeClosed(error.strerror or str(error), orderly=gone)


class TlsPipe:
    """TLS over a TCP socket."""

    def __init__(self, sock: socket.socket, tls: TlsSession) -> None:
        self._sock = sock
        self._tls = tls
        self._buffer = bytearray(READ_SIZE)
        self._out: deque[memoryview] = deque()
        self.backlog = 0

    def fileno(self) -> int | None:
        """The socket's descriptor."""
        return self._sock.fileno()

    @property
    def peer(self) -> str:
        """The other end's address, for logs."""
        try:
            return "{}:{}".format(*self._sock.getpeername()[:2])
        except OSError:
            return "a closed connection"

    def receive_ciphertext(self) -> bool:
        """Hand what arrived to TLS; False when nothing did."""
        try:
            count = self._sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise _closed(error) from None
        if not count:
            raise PipeClosed("the connection was closed", orderly=True)
        self._tls.receive_ciphertext(memoryview(self._buffer)[:count])
        return True

    def receive(self) -> Buffer:
        """Decrypted bytes that have arrived."""
        try:
            if not self.receive_ciphertext():
                return b""
            data = self._tls.read(_PLAINTEXT)
            # Half a record gives nothing yet; b"" would mean that the socket is empty.
            while not data and self.receive_ciphertext():
                data = self._tls.read(_PLAINTEXT)
        except TlsClosed:
            raise PipeClosed("the peer closed the connection", orderly=True) from None
        except TlsError as error:
            raise PipeClosed(str(error), orderly=False) from None
        return data

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Encrypt buffers; small neighbours share a TLS record."""
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
        self.collect()

    def collect(self) -> None:
        """Take what TLS wants to send."""
        while data := self._tls.ciphertext_to_send():
            self._out.append(memoryview(data))
            self.backlog += len(data)

    def flush(self) -> bool:
        """Give the socket what it takes."""
        return _flush(self._sock, self._out, self._sent)

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
        self._sock.close()


def _flush(sock: socket.socket, out: deque[memoryview], sent: Callable[[int], None]) -> bool:
    while out:
        try:
            count = sock.sendmsg([out[i] for i in range(min(len(out), _GATHER))])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise _closed(error) from None
        sent(count)
        while count:
            first = out[0]
            if len(first) > count:
                out[0] = first[count:]
                break
            count -= len(first)
            out.popleft()
    return True


class UnixPipe:
    """A Unix stream socket between two ranks on one node; open files can go along (shared memory)."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._out: deque[memoryview] = deque()
        self._files_out: deque[int] = deque()
        self.files: deque[int] = deque()
        """Descriptors that arrived, in order; whoever takes one closes it."""
        self.backlog = 0

    def fileno(self) -> int | None:
        """The socket's descriptor."""
        return self._sock.fileno()

    def receive(self) -> Buffer:
        """Bytes that have arrived; descriptors that came with them go to :attr:`files`."""
        try:
            data, files, _, _ = socket.recv_fds(self._sock, READ_SIZE, 16)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise _closed(error) from None
        self.files.extend(files)
        if not data:
            raise PipeClosed("the process at the other end is gone", orderly=True)
        return data

    def send_file(self, descriptor: int) -> None:
        """Send an open file (a duplicate of it) before the bytes that are sent next, or with them."""
        self._files_out.append(os.dup(descriptor))

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Take buffers."""
        for buffer in buffers:
            if len(buffer):
                self._out.append(memoryview(buffer).cast("B"))
        self.backlog += size_of(buffers)

    def flush(self) -> bool:
        """Give the socket what it takes."""
        while self._files_out and self._out:
            descriptor = self._files_out[0]
            try:
                # One byte carries one descriptor; the receiver takes them in order.
                socket.send_fds(self._sock, [self._out[0][:1]], [descriptor])
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                raise _closed(error) from None
            os.close(self._files_out.popleft())
            self.backlog -= 1
            if len(self._out[0]) == 1:
                self._out.popleft()
            else:
                self._out[0] = self._out[0][1:]
        return _flush(self._sock, self._out, self._sent)

    def _sent(self, count: int) -> None:
        self.backlog -= count

    def close(self) -> None:
        """Close the socket and descriptors nobody took."""
        self._sock.close()
        for descriptor in [*self._files_out, *self.files]:
            os.close(descriptor)
        self._files_out.clear()
        self.files.clear()
