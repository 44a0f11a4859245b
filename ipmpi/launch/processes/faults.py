"""Finds out which rank of a launch has ended first, and which log is that rank's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ipmpi.launch.processes.lastwords import Fault, told_by_itself, told_by_launcher
from ipmpi.launch.processes.process import tail, written_at

MOST: Final = 2000
"""Most logs to read: more would take too long on a shared file system."""

_OUTPUT: Final = 256 * 1024
"""Bytes to read at the end of the output of launcher and ranks."""

_CRASH_LINES: Final = 400
"""Lines to read at the end of a log, which has the stacks of all threads after a crash."""

_NAME: Final = re.compile(r"-(?P<rank>\d+)-(?P<pid>\d+)(\.\d+)?\.log$")


class Faults:
    """Evaluates output and logs since the launch began.

    Args:
        outputs: returns the files with the output of launcher and ranks.
        logs: returns the ranks' logs, called ``...-HOST-RANK-PID.log``.
    """

    def __init__(self, outputs: Callable[[], Iterable[Path]], logs: Callable[[], Iterable[Path]]) -> None:
        self._outputs = outputs
        self._logs = logs
        self._begin: dict[Path, int] = {}
        self._old: set[Path] = set()
        self._first: tuple[int, int, str] | None = None
        self._told: set[tuple[int | None, int | None]] = set()
        self._fault: Fault | None = None

    def begin(self, when: float | None = None) -> None:
        """Ranks are started (again): ignore what was written before.

        Args:
            when: the file system's time of the start; None means now.
        """
        self._begin = {path: _size(path) for path in self._outputs()}
        self._old = {path for path in self._logs() if when is None or written_at(path) <= when}
        self._first = self._fault = None

    def lost(self, rank: int, pid: int, host: str) -> None:
        """The controller has lost this rank; the first one counts."""
        self._first = self._first or (rank, pid, host)

    def look(self) -> list[str]:
        """Return texts about faults that were not returned before."""
        self._fault = self._placed(self._found())
        if self._fault is None or (self._fault.rank, self._fault.pid) in self._told:
            return []
        self._told.add((self._fault.rank, self._fault.pid))
        return [str(self._fault)]

    def first(self) -> list[str]:
        """Return a text about the rank that the controller lost first, if its end is unexplained."""
        return [] if self._first is None else [str(Fault("ended first", *self._first))]

    def log(self) -> Path | None:
        """Return the log of the rank that ended first; None if unknown."""
        fault = self._found() or self._fault
        if fault is None and self._first is not None:
            fault = Fault("", *self._first)
        return None if fault is None else _log_of(fault, self._recent())

    def _placed(self, fault: Fault | None) -> Fault | None:
        """Add the host, if the controller has reported it."""
        if fault is None or fault.host or self._first is None or fault.pid != self._first[1]:
            return fault
        return fault._replace(host=self._first[2])

    def _found(self) -> Fault | None:
        recent = self._recent()
        crashed = [(written_at(path), path, how) for path in recent if (how := told_by_itself(_end(path)))]
        told = told_by_launcher("\n".join(self._new_of(path) for path in self._outputs()))
        if crashed and not (told is not None and told.is_sure and told.rank is not None):
            _, path, how = min(crashed)
            return _named(Fault(how), path)
        if told is None or (not told.is_sure and self._first is not None and self._first[1] != told.pid):
            # A launcher may name a rank that it has ended itself.
            return None if told is None or self._first is None else Fault("ended first", *self._first)
        path_of_it = _log_of(told, recent)
        return told if path_of_it is None else _named(told, path_of_it)

    def _recent(self) -> list[Path]:
        return [path for path in self._logs() if path not in self._old][:MOST]

    def _new_of(self, path: Path) -> str:
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                begin = self._begin.get(path, 0)
                stream.seek(max(begin if begin <= size else 0, size - _OUTPUT, 0))  # it may have been truncated
                return stream.read(_OUTPUT).decode(errors="replace")
        except OSError:
            return ""


def _named(fault: Fault, path: Path) -> Fault:
    """Add rank and process id of the writer of this log."""
    name = _NAME.search(path.name)
    if name is None:
        return fault
    return fault._replace(rank=int(name["rank"]), pid=fault.pid or int(name["pid"]))


def _log_of(fault: Fault, logs: Iterable[Path]) -> Path | None:
    """Return the newest log of that process, or of that rank."""
    named = [(path, name) for path in logs if (name := _NAME.search(path.name))]
    by_pid = [path for path, name in named if fault.pid and int(name["pid"]) == fault.pid]
    by_rank = [path for path, name in named if fault.rank is not None and int(name["rank"]) == fault.rank]
    return max(by_pid or by_rank, key=written_at, default=None)


def _end(path: Path) -> str:
    return "\n".join(tail(path, _CRASH_LINES))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
