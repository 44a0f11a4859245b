"""Mapping a file into memory that is mapped already, by a call of the system that Python does not have.

``mmap.mmap`` of a file chooses the place, and keeps a descriptor of its own.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from typing import Any, Final

_MAP_FIXED: Final = 0x10
"""In Linux, on all processors: the new map takes the place of what is there."""
_FAILED: Final = ctypes.c_void_p(-1).value


@functools.cache
def _mmap() -> Any:
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    return call


def map_over(memory: mmap.mmap, place: int, descriptor: int, size: int, flags: int) -> bool:
    """Map the first ``size`` bytes of a file in the place of those of ``memory``, to be read and written.

    Args:
        memory: which the map is a part of, and ends with.
        place: where in it, the beginning of a page.
        descriptor: the file, which may be closed then.
        size: bytes, which are there in both.
        flags: ``MAP_PRIVATE`` or ``MAP_SHARED``, and others.

    Returns:
        Whether the system has done it.
    """
    anchor = ctypes.c_char.from_buffer(memory, place)
    address = ctypes.addressof(anchor)
    access = mmap.PROT_READ | mmap.PROT_WRITE
    return bool(_mmap()(address, size, access, flags | _MAP_FIXED, descriptor, 0) != _FAILED)
