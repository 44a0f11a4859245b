"""A pipe of plain bytes over a socket, for links whose other end is in the same test."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence

from ipmpi.protocol.frames import Buffer, size_of
from ipmpi.transport.pipes import READ_SIZE, PipeClosed, closed_by, flush


class SocketPipe:
    """As :class:`ipmpi.transport.tlspipe.TlsPipe`, without TLS."""

    files = None

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._out: deque[memoryview] = deque()
        self.backlog = 0

    def fileno(self) -> int | None:
        return self._sock.fileno()

    write_fileno = fileno

    def receive(self) -> Buffer:
        try:
            data = self._sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise closed_by(error) from None
        if not data:
            raise PipeClosed("the process at the other end is gone", orderly=True)
        return data

    def send(self, buffers: Sequence[Buffer]) -> None:
        self._out += [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        self.backlog += size_of(buffers)

    def flush(self) -> bool:
        return flush(self._sock.sendmsg, self._out, self._sent)

    def _sent(self, count: int) -> None:
        self.backlog -= count

    def close(self) -> None:
        self._sock.close()
