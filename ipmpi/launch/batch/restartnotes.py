"""Notes of job scripts about restarts of engines, and their reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

NOTES: Final = "-restarts.txt"
"""Suffix of these files."""

EXPECTED: Final = 180.0
"""Seconds after the end of an engine for which to expect a note: network file systems are slow."""

EVERY: Final = 1.0
"""Seconds between checks meanwhile."""

ASKED_FOR: Final = "asked for"
"""What a note has in place of a number, if a client has asked for the restart."""

_LINE: Final = re.compile(rf"^ipmpi: .*\((?P<number>\d+ of \d+|{ASKED_FOR})\)$")


class Restart(NamedTuple):
    """A set was started again.

    Attributes:
        number: the number of the restart, as in "1 of 3", or :data:`ASKED_FOR`.
        written: the modification time of the file.
    """

    number: str
    written: float


class RestartNotes:
    """Reads the notes of a job, for some time after an engine has ended.

    Args:
        files: returns the existing files.
    """

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._files = files
        self._read: dict[Path, int] = {}
        self._until = 0.0
        self.due: float | None = None
        """When to call :meth:`look`; None means never."""

    def expect(self, now: float) -> None:
        """An engine has ended."""
        self._until = now + EXPECTED
        self.due = now + EVERY

    def look(self, now: float) -> list[Restart]:
        """Return the new notes."""
        if self.due is None or now < self.due:
            return []
        self.due = now + EVERY if now < self._until else None
        return [restart for path in sorted(self._files()) for restart in self._new_of(path)]

    def _new_of(self, path: Path) -> Iterable[Restart]:
        try:
            written, lines = path.stat().st_mtime, path.read_text("utf-8", "replace").splitlines(keepends=True)
        except OSError:
            return
        whole = [line.rstrip("\n") for line in lines if line.endswith("\n")]
        before, self._read[path] = self._read.get(path, 0), len(whole)
        for line in whole[before:]:
            if found := _LINE.match(line):
                yield Restart(found["number"], written)
