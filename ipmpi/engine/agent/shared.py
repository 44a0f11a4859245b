"""Bodies for the ranks of a node, in memory that they share.

A body that several ranks on a node receive arrives once, in an anonymous file in memory. Each rank maps it
privately (copy-on-write). So a 4 GB push to 64 ranks of a node takes 4 GB, not 256, until ranks write to it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...protocol.frames import Buffer
from ...protocol.streams import BodyFile


class SharedMemory:
    """An anonymous file in memory, whose descriptor can be handed to other processes."""

    def __init__(self, size: int) -> None:
        self.descriptor = os.memfd_create("ipmpi-body", os.MFD_CLOEXEC)
        self._size = size
        os.ftruncate(self.descriptor, size)

    def write(self, at: int, data: memoryview) -> None:
        """Store a piece."""
        while len(data):
            written = os.pwrite(self.descriptor, data, at)
            at += written
            data = data[written:]

    def take(self, at: int, file: BodyFile) -> bool:
        """Use a file that has the whole body, in the place of this one."""
        if at or file.size != self._size or file.descriptor < 0:
            return False
        os.dup2(file.descriptor, self.descriptor, inheritable=False)
        return True

    def segments(self, lengths: Sequence[int]) -> list[Buffer]:
        """Return nothing: the agent does not read bodies, ranks map them."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file; mappings stay."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
