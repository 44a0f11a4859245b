"""The files in memory that a process with a loop uses again, and the timer that gives them back."""

from __future__ import annotations

from collections.abc import Sequence

from .. import limits
from ..memory import available_bytes
from ..protocol.frames import Buffer
from .loop import Loop, OnError, Timer
from .memoryfile import MemoryFile
from .segmentpool import SegmentPool, Writing


class TimedPool:
    """A :class:`SegmentPool` for a process that has a share of the machine's memory for it.

    Only :meth:`file_with` may be called in another thread than that of the loop, where :meth:`used` has to follow.

    Args:
        loop: that of this thread.
        on_error: told of what nobody foresaw.
    """

    def __init__(self, loop: Loop, on_error: OnError | None = None) -> None:
        self._loop = loop
        self._on_error = on_error
        self._pool = SegmentPool(lambda: min(limits.POOL_BYTES, int(limits.POOL_SHARE * available_bytes())))
        self._timer: Timer | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it keeps no file, and has no timer."""
        return self._pool.is_empty and self._timer is None

    def file_with(self, data: Sequence[Buffer], size: int) -> MemoryFile:
        """A file with these bytes; OSError if there is no room for it."""
        return MemoryFile(self._pool.file_with(data, size, self._loop.now()), size)

    def begin(self, size: int) -> Writing | None:
        """A file to be written piece by piece; None if none may be kept."""
        return self._pool.begin(size, self._loop.now())

    def finish(self, writing: Writing, size: int) -> MemoryFile:
        """What was written so far, and is all."""
        file = MemoryFile(writing.finish(self._loop.now()), size)
        self.used()
        return file

    def used(self) -> None:
        """A file was written: it is given back when it has not been used for a while."""
        if self._timer is None and not self._pool.is_empty:
            self._timer = self._loop.call_later(limits.POOL_KEEPS, self._give_back, self._on_error)

    def _give_back(self) -> None:
        pause = self._pool.give_back(self._loop.now())
        self._timer = None if pause is None else self._loop.call_later(pause, self._give_back, self._on_error)

    def close(self) -> None:
        """Keep nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.close()
