"""What keeps the results of tasks that outlive their client."""

from __future__ import annotations

from typing import Protocol

from ..journal.rows import Change, EndRow
from .bundle import BundleGroup


class Record(Protocol):
    """What keeps the results: see :mod:`ipmpi.controller.taskjournal` and :mod:`ipmpi.controller.nojournal`.

    Attributes:
        is_on: whether it keeps them until their client has them, and is told so.
    """

    is_on: bool

    def ends(self, group: BundleGroup) -> list[tuple[EndRow, bool]]:
        """Return the ends of a group's tasks that are kept, and whether each was told; JournalDamaged."""

    def awaits(self, group: BundleGroup) -> bool:
        """Return whether engine sets that come back may tell results of a group that is not open, or was told."""

    def keep(self, group: BundleGroup, row: EndRow) -> None:
        """Keep ends of tasks that nobody else will note."""

    def write(self, change: Change) -> None:
        """Write it into the journal, if there is one."""

    def forget(self, group: BundleGroup) -> None:
        """Keep nothing of a group."""

    def shed(self, group: BundleGroup) -> bool:
        """Keep no results of a group whose client is there; return False if that client may still need them."""

    def forget_client(self, client: int) -> None:
        """Keep nothing of a client that is gone and has no tasks any more."""
