"""What the system tells of a process without asking it."""

from __future__ import annotations

import contextlib
import os
import signal as signals
import threading
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_EXIT_STATUS: Final = 49
"""Index of the field, after the name, in /proc/PID/stat; of a stopped process it is the signal."""
_RAN: Final = "se.exec_start"
_STOPS: Final = frozenset({signals.SIGSTOP, signals.SIGTSTP, signals.SIGTTIN, signals.SIGTTOU})


class ProcessState(NamedTuple):
    """The state of a process.

    Attributes:
        letter: as ``ps`` shows it: R, S, D, T, Z; "" if there is no such process.
        signal: the signal that has stopped it; 0 if it is not stopped, or that is not known.
        rested: seconds since its main thread ran last; -1 if that is not known.
    """

    letter: str
    signal: int = 0
    rested: float = -1.0

    @property
    def is_stopped(self) -> bool:
        """Whether a signal or a debugger has stopped it."""
        return self.letter in ("T", "t")

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self.letter in ("", "Z", "X")


def process_state(pid: int, proc: Path = _PROC) -> ProcessState:
    """Return the state of a process of our user."""
    try:
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        letter = fields[0]
    except (OSError, IndexError):
        return ProcessState("")
    number = 0
    if letter in ("T", "t"):
        with contextlib.suppress(IndexError, ValueError):
            number = int(fields[_EXIT_STATUS])
    return ProcessState(letter, number if number in _STOPS else 0, _rested(pid, proc))


def _rested(pid: int, proc: Path) -> float:
    """Seconds since the main thread of a process ran last: both times are of the scheduler's clock."""
    ours = proc / str(os.getpid()) / "task" / str(threading.get_native_id())
    ran, now = _ran(proc / str(pid) / "sched"), _ran(ours / "sched")
    # 0 means nothing: the kernel has just moved the process to another processor.
    return max(0.0, (now - ran) / 1000.0) if ran and now else -1.0


def _ran(path: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith(_RAN):
                return float(line.rpartition(":")[2])
    return None
