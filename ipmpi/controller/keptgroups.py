"""What a journal has of clients: groups of tasks, and what clients say when they come back (no I/O)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..journal.rows import DropFunction, FunctionRow, GroupRow
from ..protocol import messages as m
from .farm.arguments import Arguments


class Kept(NamedTuple):
    """A group that is in the journal."""

    serial: int
    client: int
    number: int
    functions: Sequence[bytes]


def arguments(row: GroupRow) -> Arguments:
    """Return the arguments of a group that was read from the journal."""
    message = m.decode(row.message)
    assert isinstance(message, m.SubmitTasks)
    return Arguments(message.lengths, row.body or b"")


@dataclass
class KeptClient:
    """The groups of one client that are in the journal."""

    groups: dict[int, Kept] = field(default_factory=dict)
    """By the client's number."""
    records: deque[int] = field(default_factory=deque)
    """Serials of groups whose results it has."""


class KeptFunctions:
    """The functions of groups that are in the journal, or will be."""

    def __init__(self) -> None:
        self._groups: dict[bytes, int] = {}
        """How many groups use each."""
        self._unwritten: dict[bytes, bytes] = {}
        self._unused: dict[bytes, None] = {}
        """Those in the journal that no group uses; the next one often does."""

    @property
    def has_unused(self) -> bool:
        """Whether some are in the journal that no group uses."""
        return bool(self._unused)

    def restored(self, keys: Iterable[bytes]) -> None:
        """A group that uses these is in the journal."""
        for key in keys:
            self._groups[key] = self._groups.get(key, 0) + 1

    def use(self, keys: Sequence[bytes], data: Callable[[bytes], bytes]) -> None:
        """A group that uses these will be; ``data`` gives their pickles."""
        for key in keys:
            if key in self._unused:
                del self._unused[key]
            elif key not in self._groups:
                self._unwritten[key] = data(key)
        self.restored(keys)

    def unuse(self, keys: Iterable[bytes]) -> None:
        """A group that used these is dropped."""
        for key in keys:
            self._groups[key] -= 1
            if not self._groups[key]:
                del self._groups[key]
                if self._unwritten.pop(key, None) is None:
                    self._unused[key] = None

    def unwritten(self) -> list[FunctionRow]:
        """Return those that are not in the journal yet."""
        return [FunctionRow(*item) for item in self._unwritten.items()]

    def are_written(self) -> None:
        """All are in the journal."""
        self._unwritten.clear()

    def unused(self) -> list[DropFunction]:
        """Return what takes out those that no group uses; to be written behind what takes out their groups."""
        return [DropFunction(key) for key in self._unused]

    def are_dropped(self) -> None:
        """Those that no group uses are in the journal no more."""
        self._unused.clear()
