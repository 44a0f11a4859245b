"""Maps of memory that large bodies were received in, to be used for the next ones.

The system clears each new page before a process sees it. On some machines, such as virtual ones, that takes longer
than to decrypt what is written to it. A map whose arrays are gone has pages that need not be cleared.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

from .. import limits


def _references(memory: object) -> int:
    """How many there are, counted as all callers here hold one of their own."""
    return sys.getrefcount(memory)


def _baseline() -> int:
    """What :func:`_references` says of an object that is in a list and in a local variable."""
    maps = [object()]
    memory = maps[0]
    return _references(memory)


_UNUSED: Final = _baseline()


def new_map(size: int) -> mmap.mmap:
    """Anonymous memory, of huge pages where there are such."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages only takes longer
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class UsedMaps:
    """The last maps that were taken, of which those that nobody refers to are taken again.

    A memoryview of a map, and each array or view made from that, refers to the map: while one of them is there, it
    is in use. May be used in any thread. Children of this process have copies.

    Args:
        call_later: makes a call after so many seconds; used in any thread. When none was taken for
            USED_MAPS_KEPT, all are given back.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._call_later = call_later
        self._maps: list[mmap.mmap] = []
        self._lock = threading.RLock()  # arrays end anywhere, also inside of it
        self._process = os.getpid()
        self._is_closed = False
        self._taken = 0
        self._is_watched = False

    def take(self, size: int) -> mmap.mmap:
        """A map of at least this size; what is in it is arbitrary.

        Raises:
            OSError, ValueError, OverflowError: there is no memory for it.
        """
        if self._process != os.getpid():  # a child has the lock as it was at the fork
            return new_map(size)
        with self._lock:
            memory = self._unused(size)
        if memory is None:
            memory = new_map(size)
        if size <= limits.USED_MAPS // 2:
            self._keep(memory)
        return memory

    def _unused(self, size: int) -> mmap.mmap | None:
        for index in range(len(self._maps)):
            memory = self._maps[index]
            if size <= len(memory) <= size + size // 4 and _references(memory) == _UNUSED:
                del self._maps[index]
                return memory
            del memory
        return None

    def _keep(self, memory: mmap.mmap) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._maps.append(memory)
            while sum(map(len, self._maps)) > limits.USED_MAPS:
                del self._maps[0]
            self._taken += 1
            is_watched, self._is_watched, seen = self._is_watched, True, self._taken
        if not is_watched:
            self._watch(seen)

    def _watch(self, seen: int) -> None:
        self._call_later(limits.USED_MAPS_KEPT, lambda: self._look(seen))

    def _look(self, seen: int) -> None:
        with self._lock:
            taken = self._taken
            if seen == taken:
                self._is_watched = False
                self._maps.clear()
                return
        self._watch(taken)

    def close(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            self._is_closed = True
            self._maps.clear()

    def forget(self, memory: mmap.mmap) -> None:
        """Do not use this again."""
        with self._lock:
            self._maps = [each for each in self._maps if each is not memory]
