"""Ends of tasks that the journal does not have yet (no I/O).

Most of them are never written, since their clients fetch them before. So they are encoded when they are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..journal.rows import EndRow
from ..protocol import messages as m
from .farm.recovery import Ends


class UnwrittenEnd(NamedTuple):
    """Ends of tasks of one group: the message that tells its client, and the results."""

    message: Ends
    body: bytes

    def row(self, serial: int) -> EndRow:
        """Return what is written of it."""
        return EndRow(serial, m.encode(self.message), self.body)


class UnwrittenEnds:
    """Those of all groups, by serial."""

    def __init__(self) -> None:
        self._by_serial: dict[int, list[UnwrittenEnd]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_serial)

    def add(self, serial: int, message: Ends, body: bytes) -> None:
        """Tasks of a group have ended."""
        self._by_serial.setdefault(serial, []).append(UnwrittenEnd(message, body))

    def of(self, serial: int) -> Sequence[UnwrittenEnd]:
        """Return those of one group."""
        return self._by_serial.get(serial, ())

    def drop(self, serial: int) -> None:
        """Those of a group need not be written."""
        self._by_serial.pop(serial, None)

    def rows(self) -> Iterator[EndRow]:
        """Yield what is to be written."""
        for serial, ends in self._by_serial.items():
            for end in ends:
                yield end.row(serial)

    def are_written(self) -> None:
        """All are in the journal."""
        self._by_serial.clear()
