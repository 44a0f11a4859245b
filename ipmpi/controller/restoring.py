"""Restores what a journal holds, in a controller that begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ..errors import JournalDamaged
from ..journal.rows import Contents, EndRow
from ..protocol import messages as m
from .bundle import UNKNOWN, Origin
from .farm.recovery import Ends
from .keptgroups import Kept
from .service import ControllerService
from .taskjournal import RECOVERY, TaskJournal

_DROPPED: Final = 1 << 32
"""More groups than a controller gives numbers to. The last ones may have been dropped, and engine sets that have
not heard of that tell what they have of them: no other group may have such a number."""


def restore(contents: Contents, service: ControllerService, now: float, log: Callable[[str], None]) -> None:
    """Restore sessions and tasks; call it before any peer may connect, and after the history of commands is there.

    Raises:
        JournalDamaged: the rows do not fit together.
    """
    sessions, journal = service.sessions, service.journal
    assert isinstance(journal, TaskJournal)
    gone = {row.client for row in contents.gone}
    roles = {row.key: row.role for row in contents.sessions if sessions.knows(row.role)}
    clients = set(roles) - gone
    origins = {row.client: Origin(row.host, row.user, bool(row.detach)) for row in contents.origins}
    only = {row.client: row.only for row in contents.origins}
    for client, engines in only.items():
        journal.farm.limit_to(client, engines)
    holders = roles | {row.client: row.holder for row in contents.origins if row.client in roles}
    for row in contents.sessions:
        if row.key in clients:
            sessions.restore(*row)
            journal.named.began(row.key, holders[row.key], origins.get(row.key, UNKNOWN), only.get(row.key))
            service.history.may_come(row.key, holders[row.key])
    sessions.sets = frozenset(row.token for row in contents.sets)
    for bundle in contents.bundles:
        if bundle.client in roles:
            journal.named.restore_bundle(bundle, bundle.client in gone)
    numbers = [*(row.key for row in contents.sessions), *(row.key for row in contents.sets)]
    for number in (*numbers, *service.history.clients):
        sessions.continue_after(number)
    recovery = journal.farm.recovery
    serials = [*(row.serial for row in contents.groups), *(row.serial for row in contents.records)]
    serials += [row.number for row in contents.bundles]
    if serials:
        recovery.continue_after(max(serials) + _DROPPED)
    records = [row for row in contents.records if row.client in roles]
    for record in records:
        recovery.restore_record(record.client, record.number, record.label, record.states)
    kept, tasks = _restore_groups(contents, holders, journal)
    there = [(row.client, row.serial) for row in records]
    journal.restored(clients, contents.sets, kept, there, now, gone & set(roles))
    journal.memory.restore(clients, contents.reserved, contents.used)
    service.comeback.expect(clients, {row.token for row in contents.sets}, now + RECOVERY)
    if roles or contents.sets:
        log(
            f"restored from the journal: {len(clients)} clients, {tasks} tasks in {len(kept)} groups; "
            f"{len(contents.sets)} engine sets may come back"
        )


def _restore_groups(contents: Contents, holders: dict[int, str], journal: TaskJournal) -> tuple[list[Kept], int]:
    """Restore the groups of these clients; return them, and the number of their tasks that have not ended."""
    functions = {row.key: row.data for row in contents.functions}
    ends: dict[int, list[EndRow]] = {}
    for end in contents.ends:
        ends.setdefault(end.serial, []).append(end)
    kept = []
    before = journal.farm.unfinished
    for row in sorted(contents.groups):
        if row.client not in holders:
            continue
        message = _decoded(row.message)
        told = [_decoded(end.message) for end in ends.get(row.serial, ())]
        if not isinstance(message, m.SubmitTasks) or not all(isinstance(end, Ends) for end in told):
            raise JournalDamaged("the journal has another message where a group of tasks or its ends must be")
        try:
            body = None if row.body is None else [row.body]
            journal.farm.recovery.restore(row.serial, row.client, message, body, told, functions)  # type: ignore[arg-type]
        except KeyError:
            raise JournalDamaged("the journal does not have the function of a task: remove it") from None
        size = sum(len(end.body) for end in ends.get(row.serial, ()))
        journal.had.restored(row.serial, told)  # type: ignore[arg-type]
        journal.named.restore_group(row.client, holders[row.client], row.serial, message, size)
        kept.append(Kept(row.serial, row.client, row.number, message.options.functions))
    return kept, journal.farm.unfinished - before


def _decoded(data: bytes) -> m.AnyMessage:
    try:
        return m.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JournalDamaged(
            f"the journal has a message that this release does not understand ({error}): start the release that "
            "wrote it, or remove the journal"
        ) from error
