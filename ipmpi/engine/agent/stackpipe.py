"""The agent's end of the pipe into which a rank writes its stack on a signal."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from .watch import open_pidfd, send_signal

_ANSWERS_WITHIN: Final = 0.5
_ENDS_AFTER: Final = 0.02
"""Seconds after the last bytes of a stack: how many there are, nobody says."""
_LOOK: Final = 0.002
_PROC: Final = Path("/proc")


class StackPipeEnd:
    """Asks a rank for its stack.

    Args:
        descriptor: the read end; owned by this object.
        signal: the signal that asks; 0 if the rank has no handler for it.
    """

    def __init__(self, descriptor: int, signal: int) -> None:
        self._descriptor = descriptor
        self.signal = signal
        os.set_blocking(descriptor, False)

    def copy(self) -> StackPipeEnd:
        """Another object for another thread, to be closed there."""
        return StackPipeEnd(os.dup(self._descriptor), self.signal)

    def close(self) -> None:
        """Close the pipe."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def ask(self, pid: int) -> bytes:
        """Send the signal and return what the rank writes; empty if it writes nothing. Waits for half a second.

        Nothing is sent unless the process has a handler for the signal: without one, it would end.
        """
        if not self.signal or not catches(pid, self.signal):
            return b""
        with contextlib.suppress(OSError):
            self._read()  # what came too late for an earlier question
            pidfd = open_pidfd(pid)
            try:
                if not send_signal(pidfd, pid, self.signal):
                    return b""
            finally:
                if pidfd is not None:
                    os.close(pidfd)
            return self._answer()
        return b""

    def _answer(self) -> bytes:
        found, until = b"", time.monotonic() + _ANSWERS_WITHIN
        while time.monotonic() < until:
            more = self._read()
            if more:
                found += more
                until = min(until, time.monotonic() + _ENDS_AFTER)
            time.sleep(_LOOK)
        return found

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, 65536)
        except BlockingIOError:
            return b""


def catches(pid: int, signal: int, proc: Path = _PROC) -> bool:
    """Return whether a process has a handler for a signal and does not block it, as far as the system shows."""
    masks = {}
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / str(pid) / "status").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in ("SigBlk", "SigCgt"):
                masks[name] = int(value, 16)
    bit = 1 << (signal - 1)
    return bool(masks.get("SigCgt", 0) & bit) and not masks.get("SigBlk", 0) & bit
