"""Limits the size of a file that other programs write to, such as the output of launchers.

They have opened it for appending, so it can be truncated while they write. Rotating would not help: they would
continue to write to the old file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ... import limits

KEPT: Final = 1 * limits.MIB
"""Bytes of the beginning and of the end that are kept when a file is cut."""

IDLE: Final = 2.0
"""Seconds between checks of a file that hardly grows. It may grow by up to 400 MB/s (measured)."""

BUSY: Final = 0.25
"""Seconds between checks of a file that grows."""


class OutputLimit:
    """Cuts a file that has become too long: one line replaces its middle.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        self.due = 0.0
        """When to call :meth:`look` next, on the same clock."""

    def look(self, now: float) -> None:
        """Cut the file, if a check is due and it is too long. Output at this moment may be lost."""
        if now < self.due:
            return
        try:
            size = self._path.stat().st_size
            if size > limits.LOG_BYTES:
                size = self._cut(size)
        except OSError:
            size = self._size  # it does not exist, or the disk is full: try again later
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
