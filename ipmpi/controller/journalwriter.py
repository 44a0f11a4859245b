"""Writes to the journal, and knows whether that is possible (no I/O but the store's)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import JournalDamaged, JournalFull
from ..journal.rows import Change
from .journalstore import Store


class JournalWriter:
    """Commits changes.

    Args:
        store: the journal.
        announce: called with what all clients are told when writing begins to fail, or is possible again.

    Attributes:
        is_failing: whether the last attempt has failed.
        error: why.
    """

    def __init__(self, store: Store, announce: Callable[[str], object]) -> None:
        self._store = store
        self._announce = announce
        self.is_failing = False
        self.error: JournalFull | JournalDamaged = JournalFull("")

    def write(self, changes: Sequence[Change]) -> bool:
        """Make all changes or none; return False if that is impossible now."""
        if not changes:
            return True
        try:
            self._store.commit(changes)
        except (JournalFull, JournalDamaged) as error:
            if not self.is_failing:
                text = "new tasks are refused, and failures told later: the journal cannot be written"
                self._announce(f"{text}. {error}")
            self.error, self.is_failing = error, True
            return False
        if self.is_failing:
            self._announce("tasks are accepted again: the journal can be written")
            self.is_failing = False
        return True
