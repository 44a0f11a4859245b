"""What a rank leaves that cannot speak any more: its crash, and the signals that it got, at its agent."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from ... import limits

_END: Final = 256 * limits.KIB
"""Bytes at the end in which a crash is looked for: it has the stacks of all threads, and the file is a log."""


class CrashFile:
    """The end of the file into which Python's faulthandler writes, and the file of signals.

    Args:
        descriptor: of the file, which is closed by :meth:`close`; -1 if there is none.
        signals: see :func:`ipmpi.engine.rank.interrupts.record_signals`; as well.
    """

    def __init__(self, descriptor: int = -1, signals: int = -1) -> None:
        self._descriptor = descriptor
        self._signals = signals

    def read(self) -> str:
        """Return what was written last; "" if it cannot be read."""
        with contextlib.suppress(OSError):
            size = os.fstat(self._descriptor).st_size
            return os.pread(self._descriptor, _END, max(0, size - _END)).decode(errors="replace")
        return ""

    def has_signal(self, number: int) -> bool:
        """Whether the rank has got this signal, though it may not have come to handle it."""
        with contextlib.suppress(OSError):
            size = os.fstat(self._signals).st_size
            return number in os.pread(self._signals, _END, max(0, size - _END))
        return False

    def close(self) -> None:
        """Close them."""
        for descriptor in (self._descriptor, self._signals):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._signals = -1
