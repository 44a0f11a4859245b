"""Files in memory that their sender writes again once nobody can see them any more: their pages are there already.

How the sender knows: what it hands on is a second, read-only opening of the file, on which it has taken a shared
lock (flock(2)). Such a lock belongs to that opening, not to a process, and lasts until the system has dropped the
last reference to it. Descriptors are references, wherever they are: in this process, on their way in a socket, in
receivers, stopped ones and forked children too. So are mappings, after their descriptor was closed as well. When
all are gone, also because their processes were killed, the sender can lock its own opening exclusively.

Nobody may open the read-only opening anew by way of ``/proc``: that would be a third one, which has no lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Final

from .. import limits
from ..copying import copy
from ..protocol.frames import Buffer
from .mapping import map_over
from .memoryfile import ADD_SEALS, FIXED_SIZE, in_memory, write_all

_SEALS: Final = FIXED_SIZE | getattr(fcntl, "F_SEAL_SEAL", 0x1)
"""Nobody can cut it off, nor seal it against writing."""
_ASK_AGAIN: Final = 1.0
"""Seconds for which the answer to how much may be kept is believed."""


class _Segment:
    """One file.

    Attributes:
        descriptor: its opening that can be written to; never handed on.
        size: bytes.
        used_at: when it was taken last.
        is_written: whether a thread writes to it now.
    """

    __slots__ = ("_filled", "_map", "descriptor", "is_written", "size", "used_at")

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.used_at = 0.0
        self.is_written = False
        self._filled = 0
        """Bytes that have pages."""
        self._map: mmap.mmap | None = None

    def fill(self, data: Sequence[Buffer], size: int) -> None:
        """Write these bytes, of which there are ``size``.

        Through a map if their pages are there: pwrite(2) looks up and locks each, which takes as long as the copy.
        Without a page, it says that there is no memory, where a map would end the process.
        """
        numpy = sys.modules.get("numpy")  # another thread may be importing it
        is_usable = hasattr(numpy, "copyto") and hasattr(numpy, "frombuffer") and hasattr(numpy, "uint8")
        memory = self._mapped() if size <= self._filled and is_usable else None
        if memory is None or numpy is None:
            self._filled = max(self._filled, write_all(self.descriptor, data))
            return
        at = 0
        pairs = []
        for buffer in data:
            part = memoryview(buffer).cast("B")
            if len(part):
                place = numpy.frombuffer(memory, numpy.uint8, len(part), at)
                pairs.append((place, numpy.frombuffer(part, numpy.uint8)))
                at += len(part)
        copy(pairs)

    def _mapped(self) -> mmap.mmap | None:
        """All of it in memory; None if the system does not map it."""
        if self._map is None:
            with contextlib.suppress(OSError):
                memory = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
                if map_over(memory, 0, self.descriptor, self.size, flags):
                    self._map = memory
        return self._map

    def close(self) -> None:
        """Give it back to the system, once no receiver has it either."""
        os.close(self.descriptor)
        self._map = None  # it may still be referred to, where writing to it has failed


class Writing:
    """A file of a pool that is being written, and that nobody sees before :meth:`finish`. End it by one of both.

    Attributes:
        descriptor: to write to.
        reader: what :meth:`finish` returns.
    """

    def __init__(self, pool: SegmentPool, segment: _Segment, reader: int) -> None:
        self.descriptor = segment.descriptor
        self._pool = pool
        self._segment = segment
        self.reader = reader

    def fill(self, data: Sequence[Buffer], size: int) -> None:
        """Write these bytes, of which there are ``size``: all of the body."""
        self._segment.fill(data, size)

    def finish(self, now: float) -> int:
        """A descriptor to be handed on, which the caller closes."""
        self._pool.end(self._segment, now)
        return self.reader

    def give_up(self) -> None:
        """It was not filled, and is not kept: what is in it is nobody's."""
        os.close(self.reader)
        self._pool.end(self._segment, None)


class SegmentPool:
    """The files that one sender keeps. May be used from any thread; forked children have none of them.

    Args:
        bound: returns how many bytes they may have together.
    """

    def __init__(self, bound: Callable[[], int]) -> None:
        self._ask = bound
        self._bound = 0
        self._asked_at = float("-inf")
        self._segments: list[_Segment] = []
        self._lock = threading.Lock()
        self._is_closed = False
        weakref.finalize(self, _close_all, self._segments).atexit = False
        _pools.add(self)

    @property
    def is_empty(self) -> bool:
        """Whether it keeps no file."""
        return not self._segments

    def file_with(self, data: Sequence[Buffer], size: int, now: float) -> int:
        """A file that begins with these ``size`` bytes, whose size cannot change.

        Returns:
            A descriptor to be handed on, which the caller closes. Receivers may duplicate and map it.

        Raises:
            OSError: there is no room for it, or no descriptor.
        """
        writing = self.begin(size, now)
        if writing is None:
            return in_memory(data, sealed=True)
        try:
            writing.fill(data, size)
        except BaseException:
            writing.give_up()
            raise
        return writing.finish(now)

    def begin(self, size: int, now: float) -> Writing | None:
        """A file for so many bytes, to be written piece by piece; None if none may be kept."""
        with self._lock:
            return None if self._is_closed else self._take(size, now)

    def end(self, segment: _Segment, now: float | None) -> None:
        """Nobody writes to a file any more; with ``now``, it is complete."""
        with self._lock:
            segment.is_written = False
            if self._is_closed or now is None:
                self._drop(segment)
            else:
                segment.used_at = now

    def give_back(self, now: float) -> float | None:
        """Close the files that were not used for a while, also if somebody still has them.

        Returns:
            Seconds until this is to be called again; None if that is not necessary before another is written.
        """
        with self._lock:
            for segment in list(self._segments):
                if segment.used_at + limits.POOL_KEEPS <= now and not segment.is_written:
                    self._drop(segment)
            oldest = min((segment.used_at for segment in self._segments if not segment.is_written), default=None)
        return None if oldest is None else max(oldest + limits.POOL_KEEPS - now, 0.01)

    def close(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            self._is_closed = True
            self._drop_all()

    # --- with the lock held ----------------------------------------------------------------------------------

    def _take(self, size: int, now: float) -> Writing | None:
        """A file that nobody can see; None if none may be kept."""
        fitting = [s for s in self._segments if size <= s.size <= 2 * size and not s.is_written]
        fitting.sort(key=lambda segment: (segment.size, segment.used_at))
        segment = next((segment for segment in fitting if _is_free(segment.descriptor)), None)
        try:
            segment = segment or self._new(size, now)
            if segment is None:
                return None
            reader = _open_for_receivers(segment.descriptor)
        except OSError:  # no descriptor, no /proc, or no locks
            self._drop_all()
            return None
        segment.used_at, segment.is_written = now, True
        return Writing(self, segment, reader)

    def _new(self, size: int, now: float) -> _Segment | None:
        capacity = _rounded(size)
        if now - self._asked_at >= _ASK_AGAIN:
            self._bound, self._asked_at = self._ask(), now
        if not self._make_room(self._bound - capacity):
            return None
        segment = _Segment(os.memfd_create("ipmpi-body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), capacity)
        self._segments.append(segment)
        os.ftruncate(segment.descriptor, capacity)
        fcntl.fcntl(segment.descriptor, ADD_SEALS, _SEALS)
        return segment

    def _make_room(self, left: int) -> bool:
        """Drop the files that were used longest ago, until the rest has ``left`` bytes and another may come."""
        written = [segment for segment in self._segments if segment.is_written]
        if sum(segment.size for segment in written) > left or len(written) >= limits.POOL_FILES:
            return False
        by_age = sorted(
            (segment for segment in self._segments if not segment.is_written),
            key=lambda segment: segment.used_at, reverse=True,
        )  # fmt: skip
        kept = sum(segment.size for segment in self._segments)
        while kept > left or len(self._segments) >= limits.POOL_FILES:
            oldest = by_age.pop()
            kept -= oldest.size
            self._drop(oldest)
        return True

    def _drop(self, segment: _Segment) -> None:
        if segment in self._segments:
            self._segments.remove(segment)
        segment.close()

    def _drop_all(self) -> None:
        for segment in list(self._segments):
            if not segment.is_written:  # whoever writes to it drops it
                self._drop(segment)

    def abandon(self) -> None:
        """In a forked child: they are the parent's, whose locks this process shares."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._is_closed = True
        _close_all(self._segments)


def _close_all(segments: list[_Segment]) -> None:
    while segments:
        with contextlib.suppress(OSError):
            os.close(segments.pop().descriptor)


def _is_free(descriptor: int) -> bool:
    """Whether nobody else has a file open or mapped."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _open_for_receivers(descriptor: int) -> int:
    """Open a file once more, read-only and locked; OSError if that would not tell when it is free."""
    reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if _is_free(descriptor):
            raise OSError("this system does not lock files in memory")
    except BaseException:
        os.close(reader)
        raise
    return reader


def _rounded(size: int) -> int:
    """A size that somewhat larger and smaller bodies have in common: up to an eighth more, in whole pages."""
    step = max(4096, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


_pools: weakref.WeakSet[SegmentPool] = weakref.WeakSet()


def _forked() -> None:
    for pool in list(_pools):
        pool.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
