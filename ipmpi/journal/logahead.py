"""A write-ahead log that is longer than what is in it.

To make a file longer and have that on the disk, the file system writes its own log, too, behind what others are
writing. Where the file is there already, ``fdatasync`` writes the data only: half the processor time, and a
fraction of the wait beside others that write. SQLite takes zeros behind its last frame for the end.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

STEP: Final = 1 << 20
"""Bytes by which the log is made longer: some hundred small transactions."""
_SMALL: Final = STEP // 4
"""A transaction of more bytes does not gain from it."""


class LogAhead:
    """Keeps the file at ``path`` longer than its contents, if there is room. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._length = 0
        self._is_possible = True

    def written(self) -> None:
        """A transaction was written, by whoever has the file open: append zeros if it has made the file longer."""
        if not self._is_possible:
            return
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            length = os.fstat(self._descriptor).st_size
            before, self._length = self._length, max(length, self._length)
            if before < length <= before + _SMALL:
                self._append(length)
        except OSError:
            self._is_possible = False

    def _append(self, length: int) -> None:
        self._is_possible = False
        try:
            written = os.pwrite(self._descriptor, bytes(STEP), length)
        except OSError:
            written = 0
        if written == STEP:
            self._is_possible = True
            self._length = length + STEP
        elif written:  # others need the rest of the room more
            os.ftruncate(self._descriptor, length)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
