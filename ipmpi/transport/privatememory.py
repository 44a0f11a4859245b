"""Memory of this process that a body is put together in, or mapped into."""

from __future__ import annotations

import bisect
import ctypes
import functools
import itertools
import mmap
from collections.abc import Sequence
from typing import Any, Final

from ..protocol.frames import Buffer
from ..protocol.streams import BodyFile
from .memoryfile import MemoryFile
from .usedmaps import UsedMaps, new_map

_PAGE: Final = mmap.PAGESIZE
_MAP_FIXED: Final = 0x10
"""In Linux, on all processors: the new map takes the place of what is there."""
_FAILED: Final = ctypes.c_void_p(-1).value


class PrivateMemory:
    """Memory of this process only, for segments of given lengths.

    It is mapped, so that 4 GB are not zeroed before they are filled. Each segment begins a page, so that files in
    memory that begin with a segment can be mapped in its place, copy-on-write. Not in that of the first one, which
    is a pickle or a text: what is parsed is never what its sender might still change.

    Args:
        lengths: of the segments, in bytes.
        used: where to take the memory from, if most of it is likely to be written and not mapped.
    """

    def __init__(self, lengths: Sequence[int], used: UsedMaps | None = None) -> None:
        self._lengths = list(lengths)
        self._begins = [0, *itertools.accumulate(lengths)]
        """Where each segment begins in the body, and where the last one ends."""
        pages = [-(-length // _PAGE) * _PAGE for length in lengths]
        self._places = [0, *itertools.accumulate(pages)]
        """Where each begins in the memory."""
        self._used = used
        self._map = new_map(self._places[-1]) if used is None else used.take(self._places[-1])

    def write(self, at: int, data: memoryview) -> None:
        """Store a piece."""
        while len(data):
            segment, place = self._find(at)
            count = min(len(data), self._begins[segment + 1] - at)
            self._map[place : place + count] = data[:count]
            at, data = at + count, data[count:]

    def _find(self, at: int) -> tuple[int, int]:
        """The segment that has this byte of the body, and the place of the byte in the memory."""
        segment = bisect.bisect_right(self._begins, at) - 1
        return segment, self._places[segment] + at - self._begins[segment]

    def take(self, at: int, file: BodyFile) -> bool:
        """Map a file in the place of these bytes; False if that is not possible."""
        segment, place = self._find(at)
        if not segment:
            return False
        if not isinstance(file, MemoryFile) or place % _PAGE or at + file.size > self._begins[segment + 1]:
            return False
        # What the map overlaps with its last page is behind the segment, or is written later.
        if file.size % _PAGE and at + file.size != self._begins[segment + 1]:
            return False
        if self._used is not None:  # its pages would stay those of the file
            self._used.forget(self._map)
        return _map_over(self._map, place, file)

    def segments(self, lengths: Sequence[int]) -> list[Buffer]:
        """Views of the memory, which lives as long as they do."""
        assert list(lengths) == self._lengths
        view = memoryview(self._map)
        return [view[place : place + length] for place, length in zip(self._places, lengths, strict=False)]

    def close(self) -> None:
        """Nothing to do."""


@functools.cache
def _mmap() -> Any:
    """mmap(2), for a place in memory that is mapped already."""
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    return call


def _map_over(memory: mmap.mmap, place: int, file: MemoryFile) -> bool:
    anchor = ctypes.c_char.from_buffer(memory, place)
    address = ctypes.addressof(anchor)
    flags, access = mmap.MAP_PRIVATE | _MAP_FIXED, mmap.PROT_READ | mmap.PROT_WRITE
    return bool(_mmap()(address, file.size, access, flags, file.descriptor, 0) != _FAILED)
