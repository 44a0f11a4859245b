"""Where a streamed body ends in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .. import limits
from ..protocol.frames import Buffer
from ..protocol.relay import SinkStream
from ..protocol.streams import BodyFile

_STEP = limits.STREAM_WINDOW // 4


class Memory(Protocol):
    """A place for a given number of bytes."""

    def write(self, at: int, data: memoryview) -> None:
        """Store a piece."""

    def take(self, at: int, file: BodyFile) -> bool:
        """Use a file in memory as what is stored there; False if its bytes have to be written."""

    def segments(self, lengths: Sequence[int]) -> list[Buffer]:
        """What was stored, cut; writable memory of this process."""

    def close(self) -> None:
        """Free what segments do not need."""


class BodyReceiver:
    """A body that arrives in pieces: the last sink of a transfer.

    Args:
        lengths: of the segments.
        memory: where to put them.
        on_complete: called when the last piece is there.
        on_abort: called when the rest will not come.
        on_broken: called with what the memory raised when it does not take a piece; the rest is dropped then.
            Without it, that is raised.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        memory: Memory,
        on_complete: Callable[[BodyReceiver], None],
        on_abort: Callable[[], None],
        on_broken: Callable[[Exception], None] | None = None,
    ) -> None:
        self.id = 0
        self.files = True
        self.lengths = list(lengths)
        self.memory = memory
        self._size = sum(lengths)
        self._received = 0
        self._on_complete = on_complete
        self._on_abort = on_abort
        self._on_broken = on_broken
        self._is_broken = False
        self.credit = min(limits.STREAM_WINDOW, self._size)

    @property
    def connection(self) -> BodyReceiver:
        """Itself: what takes the pieces."""
        return self

    def wake(self) -> None:
        """Nothing waits to be sent."""

    def feed(self, _stream: SinkStream, data: Buffer | BodyFile) -> None:
        """Store a piece, or a file."""
        size = len(data) if isinstance(data, bytes | bytearray | memoryview) else data.size
        if not self._is_broken:
            try:
                self._store(data)
            except (OSError, ValueError, MemoryError) as error:
                if self._on_broken is None:
                    raise
                self._is_broken = True
                self.memory.close()
                self._on_broken(error)
        self._received += size
        # Credit goes back in steps, not with every piece.
        if self.credit - self._received <= limits.STREAM_WINDOW - _STEP:
            self.credit = min(self._size, self._received + limits.STREAM_WINDOW)
        if self._received == self._size and not self._is_broken:
            self._on_complete(self)

    def _store(self, data: Buffer | BodyFile) -> None:
        if isinstance(data, bytes | bytearray | memoryview):
            self.memory.write(self._received, memoryview(data))
        elif not self.memory.take(self._received, data):
            at = 0
            while at < data.size:
                part = data.part(at, min(limits.CHUNK, data.size - at))
                self.memory.write(self._received + at, part)
                at += len(part)

    def abort(self, _stream: SinkStream) -> None:
        """The rest will not come."""
        if not self._is_broken:
            self.memory.close()
            self._on_abort()

    def segments(self) -> list[Buffer]:
        """The body."""
        return self.memory.segments(self.lengths)
