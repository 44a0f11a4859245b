"""A journal in memory, which keeps what was committed when its controller is killed."""

from __future__ import annotations

from collections.abc import Sequence

from ipmpi.errors import JournalDamaged, JournalFull
from ipmpi.journal.rows import (
    BundleRow,
    Change,
    Contents,
    DropBundle,
    DropFunction,
    DropGroup,
    DropRecord,
    DropSession,
    DropSet,
    EndRow,
    FunctionRow,
    GoneRow,
    GroupRow,
    OriginRow,
    RecordRow,
    ReservedRow,
    SessionRow,
    SetRow,
    UsedRow,
)

_LISTS = {
    SessionRow: "sessions", SetRow: "sets", FunctionRow: "functions", GroupRow: "groups", EndRow: "ends",
    RecordRow: "records", OriginRow: "origins", GoneRow: "gone", BundleRow: "bundles",
    ReservedRow: "reserved", UsedRow: "used",
}  # fmt: skip


class MemoryStore:
    def __init__(self) -> None:
        self.contents = Contents()
        self.is_full = False
        self.commits = 0

    def load(self, bodies: bool = True) -> Contents:
        found = Contents(*(list(getattr(self.contents, name)) for name in _LISTS.values()))
        found.groups = [row if bodies or not row.body else row._replace(body=None) for row in found.groups]
        return found

    def ends(self, serial: int) -> list[EndRow]:
        return [row for row in self.contents.ends if row.serial == serial]

    def group(self, serial: int) -> GroupRow:
        for row in self.contents.groups:
            if row.serial == serial:
                return row
        raise JournalDamaged(f"group {serial} of tasks is missing")

    def commit(self, changes: Sequence[Change]) -> None:
        if self.is_full:
            raise JournalFull("there is no room for the journal")
        self.commits += 1
        for change in changes:
            self._make(change)

    def _make(self, change: Change) -> None:
        there = self.contents
        if isinstance(change, DropGroup):
            there.groups = [row for row in there.groups if row.serial != change.serial]
            there.ends = [row for row in there.ends if row.serial != change.serial]
            there.used = [row for row in there.used if row.serial != change.serial]
        elif isinstance(change, DropRecord):
            there.records = [row for row in there.records if row.serial != change.serial]
        elif isinstance(change, DropFunction):
            there.functions = [row for row in there.functions if row.key != change.key]
        elif isinstance(change, DropSet):
            there.sets = [row for row in there.sets if row.key != change.key]
        elif isinstance(change, DropSession):
            there.sessions = [row for row in there.sessions if row.key != change.key]
            there.records = [row for row in there.records if row.client != change.key]
            there.origins = [row for row in there.origins if row.client != change.key]
            there.gone = [row for row in there.gone if row.client != change.key]
            there.reserved = [row for row in there.reserved if row.client != change.key]
        elif isinstance(change, DropBundle):
            there.bundles = [row for row in there.bundles if row.number != change.number]
        else:
            if any(isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 for value in change):
                raise OverflowError("Python int too large to convert to SQLite INTEGER")
            if isinstance(change, ReservedRow):
                there.reserved = [row for row in there.reserved if row.client != change.client]
            elif isinstance(change, UsedRow):
                there.used = [row for row in there.used if row.serial != change.serial]
            getattr(there, _LISTS[type(change)]).append(change)
