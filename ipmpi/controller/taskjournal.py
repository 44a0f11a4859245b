"""What the controller writes to its journal about tasks, and when it tells whom (no I/O but the store's).

* A group of tasks is given to engines, and its client told that it is accepted, only when it is in the journal. If
  it cannot be written, the group is refused.
* Results are passed on at once. An engine set keeps them until they are in the journal, or it is in the journal
  that the client has all results of the group. So they are written a little later, many at a time, or never. That
  a task has failed or was given up is written before it is told, since others may depend on it.
* What may wait for some milliseconds is not written with each group, but together: that clients have results, and
  which functions nobody uses any more. So a task that is submitted alone costs one row.
* What a client has that comes back after a restart has ended, even if it goes away next.
* A large result is not in the journal. Its task has ended when its client says so.
* After a restart, restored tasks wait until their client and all known engine sets are back, and have said what
  they have; or for :data:`RECOVERY` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from .. import limits
from ..errors import JournalDamaged
from ..ids import Ids
from ..journal.rows import (
    Change,
    DropGroup,
    DropRecord,
    DropSession,
    DropSet,
    EndRow,
    GoneRow,
    GroupRow,
    RecordRow,
    SessionRow,
    SetRow,
)
from ..protocol import messages as m, packed
from ..protocol.frames import Buffer
from .acceptances import Acceptances
from .bundle import BundleGroup
from .clientresults import ClientResults, has_results, without_results
from .effects import Announce, Decline, Effect, Send, refusal
from .enginememory import EngineMemory
from .farm.answers import check, numbers
from .farm.farm import Farm
from .farm.recovery import Ends, ends_in, is_failure, only
from .farm.tasktable import RECORDS
from .journalstore import Store
from .journalwriter import JournalWriter
from .keptgroups import Kept, KeptClient, KeptFunctions, arguments
from .namedtasks import USUAL, Keep
from .nojournal import NoJournal, Session
from .receipts import Receipts
from .returning import Return, ReturningClients
from .unwrittenchanges import UnwrittenChanges
from .unwrittenends import UnwrittenEnds

COMMIT_DELAY: Final = 0.02
"""Seconds for which results that were passed on wait to be written together. Engine sets keep them meanwhile."""

RETRY: Final = 1.0
"""Seconds after which a write that has failed is tried again."""

RECOVERY: Final = 1.5 * limits.RECONNECT_LONGEST
"""Seconds after a restart for clients and engine sets to come back; they dial every 1.3 * RECONNECT_LONGEST."""


class TaskJournal(NoJournal):
    """Writes what the farm must not forget; answers clients and engine sets after a restart.

    Args:
        farm: all tasks.
        store: the journal.
        log: called with lines for the log.
        keep: what is kept of named tasks, and of those of clients that are gone.
    """

    is_on = True

    def __init__(self, farm: Farm, store: Store, log: Callable[[str], None], keep: Keep = USUAL) -> None:
        super().__init__(farm, keep)
        farm.recovery.spill(lambda serial: arguments(store.group(serial)))
        self._store = store
        self._log = log
        self._clients: dict[int, KeptClient] = {}
        self.memory = EngineMemory(farm, self._clients.__contains__)
        self._functions = KeptFunctions()
        self._changes = UnwrittenChanges()
        self._unsaid: list[Effect] = []
        """Failures that are told when they are written."""
        self._ends = UnwrittenEnds()
        self._submitted: dict[int, tuple[Kept, GroupRow]] = {}
        """Groups that were not written yet, by serial."""
        self._accepted = Acceptances()
        self._commit_at: float | None = None
        self._writer = JournalWriter(store, lambda text: self._out.append(Announce(text)))
        self._receipts = Receipts()
        self._former: dict[int, bytes] = {}
        self._returning = ReturningClients()
        self.had = ClientResults()
        self._expected: dict[bytes, int] = {}
        """Sets that have not come back: token -> key."""
        self._release_at: float | None = None

    # --- restoring -------------------------------------------------------------------------------------------

    def restored(
        self, clients: Iterable[int], sets: Iterable[SetRow], groups: Iterable[Kept],
        records: Iterable[tuple[int, int]], now: float, gone: Collection[int] = (),
    ) -> None:  # fmt: skip
        """These were in the journal (``records``: client and serial). ``gone``: clients that do not come back."""
        self._clients.update((key, KeptClient()) for key in (*clients, *gone))
        self._expected = {each.token: each.key for each in sets}
        for kept in groups:
            self._clients[kept.client].groups[kept.number] = kept
            if kept.client not in gone:
                self._returning.away.setdefault(kept.client, Return())
            self._functions.restored(kept.functions)
        for client, serial in records:
            self._clients[client].records.append(serial)
        for key in gone:
            self.farm.departures.gone(key, ())
        self._release()
        self._release_at = now + RECOVERY if self._returning.away or self._expected else None

    def _release(self) -> None:
        """Run the restored tasks of clients that are back, if all sets are back."""
        if not self._expected:
            self._no_others(0)
            for client in [key for key in self._clients if key not in self._returning.away]:
                self.farm.recovery.release(client)

    def _wait_no_longer(self) -> None:
        self._release_at = None
        if self._expected:
            self._log(f"{len(self._expected)} engine sets have not come back: what they may have had runs again")
            self._changes.extend(DropSet(key) for key in self._expected.values())
            self.memory.lost(self._expected.values())
            self._expected.clear()
        self._no_others(0)
        for client in self._clients:
            self.farm.recovery.release(client)

    # --- sessions --------------------------------------------------------------------------------------------

    def began(self, session: Session) -> None:
        """A session has begun: from now on it outlives this process."""
        if session.key in self._former:  # the answer to the Hello of this engine set was lost
            return
        if session.role == "engine":
            self._former[session.key] = session.former
            if session.former in self._expected:
                self.memory.came(self._expected[session.former], session.key)
            self._changes.append(SetRow(session.key, session.token))
            return
        if session.key not in self._clients:
            self._clients[session.key] = KeptClient()
            self._changes.append(SessionRow(session.key, session.token, session.role))
            super().began(session)
            if session.holder:  # it must not be taken for a holder of the role's own furl after a restart
                self._changes.append(self.named.row(session.key))
            self._commit()

    def registered(self, key: int) -> None:
        """A set was registered, perhaps again."""
        super().registered(key)
        self.memory.registered(key)

    def set_lost(self, key: int) -> None:
        """The session of an engine set has ended, and with it all that the journal has of it."""
        self.memory.set_lost(key)
        self._no_others(key)
        if key in self._former:
            # This is not its return: the answer to its Hello may have been lost, and it may have come again.
            self._changes.append(DropSet(key))
            del self._former[key]
            self._receipts.lost(key)

    def client_lost(self, key: int, orderly: bool) -> None:
        """The session of a client has ended, and with it what does not go on without it."""
        staying = self.named.leave(key, orderly)
        client = self._clients.get(key)
        self.memory.client_lost(key)
        self._returning.away.pop(key, None)
        if client is None or not staying:
            try:
                self.farm.client_lost(key)
            finally:
                self._forget_client(key)
            return
        left = {group.number for group in staying}
        for number in [number for number in client.groups if number not in left]:
            self._drop(client.groups.pop(number))
        self._changes.append(GoneRow(key))
        self.farm.departures.gone(key, {group.number for group in staying if group.bundle.is_named})
        self.named.end_unkept(staying)
        self._release()

    def _forget_client(self, key: int) -> None:
        client = self._clients.pop(key, None)
        if client is not None:
            for kept in client.groups.values():
                self._drop(kept)
            self._changes.append(DropSession(key))

    def finish(self) -> None:
        """The controller ends, and has ended all sessions: only for named tasks somebody may come back."""
        self.named.flush(0.0)
        self._commit()

    # --- clients ---------------------------------------------------------------------------------------------

    def submit(self, client: int, message: m.SubmitTasks, body: Sequence[Buffer], stream: int) -> None:
        """Accept a group, as soon as it is in the journal."""
        state = self._clients[client]
        away = self._returning.away.get(client)
        if away is not None:
            away.resent.add(message.id)
        if message.id in state.groups and away is not None:
            # It was written, and the controller killed before it could say so.
            self._out.append(Send(client, m.TasksAccepted([message.id])))
            if stream:
                self._out.append(Decline(client, stream))
            return
        self.named.check(client, message)
        whole = b"".join(body)
        group = self.farm.submit(client, message, [whole], stream)
        self.named.submitted(client, group, message)
        functions = group.options.functions  # which equal groups share
        self._functions.use(functions, self.farm.functions.data)
        kept = state.groups[message.id] = Kept(group.serial, client, message.id, functions)
        row = GroupRow(kept.serial, client, kept.number, m.encode(message), whole)
        self._submitted[kept.serial] = (kept, row)

    def told(self, client: int, message: m.TasksFetched | m.TasksOpen | m.TaskOrigin | m.FollowTasks) -> None:
        """A client says which results it has, or lacks, who it is, or what it wants to hear of."""
        if isinstance(message, m.TaskOrigin | m.FollowTasks):
            super().told(client, message)
            return
        if isinstance(message, m.TasksFetched):
            for number in message.groups:
                self._fetched(client, number)
            return
        away = self._returning.away.get(client)
        for number, indices in message.groups:
            lacks = set(numbers(indices))
            if away is not None:
                away.listed.add(number)
                self._returning.lacked[client, number] = lacks
            if number < 0:
                self.named.follow_again(client, -number, lacks)
            else:
                self._answer(client, number, lacks)
        if message.last and away is not None:
            for number in sorted(self._clients[client].groups):
                if number in away.resent:
                    self._answer(client, number, None)
                elif number not in away.listed:
                    self._answer(client, number, set())
                    self._fetched(client, number)
            del self._returning.away[client]
            self._release()

    def _answer(self, client: int, number: int, lacks: set[int] | None) -> None:
        """Tell a client the ends of those tasks of a group that it lacks (None: of all)."""
        kept = self._clients[client].groups.get(number)
        if kept is None:
            text = "the journal of the controller does not have these tasks, although they were accepted"
            undone = m.TasksUndone(number, packed.pack(sorted(lacks or ())), "JournalDamaged", text)
            self._out += [Send(client, undone)] if lacks else []
            return
        known: set[int] = set()
        try:
            rows = self._store.ends(kept.serial)
        except JournalDamaged as error:
            gone = self.farm.recovery.ended_of(client, number, lacks)
            undone = m.TasksUndone(number, packed.pack(gone), "JournalDamaged", str(error))
            self._out.append(Send(client, undone))
            return
        ends = [(m.decode(row.message), row.body, True) for row in rows]
        ends += [(message, body, not is_failure(message)) for message, body in self._ends.of(kept.serial)]
        for message, body, is_told in ends:  # else it is told when it is written
            assert isinstance(message, Ends)
            known.update(ends_in(message))
            if is_told and has_results(message):
                self._out += [Send(client, *piece) for piece in only(message, body, lacks)]
        if lacks is not None and (had := self.farm.recovery.has_result(client, number, lacks | known)):
            self._ends.add(kept.serial, without_results(number, dict(had)), b"")
            self.had.add(kept.serial, had)

    def _no_others(self, key: int) -> None:
        """A set is lost, or (0) no others come back, and with it results that clients have had."""
        for serial, indices in self.had.lost(key):
            self.named.never(serial, indices)

    def _fetched(self, client: int, number: int) -> None:
        """A client has the results of all tasks of a group; others may still refer to it."""
        state = self._clients[client]
        if number < 0 or self.named.fetched(client, number):
            return
        kept = state.groups.pop(number, None)
        if kept is None:
            return
        self._drop(kept)
        record = self.farm.recovery.record(client, number)
        if record is not None:
            row = RecordRow(kept.serial, client, number, record.label, bytes(record.states))
            state.records.append(kept.serial)
            over = len(state.records) > RECORDS
            self._changes.may_wait([row, DropRecord(state.records.popleft())] if over else [row])

    def _drop(self, kept: Kept) -> None:
        self.had.drop(kept.serial)
        self._ends.drop(kept.serial)
        if self._submitted.pop(kept.serial, None) is None:
            self._changes.may_wait([DropGroup(kept.serial)])
        self._functions.unuse(kept.functions)

    # --- engine sets -----------------------------------------------------------------------------------------

    def results(self, key: int, message: m.TaskResults, body: Sequence[Buffer]) -> None:
        """Tasks have ended on a rank of a set, which keeps the message until it is recorded."""
        self._receipts.heard(key)
        self.farm.recovery.told_again(key, message.group, message.indices)
        self.farm.results(key, message, body)
        if message.group in self.had:
            check(message, body)
            engine = self.farm.recovery.engine_id(key, message.rank)
            for done, part in self.had.take(message, b"".join(body), engine):
                self.named.late(message.group, done, part)

    def reserve(self, client: int, message: m.Reserve) -> Ids:
        """As without a journal; if that is possible, it is on the disk before the client is answered."""
        return self._written(self.memory.reserve(client, message))

    def release(self, client: int, message: m.Release) -> Ids:
        """As :meth:`reserve`."""
        return self._written(self.memory.release(client, message))

    def _written(self, ids: Ids) -> Ids:
        self._changes.extend(self.memory.changes())
        self._commit()
        return ids

    def held(self, key: int, message: m.TasksHeld) -> None:
        """A set that has come back says which tasks it has."""
        for serial, indices in message.groups if self.had else ():
            self.had.held(key, serial, numbers(indices))
        super().held(key, message)
        if message.last:
            self._is_back(key)

    def _is_back(self, key: int) -> None:
        former = self._expected.pop(self._former.get(key, b""), None)
        if former is not None:
            self._changes.append(DropSet(former))
            self._release()

    # --- writing ---------------------------------------------------------------------------------------------

    def flush(self, now: float) -> list[Effect]:
        """Write what has to be written first; return the effects of all events since the last call."""
        if self._release_at is not None and now >= self._release_at:
            self._wait_no_longer()
        self._write_submissions(now)
        self._changes.extend(self.memory.changes())
        if self.memory.is_unwritten and not self._writer.is_failing:  # before tasks run again
            self._commit()
        found = self.farm.flush(now)
        failures = self._note_ends(found)
        self._unsaid += self._returning.only_lacked(failures)
        is_due = self._commit_at is not None and now >= self._commit_at
        if (is_due or (failures and not self._writer.is_failing)) and not self._commit():
            self._commit_at = now + RETRY
        self._tell_sets()
        out, self._out = self._out, []
        later = set(map(id, failures))
        passed = self.named.pass_on([each for each in found if id(each) not in later] if later else found)
        told = out + self._returning.only_lacked(passed)
        self._returning.lacked.clear()
        if not self._writer.is_failing:
            told += self.named.pass_on(self._unsaid)
            self._unsaid = []
        told = self._returning.without_absent(told) + self.named.flush(now)
        if self._accepted:
            is_last = self._commit_at is None or self._writer.is_failing
            told = (self._accepted.all() if is_last else self._accepted.before(told)) + told
        if self._commit_at is None and (self._changes or self._ends or self._functions.has_unused):
            self._commit_at = now + (RETRY if self._writer.is_failing else COMMIT_DELAY)
        return told

    def _write_submissions(self, now: float) -> None:
        if not self._submitted:
            return
        is_soon = self._commit_at is not None and now >= self._commit_at - COMMIT_DELAY / 2
        is_alone = self._changes.are_patient and not (is_soon or self._writer.is_failing)
        if self._commit_submitted() if is_alone else self._commit():
            return
        for kept, _ in reversed(list(self._submitted.values())):
            state = self._clients.get(kept.client)
            if state is not None and state.groups.pop(kept.number, None) is not None:
                self.farm.recovery.withdraw(kept.client, kept.number)
                self.named.withdrawn(kept.client, kept.number)
                self._out.append(Send(kept.client, refusal(kept.number, self._writer.error)))
                self._drop(kept)

    def _accept(self) -> None:
        """The groups that were submitted are on the disk."""
        for kept, _ in self._submitted.values():
            self._accepted.add(kept.client, kept.number)
            self.farm.recovery.is_written(kept.serial)
        self._submitted.clear()

    def _note_ends(self, effects: Iterable[Effect]) -> list[Effect]:
        """Note the ends of tasks; return those that must be written before they are told."""
        must: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, m.Reply) and (must or self._unsaid):
                must.append(effect)  # it says which tasks are cancelled
            if not isinstance(effect, Send) or not isinstance(effect.message, Ends):
                continue
            client, message = self._clients.get(effect.to), effect.message
            self.named.note(effect, message)
            kept = client.groups.get(message.group) if client is not None else None
            if kept is not None:
                self._ends.add(kept.serial, message, b"".join(effect.body))
                if is_failure(message):
                    must.append(effect)
        return must

    def _commit(self) -> bool:
        """Write all that waits; return False, and keep it, if that is impossible now."""
        changes = [*self._changes.all(), *self._functions.unused(), *self._ends.rows()]
        if not self._commit_submitted(changes):
            return False
        self._commit_at = None
        self._changes.are_written()
        self._functions.are_dropped()
        self.memory.is_unwritten = False
        self._ends.are_written()
        return True

    def _commit_submitted(self, others: Sequence[Change] = ()) -> bool:
        """Write these changes and the groups that were submitted; return False if that is impossible now."""
        rows = (row for _, row in self._submitted.values())
        if not self._writer.write([*others, *self._functions.unwritten(), *rows]):
            return False
        self._functions.are_written()
        self._accept()
        return True

    def _tell_sets(self) -> None:
        """Tell engine sets how many of their results need not be kept any more.

        While the disk is full, they keep all: the next controller would not know that clients have them.
        """
        if not self._ends and not self.memory.is_unwritten and not self._changes:
            self._out += self._receipts.due()

    def next_deadline(self, now: float) -> float | None:
        """Return when to call :meth:`flush` if no event occurs."""
        found = (super().next_deadline(now), self._commit_at, self._release_at)
        return min((when for when in found if when is not None), default=None)

    # --- what is kept; see :class:`ipmpi.controller.record.Record` -----------------------------------------

    def ends(self, group: BundleGroup) -> list[tuple[EndRow, bool]]:
        """Return the ends that are noted of a group; failures are told when they are written."""
        rows = [(row, True) for row in self._store.ends(group.serial)]
        noted = self._ends.of(group.serial)
        return rows + [(end.row(group.serial), not is_failure(end.message)) for end in noted]

    def awaits(self, group: BundleGroup) -> bool:
        """Return whether engine sets may tell results again that only their client has."""
        return group.serial in self.had

    def keep(self, group: BundleGroup, row: EndRow) -> None:
        """Note ends of tasks."""
        self._ends.add(group.serial, m.decode(row.message), row.body)  # type: ignore[arg-type]

    def write(self, change: Change) -> None:
        """Write it soon."""
        self._changes.append(change)

    def forget(self, group: BundleGroup) -> None:
        """Keep nothing of a group."""
        client = self._clients.get(group.bundle.client)
        if client is not None and (kept := client.groups.pop(group.number, None)) is not None:
            self._drop(kept)

    def shed(self, group: BundleGroup) -> bool:
        """Keep nothing of a group if its client has said that it has all results."""
        if group.is_fetched:
            self.forget(group)
        return group.is_fetched

    def forget_client(self, client: int) -> None:
        """Keep nothing of a client that is gone."""
        self.farm.client_lost(client)
        self._forget_client(client)
