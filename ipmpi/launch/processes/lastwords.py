"""What is written when a rank ends: by MPI launchers, by MPI libraries, and by Python itself (no I/O).

The launcher is the parent of the ranks, so nobody else knows how one has ended, and it tells that in words only.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Final, NamedTuple

from ipmpi.exits import signal_name

_CLEANING_UP: Final = (signal.SIGKILL, signal.SIGTERM)
"""Launchers end the other ranks by these."""


class Fault(NamedTuple):
    """A rank that has ended, so that others were ended too.

    Attributes:
        how: as in "rank 2 was killed by SIGSEGV".
        rank: in its set, if that is told.
        pid: its process, if that is told.
        host: its machine, if that is told.
        is_sure: it may not be a rank that the launcher itself has ended because of another one.
    """

    how: str
    rank: int | None = None
    pid: int | None = None
    host: str = ""
    is_sure: bool = True

    def __str__(self) -> str:
        where = f" on {self.host}" if self.host else ""
        process = f"process {self.pid}" if self.pid else "a process"
        if self.rank is None:
            return f"{process}{where} {self.how}"
        inside = f" (pid {self.pid}{where})" if self.pid else (f" ({where.strip()})" if where else "")
        return f"rank {self.rank}{inside} {self.how}"


_PATTERNS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        # Open MPI 5 names the process; 4 has the rank in a communicator, which is only sometimes that in the set.
        r"MPI_ABORT was invoked on rank \d+ in communicator .{1,200}? Proc: \[\[\d+,\d+\],(?P<rank>\d+)\] "
        r"Errorcode: (?P<abort>-?\d+)",
        r"MPI_ABORT was invoked on rank (?P<rank>\d+) in communicator MPI_COMM_WORLD "
        r"with errorcode (?P<abort>-?\d+)",
        # The MPICH family
        r"Abort\((?P<abort>-?\d+)\) on node (?P<rank>\d+) \(rank \d+ in comm \w+\): application called MPI_Abort",
        r"Abort\((?P<fatal>-?\d+)\) on node (?P<rank>\d+) \(rank \d+ in comm \w+\): Fatal error",
        # Open MPI's launchers
        r"noticed that process rank (?P<rank>\d+) with PID (?P<pid>\d+) on node (?P<host>\S+) exited on signal "
        r"(?P<signal>\d+)",
        r"The first process to do so was: Process name: \[\S*,(?P<rank>\d+)\] Exit code: (?P<code>\d+)",
        # Hydra
        r"= RANK (?P<rank>\d+) PID (?P<pid>\d+) RUNNING AT (?P<host>\S+) = KILLED BY SIGNAL: (?P<signal>\d+)",
        r"= (?:RANK (?P<rank>\d+) )?PID (?P<pid>\d+) RUNNING AT (?P<host>\S+) = EXIT CODE: (?P<status>\d+)"
        r"(?: = [A-Z]+(?: [A-Z]+)*)*(?: =+ YOUR APPLICATION TERMINATED WITH THE EXIT STRING: [\w -]+ "
        r"\(signal (?P<signal>\d+)\))?",
        # srun
        r"srun: error: (?P<host>[\w.-]+): task (?P<rank>\d+): Exited with exit code (?P<code>\d+)",
        r"srun: error: (?P<host>[\w.-]+): task (?P<rank>\d+): (?P<words>[A-Z][a-z]+(?: [a-z]+)*)",
        # PALS
        r"(?P<host>[\w.-]+): rank (?P<rank>\d+) died from signal (?P<signal>\d+)",
        r"(?P<host>[\w.-]+): rank (?P<rank>\d+) exited with code (?P<code>\d+)",
    )
)
_WORDS: Final = {str(signal.strsignal(number)).lower(): number for number in signal.valid_signals()}
_CRASH: Final = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
_ABORT: Final = re.compile(r" MPI_Abort was called on this rank, with code (-?\d+)$", re.MULTILINE)
"""What :mod:`ipmpi.engine.mpi.abort` logs."""
_NAMES: Final = {
    "Segmentation fault": "SIGSEGV",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",
    "Aborted": "SIGABRT",
}


def told_by_launcher(output: str) -> Fault | None:
    """The rank that ended first, by what a launcher and its ranks have printed; None if nobody says so."""
    plain = " ".join(re.sub(r"[=-]{20,}", lambda rule: rule.group()[0] * 4, output).split())
    found = sorted(_all_told(plain), key=lambda each: each[0])
    return next(iter([fault for _, fault in found if fault.is_sure] or [fault for _, fault in found]), None)


def _all_told(text: str) -> Iterator[tuple[tuple[int, int], Fault]]:
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            told = match.groupdict()
            known = _how(told)
            if known is not None:
                how, killed = known
                rank, pid = (int(told[name]) if told.get(name) else None for name in ("rank", "pid"))
                # Whoever aborts says so before its launcher tells of all who ended by that.
                order = (0 if told.get("abort") or told.get("fatal") else 1, match.start())
                yield order, Fault(how, rank, pid, told.get("host") or "", killed not in _CLEANING_UP)


def _how(told: dict[str, str | None]) -> tuple[str, int | None] | None:
    """Words for it, and the signal, or what may be one."""
    if told.get("abort"):
        return f"called MPI_Abort with code {told['abort']}", None
    if told.get("fatal"):
        return f"was ended by MPI, after a fatal error ({told['fatal']})", None
    killed = int(told["signal"] or 0) if told.get("signal") else _WORDS.get((told.get("words") or "").lower())
    if killed:
        return f"was killed by {signal_name(killed)}", killed
    if told.get("status"):  # hydra's, of a signal or an exit; it says which of the two a moment later
        return f"ended with exit code {told['status']}", int(told["status"] or 0)
    return (f"ended with exit code {told['code']}", None) if told.get("code") else None


def told_by_itself(log: str) -> str:
    """How the process of a rank ended, by the end of its own log; "" if it has not ended, or could not say so."""
    if abort := _ABORT.search(log):
        return f"called MPI_Abort with code {abort.group(1)}"
    found = _CRASH.findall(log)
    if not found:
        return ""
    return f"was killed by {_NAMES[found[-1]]}" if found[-1] in _NAMES else f"crashed ({found[-1][:200]})"
