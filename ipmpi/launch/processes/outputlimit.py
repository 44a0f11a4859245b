"""Bounds a file that other programs write to, as launchers do with what ranks print.

They have opened it to append, so it may be cut while they write. Rotating would not help: they would go on writing
to the old file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ... import limits

KEPT: Final = 1 * limits.MIB
"""Bytes of the beginning and of the end that are left when a file is cut."""

IDLE: Final = 2.0
"""Seconds between looks at a file that hardly grows. One that begins to grow may do so by 400 MB/s (measured)."""

BUSY: Final = 0.25
"""And at one that does."""


class OutputLimit:
    """Cuts a file that has got too long: its middle becomes one line that says so.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        self.due = 0.0
        """When to look next, of the clock that :meth:`look` is given."""

    def look(self, now: float) -> None:
        """Cut it, if it is time to look and it is too long. What is written in this moment may be lost."""
        if now < self.due:
            return
        try:
            size = self._path.stat().st_size
            if size > limits.LOG_BYTES:
                size = self._cut(size)
        except OSError:
            size = self._size  # it is not there, or the disk is full: the next look may do better
        self.due = now + (BUSY if abs(size - self._size) > limits.LOG_BYTES // 64 else IDLE)
        self._size = size

    def _cut(self, size: int) -> int:
        with self._path.open("r+b") as file:
            file.seek(size - KEPT)
            end = file.read(KEPT)
            file.truncate(KEPT)
        cut = size - 2 * KEPT
        note = f"\n... [ipcluster: {cut:,} bytes of output were cut here, as the file had {size:,}] ...\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        with os.fdopen(descriptor, "ab") as appended:
            appended.write(note.encode() + end)
        return self._path.stat().st_size
