"""Byte pipes: what a link's bytes go through (layer L3).

A pipe never blocks. ``receive`` gives what has arrived (b"" when there is nothing now) and raises
:class:`PipeClosed` at the end; ``send`` takes buffers and keeps what cannot go out yet; ``flush`` tries again
and says whether all is out.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .. import limits
from ..protocol.frames import Buffer, size_of

READ_SIZE = limits.CHUNK
_GATHER = 64
_FD = struct.Struct("i")
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""A program that user code starts in this moment must not keep gigabytes of shared memory."""
_ATTACHED = socket.CMSG_SPACE(16 * _FD.size)


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


def closed_by(error: OSError) -> PipeClosed:
    """What an error of a socket means for its pipe."""
    gone = error.errno in (errno.ECONNRESET, errno.EPIPE)
    return PipeClosed(error.strerror or str(error), orderly=gone)


def flush_socket(sock: socket.socket, out: deque[memoryview], sent: Callable[[int], None]) -> bool:
    """Send what the socket takes; ``sent`` is told how much. True when nothing is left."""
    while out:
        try:
            count = sock.sendmsg([out[i] for i in range(min(len(out), _GATHER))])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise closed_by(error) from None
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
            data, attached, _, _ = self._sock.recvmsg(READ_SIZE, _ATTACHED, _CLOSE_ON_EXEC)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise closed_by(error) from None
        for level, kind, content in attached:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self.files.extend(_FD.unpack_from(content, at)[0] for at in range(0, len(content), _FD.size))
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
                raise closed_by(error) from None
            os.close(self._files_out.popleft())
            self.backlog -= 1
            if len(self._out[0]) == 1:
                self._out.popleft()
            else:
                self._out[0] = self._out[0][1:]
        return flush_socket(self._sock, self._out, self._sent)

    def _sent(self, count: int) -> None:
        self.backlog -= count

    def close(self) -> None:
        """Close the socket and descriptors nobody took."""
        self._sock.close()
        for descriptor in [*self._files_out, *self.files]:
            os.close(descriptor)
        self._files_out.clear()
        self.files.clear()
