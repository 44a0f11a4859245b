"""Parsing of messages about ended ranks: of MPI launchers, MPI libraries and Python (no I/O).

Only the launcher, as the parent of the ranks, knows their exit status, and it reports it as text only.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Final, NamedTuple

from ipmpi.exits import signal_name

_CLEANING_UP: Final = (signal.SIGKILL, signal.SIGTERM)
"""The signals by which launchers end the other ranks."""


class Fault(NamedTuple):
    """A rank that has ended, and caused the end of others.

    Attributes:
        how: predicate, as in "rank 2 was killed by SIGSEGV".
        rank: its rank in the set, if known.
        pid: its process id, if known.
        host: its host, if known.
        is_sure: whether it cannot be a rank that the launcher itself has ended because of another one.
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
"""The log line of :mod:`ipmpi.engine.mpi.abort`."""
_NAMES: Final = {
    "Segmentation fault": "SIGSEGV",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",
    "Aborted": "SIGABRT",
}


def told_by_launcher(output: str) -> Fault | None:
    """Return the rank that ended first, by the output of a launcher and its ranks; None if unknown."""
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
                # An abort is reported before the ranks that it ends.
                order = (0 if told.get("abort") or told.get("fatal") else 1, match.start())
                yield order, Fault(how, rank, pid, told.get("host") or "", killed not in _CLEANING_UP)


def _how(told: dict[str, str | None]) -> tuple[str, int | None] | None:
    """Return a description, and the number that is, or may be, a signal."""
    if told.get("abort"):
        return f"called MPI_Abort with code {told['abort']}", None
    if told.get("fatal"):
        return f"was ended by MPI, after a fatal error ({told['fatal']})", None
    killed = int(told["signal"] or 0) if told.get("signal") else _WORDS.get((told.get("words") or "").lower())
    if killed:
        return f"was killed by {signal_name(killed)}", killed
    if told.get("status"):  # hydra's: a signal or an exit code, as it reports later
        return f"ended with exit code {told['status']}", int(told["status"] or 0)
    return (f"ended with exit code {told['code']}", None) if told.get("code") else None


def told_by_itself(log: str) -> str:
    """Return how a rank ended, by the end of its own log; "" if the log does not tell."""
    if abort := _ABORT.search(log):
        return f"called MPI_Abort with code {abort.group(1)}"
    found = _CRASH.findall(log)
    if not found:
        return ""
    return f"was killed by {_NAMES[found[-1]]}" if found[-1] in _NAMES else f"crashed ({found[-1][:200]})"
