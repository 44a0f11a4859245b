"""Byte pipes: what a link's bytes go through.

A pipe never blocks. ``receive`` gives what has arrived (b"" when there is nothing now) and raises
:class:`PipeClosed` at the end; ``send`` takes buffers and keeps what cannot go out yet; ``flush`` tries again
and says whether all is out.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from .. import limits
from ..protocol.frames import Buffer, size_of
from ..protocol.streams import BodyFile

READ_SIZE = limits.CHUNK
_GATHER = 64


class PipeClosed(Exception):
    """The other end is gone; ``orderly`` when its program or system closed, not the network."""

    def __init__(self, reason: str, *, orderly: bool) -> None:
        super().__init__(reason)
        self.orderly = orderly


class Pipe(Protocol):
    """What a link needs of a pipe."""

    @property
    def files(self) -> deque[BodyFile] | None:
        """Files that came with what was received, in order; None if this pipe carries none."""
        ...

    def fileno(self) -> int | None:
        """The descriptor to wait on, or None if there is none."""
        ...

    def write_fileno(self) -> int | None:
        """The descriptor to wait on for room; most often the same."""
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


class SecurePipe(Pipe, Protocol):
    """A pipe to another process that has to be made secure before anything is said on it.

    The dialler calls :meth:`secure`, the listener :meth:`greet`; then both call :meth:`hear` and :meth:`secure`
    when something has arrived, until the latter is True. The dialler calls :meth:`check_peer` then.

    Attributes:
        kind: what makes it secure, for messages.
    """

    kind: str

    @property
    def peer(self) -> str:
        """The other end's address, for logs."""
        ...

    @property
    def records(self) -> int:
        """Records that were encrypted with one key, at most; see :data:`limits.TLS_RECORDS`."""
        ...

    def greet(self) -> None:
        """Begin, as the listener."""
        ...

    def hear(self) -> bool:
        """Take in what has arrived; False when nothing has."""
        ...

    def secure(self) -> bool:
        """Go as far as what has arrived allows; True when the pipe is secure."""
        ...

    def check_peer(self, fingerprint: bytes, now: float, where: str) -> None:
        """Raise SecurityError if the listener is certainly not the controller with this certificate."""
        ...

    def binding(self, fingerprint: bytes) -> bytes:
        """32 bytes that both ends know of this very connection, and that no other connection has."""
        ...

    def heard(self) -> Buffer:
        """What was taken in behind what made the pipe secure."""
        ...


def closed_by(error: OSError) -> PipeClosed:
    """What an error of a socket means for its pipe."""
    gone = error.errno in (errno.ECONNRESET, errno.EPIPE)
    return PipeClosed(error.strerror or str(error), orderly=gone)


def flush(write: Callable[[list[memoryview]], int], out: deque[memoryview], sent: Callable[[int], None]) -> bool:
    """Write what the system takes; ``sent`` is told how much. True when nothing is left."""
    while out:
        try:
            count = write([out[i] for i in range(min(len(out), _GATHER))])
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


class PipePair:
    """Two descriptors, as a program and what started it have them; that they end is never orderly by itself.

    Args:
        reader, writer: the descriptors, which this closes.
    """

    files = None

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._out: deque[memoryview] = deque()
        self.backlog = 0
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)

    def fileno(self) -> int:
        """Of the one that is read."""
        return self._reader

    def write_fileno(self) -> int:
        """Of the other."""
        return self._writer

    def receive(self) -> Buffer:
        """What has arrived."""
        try:
            data = os.read(self._reader, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise PipeClosed(error.strerror or str(error), orderly=False) from None
        if not data:
            raise PipeClosed("the other end is gone", orderly=False)
        return data

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Take buffers."""
        self._out += [memoryview(buffer) for buffer in buffers if len(buffer)]
        self.backlog += size_of(buffers)

    def flush(self) -> bool:
        """Give the pipe what it takes."""
        try:
            return flush(partial(os.writev, self._writer), self._out, self._sent)
        except PipeClosed as closed:
            raise PipeClosed(str(closed), orderly=False) from None

    def _sent(self, count: int) -> None:
        self.backlog -= count

    def close(self) -> None:
        """Close both."""
        os.close(self._reader)
        os.close(self._writer)
