"""What the system tells of a process without asking it."""

from __future__ import annotations

import contextlib
import signal as signals
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


def process_state(pid: int, proc: Path = _PROC, *, with_rest: bool = True) -> ProcessState:
    """Return the state of a process of our user; ``rested``, which takes most of the time, only ``with_rest``."""
    try:
        fields = _read(f"{proc}/{pid}/stat").rpartition(")")[2].split()
        letter = fields[0]
    except (OSError, IndexError):
        return ProcessState("")
    number = 0
    if letter in ("T", "t"):
        with contextlib.suppress(IndexError, ValueError):
            number = int(fields[_EXIT_STATUS])
    return ProcessState(letter, number if number in _STOPS else 0, _rested(pid, proc) if with_rest else -1.0)


def _rested(pid: int, proc: Path) -> float:
    """Seconds since the main thread of a process ran last: both times are of the scheduler's clock."""
    ran, now = _ran(f"{proc}/{pid}/sched"), _ran(f"{proc}/thread-self/sched")
    # 0 means nothing: the kernel has just moved the process to another processor.
    return max(0.0, (now - ran) / 1000.0) if ran and now else -1.0


def _ran(path: str) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        for line in _read(path).splitlines():
            if line.startswith(_RAN):
                return float(line.rpartition(":")[2])
    return None


def _read(path: str) -> str:
    """Return a file. A Path would keep each of its parts for ever, and there are always new numbers."""
    with open(path, errors="replace") as file:
        return file.read()
