"""Log files that do not fill a disk.

When a file has :data:`limits.LOG_BYTES`, it is renamed to ``FILE.1``, in place of the one before, and a new one
begins.
(The module ``logging.handlers`` does the same, and loads pickle, which a controller must not.)
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TextIO

from .. import limits


class BoundedFile:
    """What a log handler writes to: a file that was opened for writing, and its successors."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.name = file.name
        self._left = limits.LOG_BYTES

    def write(self, text: str) -> None:
        """Add a text. If no new file can be begun, the old one grows."""
        self._file.write(text)
        self._left -= len(text)
        if self._left <= 0:
            self._left = limits.LOG_BYTES
            with contextlib.suppress(OSError):
                self._begin_anew()

    def flush(self) -> None:
        """Give the system what was written."""
        self._file.flush()

    def fileno(self) -> int:
        """The descriptor, which stays the same: stacks of processes that crash are written to it."""
        return self._file.fileno()

    def _begin_anew(self) -> None:
        self._file.flush()
        os.replace(self.name, f"{self.name}.1")
        with open(self.name, "ab") as successor:
            os.dup2(successor.fileno(), self._file.fileno(), inheritable=False)


def bound_log_files() -> None:
    """Bound the files to which this process logs; what is printed is left alone."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and os.path.isfile(str(getattr(handler.stream, "name", ""))):
            handler.setStream(BoundedFile(handler.stream))
