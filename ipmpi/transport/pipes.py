"""Byte pipes: what a link's bytes go through.

A pipe never blocks. ``receive`` gives what has arrived (b"" when there is nothing now) and raises
:class:`PipeClosed` at the end; ``send`` takes buffers and keeps what cannot go out yet; ``flush`` tries again
and says whether all is out.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .. import limits
from ..protocol.frames import Buffer

READ_SIZE = limits.CHUNK
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
