"""Bodies for the ranks of a node, in memory that they share.

A body that several ranks on a node receive arrives once, in an anonymous file in memory. Each rank maps it
privately (copy-on-write). So a 4 GB push to 64 ranks of a node takes 4 GB, not 256, until ranks write to it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from ... import limits
from ...protocol.frames import Buffer
from ...protocol.streams import BodyFile
from ...shortage import FILES_FOR_ENGINES, too_many_files
from ...transport.filewriting import FileWriting, begin_file
from ...transport.timedpool import TimedPool


class SharedMemory:
    """An anonymous file in memory, whose descriptor can be handed to other processes when all is written.

    Args:
        size: bytes.
        pool: files whose pages are there already; None for a new one. It needs its loop's thread.
    """

    def __init__(self, size: int, pool: TimedPool | None = None) -> None:
        self._size = size
        self._left = size
        self._pool = pool if size >= limits.FILE_BODY else None
        self._writing: FileWriting | None = None
        self.descriptor = -1
        """-1 before something is written, or taken."""

    def write(self, at: int, data: memoryview) -> None:
        """Store a piece."""
        if self._writing is None:
            self._writing = begin_file(self._pool, self._size)
            self.descriptor = self._writing.reader
        self._writing.write(at, data)
        self._left -= len(data)

    def take(self, at: int, file: BodyFile) -> bool:
        """Use a file that has the whole body, in the place of this one."""
        if at or file.size != self._size or file.descriptor < 0:
            return False
        copy = fcntl.fcntl(file.descriptor, fcntl.F_DUPFD_CLOEXEC, 0)
        self.close()
        self.descriptor = copy
        return True

    def segments(self, lengths: Sequence[int]) -> list[Buffer]:
        """Return nothing: the agent does not read bodies, ranks map them."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file; mappings stay."""
        writing, self._writing = self._writing, None
        if writing is not None and self._left:
            writing.give_up()
        elif writing is not None:
            writing.finish(self._size)  # which closes it here
        elif self.descriptor >= 0:  # taken from its sender
            os.close(self.descriptor)
        self.descriptor = -1


def why_not_stored(error: Exception, host: str) -> str:
    """Return why an agent could not take a body, of an error that :class:`SharedMemory` has raised."""
    files = too_many_files(error, f"the agent on {host}", FILES_FOR_ENGINES)
    return files or f"there is no memory for it on {host} ({error})"
