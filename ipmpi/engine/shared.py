"""Bodies of commands in memory that the ranks of a node share (layer L3).

A body that several ranks on a node receive arrives once, in an anonymous file in memory. Each rank maps it
privately: it reads the same pages as the others, and a page that it writes to becomes its own. So a 4 GB push to
64 ranks of a node takes 4 GB, not 256, until they begin to differ. (MPI_Bcast would copy it 64 times, with all
ranks spinning meanwhile; across nodes the tree of leaders does travel by MPI.)
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence

from ..protocol.frames import Buffer, split


class SharedMemory:
    """An anonymous file in memory, whose descriptor can be handed to other processes."""

    def __init__(self, size: int) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("ipmpi-body", os.MFD_CLOEXEC)
        else:
            self.descriptor, path = tempfile.mkstemp(prefix="ipmpi")
            os.unlink(path)
        os.ftruncate(self.descriptor, size)

    def write(self, at: int, data: memoryview) -> None:
        """Store a piece."""
        while len(data):
            written = os.pwrite(self.descriptor, data, at)
            at += written
            data = data[written:]

    def segments(self, lengths: Sequence[int]) -> list[Buffer]:
        """Private copy-on-write views."""
        return map_shared(self.descriptor, lengths)

    def close(self) -> None:
        """Close the file; mappings stay."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def map_shared(descriptor: int, lengths: Sequence[int]) -> list[Buffer]:
    """The segments in a shared file, as private copy-on-write memory."""
    memory = mmap.mmap(descriptor, sum(lengths), flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return split(memoryview(memory), lengths)
