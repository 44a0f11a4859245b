"""Files in memory while a body is written to them: a file of a pool, or one that is used once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Protocol

from ..protocol.frames import Buffer
from .memoryfile import MemoryFile, new_file, seal, write_all
from .segmentpool import Writing
from .timedpool import TimedPool


class FileWriting(Protocol):
    """A file that is being written, piece by piece. End it by one of :meth:`finish` and :meth:`give_up`.

    Attributes:
        reader: an opening of it that others can be given already, before its end.
    """

    reader: int

    def write(self, at: int, data: Buffer) -> None:
        """Write these bytes at a place. If it raises OSError, a part of them may be there; the others stay."""

    def finish(self, size: int) -> MemoryFile:
        """So many bytes from its beginning, of which each was written; nothing more is."""

    def give_up(self) -> None:
        """Nobody needs it."""


def begin_file(
    pool: TimedPool | None, size: int, *, sealed: bool = False, room: Callable[[], int] | None = None
) -> FileWriting:
    """Begin a file for so many bytes: of the pool, or used once if there is none, or it may not keep one more.

    Args:
        pool: files whose pages are there already.
        size: bytes, at most.
        sealed: one that is used once cannot be changed after its end. Not where others have ``reader`` by then.
        room: returns how many bytes one that is used once may have. None for any number: the system does not
            refuse them, but ends a process later.

    Raises:
        OSError: the system gives no file, or there is no room for it.
    """
    writing = None if pool is None else pool.begin(size)
    if pool is not None and writing is not None:
        return _OfPool(pool, writing)
    if room is not None and size > room():
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    return _UsedOnce(size, sealed)


class _OfPool:
    def __init__(self, pool: TimedPool, writing: Writing) -> None:
        self._pool = pool
        self._writing = writing
        self.reader = writing.reader

    def write(self, at: int, data: Buffer) -> None:
        write_all(self._writing.descriptor, [data], at)

    def finish(self, size: int) -> MemoryFile:
        return self._pool.finish(self._writing, size)

    def give_up(self) -> None:
        self._writing.give_up()


class _UsedOnce:
    def __init__(self, size: int, sealed: bool) -> None:
        self._sealed = sealed
        self._file: MemoryFile | None = MemoryFile(new_file(sealed=sealed))
        """It closes itself when it is handed out, and not needed any more."""
        self.reader = self._file.descriptor
        os.ftruncate(self.reader, size)

    def write(self, at: int, data: Buffer) -> None:
        write_all(self.reader, [data], at)

    def finish(self, size: int) -> MemoryFile:
        file, self._file = self._file, None
        assert file is not None
        if self._sealed:
            seal(self.reader, size)
        file.size = size
        return file

    def give_up(self) -> None:
        self._file = None
