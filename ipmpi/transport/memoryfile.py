"""Files in memory that hold bodies, and travel between processes of one machine as open descriptors.

Whoever reads one that somebody else has made must be sure that it stays as it is: a file that is cut off while it
is mapped kills its reader (SIGBUS). So those of other processes have to be sealed, which cannot be undone.
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

SEALS: Final = (
    getattr(fcntl, "F_SEAL_SHRINK", 0x2) | getattr(fcntl, "F_SEAL_GROW", 0x4) | getattr(fcntl, "F_SEAL_WRITE", 0x8)
)
"""Its size and its contents stay as they are."""
_GET_SEALS: Final = getattr(fcntl, "F_GET_SEALS", 1034)
_ADD_SEALS: Final = getattr(fcntl, "F_ADD_SEALS", 1033)
_MAPPED: Final = 16 * limits.MIB
"""A file up to this size is mapped as a whole, to be read in parts; of a larger one, each part is read by itself,
so that this process does not seem to have all of it."""


def in_memory(data: Iterable[Buffer], name: str = "ipmpi-body", *, sealed: bool = False) -> int:
    """A new file in memory with these bytes; OSError if there is no room for it."""
    flags = os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealed else 0)
    descriptor = os.memfd_create(name, flags)
    try:
        for buffer in data:
            view = memoryview(buffer).cast("B")
            while len(view):
                view = view[os.write(descriptor, view) :]
        if sealed:
            fcntl.fcntl(descriptor, _ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class GrowingFile:
    """A file in memory that is written piece by piece, and then sealed.

    Attributes:
        size: bytes that have been written.
    """

    def __init__(self, descriptor: int) -> None:
        self.size = 0
        self._file = MemoryFile(descriptor)

    @classmethod
    def make(cls) -> GrowingFile | None:
        """An empty one; None if the system gives no file."""
        try:
            return cls(os.memfd_create("ipmpi-body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        except OSError:
            return None

    def append(self, data: Buffer) -> bool:
        """Write a piece at the end; False if there is no room for all of it, and then nothing was added."""
        view, at = memoryview(data), self.size
        try:
            while len(view):
                written = os.pwrite(self._file.descriptor, view, at)
                view, at = view[written:], at + written
        except OSError:
            return False
        self.size = at
        return True

    def sealed(self) -> MemoryFile:
        """What was written; nothing can be added any more."""
        os.truncate(self._file.descriptor, self.size)
        fcntl.fcntl(self._file.descriptor, _ADD_SEALS, SEALS)
        self._file.claim(self.size)
        return self._file


class MemoryFile:
    """A sealed file in memory, see :class:`ipmpi.protocol.streams.BodyFile`; closed when nothing refers to it.

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
        """Take this as the size, if it is the file of somebody else and can be trusted to stay as it is.

        Raises:
            RemoteProtocolError: it is not sealed, or smaller.
        """
        try:
            seals = fcntl.fcntl(self.descriptor, _GET_SEALS)
            there = os.fstat(self.descriptor).st_size
        except OSError:  # no file in memory at all
            seals = there = 0
        if seals & SEALS != SEALS:
            raise RemoteProtocolError("a file for a body that could still be changed or cut off by its sender")
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
