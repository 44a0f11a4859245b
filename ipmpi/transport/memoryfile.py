"""Files in memory that hold bodies, and travel between processes of one machine as open descriptors.

Whoever reads one that somebody else has made must be sure that it keeps its size: a file that is cut off while it
is mapped kills its reader (SIGBUS). So those of other processes have to be sealed, which cannot be undone. That
nobody writes to one while it can be seen is its sender's part: it makes a new file for each body, or waits until
all receivers have let go of the file (:mod:`~ipmpi.transport.segmentpool`).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from .. import limits
from ..errors import RemoteProtocolError
from ..protocol.frames import Buffer

FIXED_SIZE: Final = getattr(fcntl, "F_SEAL_SHRINK", 0x2) | getattr(fcntl, "F_SEAL_GROW", 0x4)
"""Seals of a file whose size stays as it is."""
SEALS: Final = FIXED_SIZE | getattr(fcntl, "F_SEAL_WRITE", 0x8)
"""Those of one whose contents do, too."""
ADD_SEALS: Final = getattr(fcntl, "F_ADD_SEALS", 1033)
_GET_SEALS: Final = getattr(fcntl, "F_GET_SEALS", 1034)
_MAPPED: Final = 16 * limits.MIB
"""A file up to this size is mapped as a whole, to be read in parts; of a larger one, each part is read by itself,
so that this process does not seem to have all of it."""


def new_file(name: str = "ipmpi-body", *, sealed: bool = False) -> int:
    """An empty file in memory, which can be sealed if ``sealed``; OSError if the system gives none."""
    return os.memfd_create(name, os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealed else 0))


def seal(descriptor: int, size: int) -> None:
    """Let nobody change a file any more, which has this size."""
    os.truncate(descriptor, size)
    fcntl.fcntl(descriptor, ADD_SEALS, SEALS)


def in_memory(data: Iterable[Buffer], name: str = "ipmpi-body", *, sealed: bool = False) -> int:
    """A new file in memory with these bytes; OSError if there is no room for it."""
    descriptor = new_file(name, sealed=sealed)
    try:
        size = write_all(descriptor, data)
        if sealed:
            seal(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_all(descriptor: int, data: Iterable[Buffer], at: int = 0) -> int:
    """Write these bytes to a file, from a place in it on; where they end."""
    for buffer in data:
        view = memoryview(buffer).cast("B")
        while len(view):
            written = os.pwrite(descriptor, view, at)
            at, view = at + written, view[written:]
    return at


class MemoryFile:
    """A file in memory of a fixed size, closed when nothing refers to it.

    See :class:`ipmpi.protocol.streams.BodyFile`.

    Args:
        descriptor: which this closes.
        size: bytes from its beginning.
        on_freed: called when neither the file nor a part of it is needed here any more.

    Attributes:
        descriptor: the same.
        size: the same.
    """

    def __init__(self, descriptor: int, size: int = 0, on_freed: Callable[[], object] | None = None) -> None:
        self.descriptor = descriptor
        self.size = size
        self._on_freed = on_freed
        self._map: mmap.mmap | None = None
        self._finalizer = weakref.finalize(self, _free, descriptor, on_freed)
        self._finalizer.atexit = False

    def claim(self, size: int) -> None:
        """Take this as the size, if it is the file of somebody else that cannot be cut off.

        Raises:
            RemoteProtocolError: it is not sealed, or smaller.
        """
        try:
            seals = fcntl.fcntl(self.descriptor, _GET_SEALS)
            there = os.fstat(self.descriptor).st_size
        except OSError:  # no file in memory at all
            seals = there = 0
        if seals & FIXED_SIZE != FIXED_SIZE:
            raise RemoteProtocolError("a file for a body that could still be cut off by its sender")
        if there < size:
            raise RemoteProtocolError(f"a file of {there} bytes for a part of a body that has {size}")
        self.size = size

    def part(self, at: int, size: int) -> memoryview:
        """Up to so many bytes from there."""
        if self.size > _MAPPED:
            return memoryview(os.pread(self.descriptor, size, at))
        if self._map is None:
            # Private, although nothing is written: older kernels map sealed files in no other way.
            flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0)
            self._map = mmap.mmap(self.descriptor, self.size, flags=flags, prot=mmap.PROT_READ)
            if self._on_freed is not None:  # parts of the map may be needed for longer than this object
                self._finalizer.detach()
                weakref.finalize(self, os.close, self.descriptor).atexit = False
                weakref.finalize(self._map, self._on_freed).atexit = False
        return memoryview(self._map)[at : at + size]


def _free(descriptor: int, on_freed: Callable[[], object] | None) -> None:
    os.close(descriptor)
    if on_freed is not None:
        on_freed()
