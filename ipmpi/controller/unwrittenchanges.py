"""Changes that the journal does not have yet, in their order (no I/O)."""

from __future__ import annotations

from collections.abc import Iterable

from ..journal.rows import Change


class UnwrittenChanges:
    """Those that whatever is written next has to come after, and those that may wait for others of their kind.

    That a client has all results of a group may wait: until it is written, engine sets keep them.
    """

    def __init__(self) -> None:
        self._patient: list[Change] = []
        self._others: list[Change] = []
        """They have come after those."""

    def __bool__(self) -> bool:
        return bool(self._patient or self._others)

    @property
    def are_patient(self) -> bool:
        """Whether something else may be written before them."""
        return not self._others

    def append(self, change: Change) -> None:
        """Write it with the next commit."""
        self._others.append(change)

    def extend(self, changes: Iterable[Change]) -> None:
        """Write these with the next commit."""
        self._others += changes

    def may_wait(self, changes: Iterable[Change]) -> None:
        """Write these at some time."""
        if self._others:
            self._others += changes
        else:
            self._patient += changes

    def all(self) -> list[Change]:
        """Return all, in their order."""
        return self._patient + self._others

    def are_written(self) -> None:
        """All are in the journal."""
        self._patient.clear()
        self._others.clear()
