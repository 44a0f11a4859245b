"""What the controller needs of the file of a journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..journal.rows import Change, EndRow, GroupRow


class Store(Protocol):
    """The part of :class:`ipmpi.journal.store.Journal` that this module uses."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes or none; JournalFull, JournalDamaged."""

    def ends(self, serial: int) -> list[EndRow]:
        """Return the committed ends of a group's tasks; JournalDamaged."""

    def group(self, serial: int) -> GroupRow:
        """Return a committed group; JournalDamaged."""
