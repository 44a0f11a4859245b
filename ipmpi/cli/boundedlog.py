"""Log files of limited size.

A file of :data:`limits.LOG_BYTES` is renamed to ``FILE.1``, which replaces the previous one, and a new one is
begun. (The module ``logging.handlers`` does the same, but imports pickle, which a controller must not.)
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TextIO

from .. import limits


class BoundedFile:
    """The stream of a log handler: a file, and its successors."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.name = file.name
        self._left = limits.LOG_BYTES

    def write(self, text: str) -> None:
        """Append text. If no new file can be created, the old one grows."""
        self._file.write(text)
        self._left -= len(text)
        if self._left <= 0:
            self._left = limits.LOG_BYTES
            with contextlib.suppress(OSError):
                self._begin_anew()

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()

    def fileno(self) -> int:
        """Return the descriptor, which stays the same: stacks of crashes are written to it."""
        return self._file.fileno()

    def _begin_anew(self) -> None:
        self._file.flush()
        os.replace(self.name, f"{self.name}.1")
        with open(self.name, "ab") as successor:
            os.dup2(successor.fileno(), self._file.fileno(), inheritable=False)


def bound_log_files() -> None:
    """Limit the log files of this process."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and os.path.isfile(str(getattr(handler.stream, "name", ""))):
            handler.setStream(BoundedFile(handler.stream))
