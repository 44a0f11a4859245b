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
"""Logs that are looked at: those of more ranks take too long to read, on a file system that others use."""

_OUTPUT: Final = 256 * 1024
"""Bytes at the end of what launcher and ranks have printed."""

_CRASH_LINES: Final = 400
"""At the end of a log; Python lists what each thread was doing."""

_NAME: Final = re.compile(r"-(?P<rank>\d+)-(?P<pid>\d+)(\.\d+)?\.log$")


class Faults:
    """Looks at what was written since the launch began.

    Args:
        outputs: gives the files with what launcher and ranks print.
        logs: gives the ranks' own logs, called ``...-HOST-RANK-PID.log``.
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
        """Ranks are started, perhaps once more: what was written before is no matter of theirs.

        Args:
            when: the file system's time of that; None means now.
        """
        self._begin = {path: _size(path) for path in self._outputs()}
        self._old = {path for path in self._logs() if when is None or written_at(path) <= when}
        self._first = self._fault = None

    def lost(self, rank: int, pid: int, host: str) -> None:
        """The controller says that it has lost the process of this rank; the first one counts."""
        self._first = self._first or (rank, pid, host)

    def look(self) -> list[str]:
        """What was not known before, in words."""
        self._fault = self._placed(self._found())
        if self._fault is None or (self._fault.rank, self._fault.pid) in self._told:
            return []
        self._told.add((self._fault.rank, self._fault.pid))
        return [str(self._fault)]

    def first(self) -> list[str]:
        """The rank that the controller has lost first, in words, where nobody says how it has ended."""
        return [] if self._first is None else [str(Fault("ended first", *self._first))]

    def log(self) -> Path | None:
        """The log of the rank that has ended first; None if it is not known."""
        fault = self._found() or self._fault
        if fault is None and self._first is not None:
            fault = Fault("", *self._first)
        return None if fault is None else _log_of(fault, self._recent())

    def _placed(self, fault: Fault | None) -> Fault | None:
        """With the machine, if the controller has named it."""
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
            # A launcher may name one that it has ended itself; that the first one ended is known without it.
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
                stream.seek(max(begin if begin <= size else 0, size - _OUTPUT, 0))  # it may have been cut
                return stream.read(_OUTPUT).decode(errors="replace")
        except OSError:
            return ""


def _named(fault: Fault, path: Path) -> Fault:
    """The same, with the rank and the process that wrote this log."""
    name = _NAME.search(path.name)
    if name is None:
        return fault
    return fault._replace(rank=int(name["rank"]), pid=fault.pid or int(name["pid"]))


def _log_of(fault: Fault, logs: Iterable[Path]) -> Path | None:
    """The newest log of that process, or of that rank."""
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
