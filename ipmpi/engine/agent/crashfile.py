"""The file into which Python's faulthandler of a rank writes about a crash, at its agent."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from ... import limits

_END: Final = 256 * limits.KIB
"""Bytes at the end in which a crash is looked for: it has the stacks of all threads, and the file is a log."""


class CrashFile:
    """The end of the file.

    Args:
        descriptor: of the file, which is closed by :meth:`close`; -1 if there is none.
    """

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor

    def read(self) -> str:
        """Return what was written last; "" if it cannot be read."""
        with contextlib.suppress(OSError):
            size = os.fstat(self._descriptor).st_size
            return os.pread(self._descriptor, _END, max(0, size - _END)).decode(errors="replace")
        return ""

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
