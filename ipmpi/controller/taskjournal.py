"""What the controller writes to its journal about tasks, and when it tells whom (no I/O but the store's).

The rules.

* A group of tasks is given to engines, and its client told that it is accepted, only when it is in the journal. If
  it cannot be written, the group is refused.
* Results are passed on at once. An engine set keeps them until they are in the journal, or their client has said
  that it has all results of the group; so they are written a little later, many at a time, or never. That a task
  failed or was given up is written before it is told, since others may depend on it.
* A large result is not in the journal. Its task has ended when its client says so.
* After a restart, restored tasks wait until their client and all known engine sets are back, and have said what
  they have; or for :data:`RECOVERY` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from .. import limits
from ..errors import JournalDamaged, JournalFull
from ..journal.rows import (
    Change,
    DropFunction,
    DropGroup,
    DropRecord,
    DropSession,
    DropSet,
    EndRow,
    FunctionRow,
    GoneRow,
    GroupRow,
    RecordRow,
    SessionRow,
    SetRow,
)
from ..protocol import messages as m, packed
from ..protocol.frames import Buffer
from .bundles import BundleGroup
from .effects import Announce, Decline, Effect, Send, refusal
from .farm.answers import numbers
from .farm.arguments import Arguments
from .farm.farm import Farm
from .farm.recovery import Ends, ends_in, is_failure, only
from .farm.tasktable import RECORDS
from .journalstore import Store
from .keptgroups import Kept, KeptClient, Return
from .namedtasks import USUAL, Keep
from .nojournal import NoJournal, Session

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
        farm.recovery.spill(self._arguments)
        self._store = store
        self._log = log
        self._clients: dict[int, KeptClient] = {}
        self._functions: dict[bytes, int] = {}
        """How many groups in the journal use each function."""
        self._unwritten: dict[bytes, bytes] = {}
        """Functions of groups that were not written yet."""
        self._changes: list[Change] = []
        self._unsaid: list[Effect] = []
        """Failures that are told when they are written."""
        self._ends: dict[int, list[EndRow]] = {}
        """Ends that were not written yet, by serial."""
        self._submitted: dict[int, tuple[Kept, GroupRow]] = {}
        """Groups that were not written yet, by serial."""
        self._commit_at: float | None = None
        self._failure = ""
        self._error: JournalFull | JournalDamaged = JournalFull("")
        self._heard: dict[int, int] = {}
        self._recorded: dict[int, int] = {}
        """Messages of results of each set: how many there were, and how many it was told are recorded."""
        self._former: dict[int, bytes] = {}
        self._away: dict[int, Return] = {}
        """Clients that have not come back since the restart."""
        self._lacked: dict[tuple[int, int], set[int]] = {}
        """By client and number of a group: what a client that came back in this turn lacks of it."""
        self._expected: dict[bytes, int] = {}
        """Sets that have not come back: token -> key."""
        self._release_at: float | None = None

    # --- restoring -------------------------------------------------------------------------------------------

    def restored(
        self, clients: Iterable[int], sets: Iterable[SetRow], groups: Iterable[Kept],
        records: Iterable[tuple[int, int]], now: float, gone: Collection[int] = (),
    ) -> None:  # fmt: skip
        """These were in the journal when the controller began (``records``: client and serial).

        ``gone``: clients that do not come back, and whose tasks go on.
        """
        for key in (*clients, *gone):
            self._clients[key] = KeptClient()
        self._expected = {each.token: each.key for each in sets}
        for kept in groups:
            self._clients[kept.client].groups[kept.number] = kept
            if kept.client not in gone:
                self._away.setdefault(kept.client, Return())
            for function in kept.functions:
                self._functions[function] = self._functions.get(function, 0) + 1
        for client, serial in records:
            self._clients[client].records.append(serial)
        for key in gone:
            self.farm.departures.gone(key, ())
        self._release()
        self._release_at = now + RECOVERY if self._away or self._expected else None

    def _release(self) -> None:
        """Run the restored tasks of clients that are back, if all sets are back."""
        if not self._expected:
            for client in [key for key in self._clients if key not in self._away]:
                self.farm.recovery.release(client)

    def _wait_no_longer(self) -> None:
        self._release_at = None
        if self._expected:
            self._log(f"{len(self._expected)} engine sets have not come back: what they may have had runs again")
            self._changes += [DropSet(key) for key in self._expected.values()]
            self._expected.clear()
        for client in self._clients:
            self.farm.recovery.release(client)

    # --- sessions --------------------------------------------------------------------------------------------

    def began(self, session: Session) -> None:
        """A session has begun: from now on it outlives this process."""
        if session.role == "engine":
            self._former[session.key] = session.former
            self._changes.append(SetRow(session.key, session.token))
            return
        if session.key not in self._clients:
            self._clients[session.key] = KeptClient()
            self._changes.append(SessionRow(session.key, session.token, session.role))
            super().began(session)
            if session.holder:  # it must not be taken for a holder of the role's own furl after a restart
                self._changes.append(self.named.row(session.key))
            self._commit()

    def set_lost(self, key: int) -> None:
        """The session of an engine set has ended, and with it all that the journal has of it."""
        if key in self._former:
            # This is not its return: the answer to its Hello may have been lost, and it may have come again.
            self._changes.append(DropSet(key))
            for known in (self._former, self._heard, self._recorded):
                known.pop(key, None)

    def client_lost(self, key: int, orderly: bool) -> None:
        """The session of a client has ended, and with it what does not go on without it."""
        staying = self.named.leave(key, orderly)
        client = self._clients.get(key)
        self._away.pop(key, None)
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
        away = self._away.get(client)
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
        for key in functions:
            if key not in self._functions:
                self._unwritten[key] = self.farm.functions.data(key)
            self._functions[key] = self._functions.get(key, 0) + 1
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
        away = self._away.get(client)
        for number, indices in message.groups:
            lacks = set(numbers(indices))
            if away is not None:
                away.listed.add(number)
                self._lacked[client, number] = lacks
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
            del self._away[client]
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
            self._lost(kept, lacks, error)
            return
        for position, row in enumerate([*rows, *self._ends.get(kept.serial, ())]):
            message = m.decode(row.message)
            assert isinstance(message, Ends)
            known.update(ends_in(message))
            if position < len(rows) or not is_failure(message):  # else it is told when it is written
                self._out += [Send(client, *piece) for piece in only(message, row.body, lacks)]
        if lacks is not None:
            self.farm.recovery.has_result(client, number, lacks | known)

    def _lost(self, kept: Kept, lacks: set[int] | None, error: JournalDamaged) -> None:
        """The ends of a group cannot be read: say so of those that the client lacks."""
        record = self.farm.recovery.record(kept.client, kept.number)
        wanted = range(len(record.states)) if record is not None and lacks is None else sorted(lacks or ())
        gone = [i for i in wanted if self.farm.recovery.has_ended(kept.client, kept.number, i)]
        undone = m.TasksUndone(kept.number, packed.pack(gone), "JournalDamaged", str(error))
        self._out.append(Send(kept.client, undone))

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
            self._changes.append(row)
            state.records.append(kept.serial)
            if len(state.records) > RECORDS:
                self._changes.append(DropRecord(state.records.popleft()))

    def _drop(self, kept: Kept) -> None:
        self._ends.pop(kept.serial, None)
        if self._submitted.pop(kept.serial, None) is None:
            self._changes.append(DropGroup(kept.serial))
        for key in kept.functions:
            self._functions[key] -= 1
            if not self._functions[key]:
                del self._functions[key]
                if self._unwritten.pop(key, None) is None:
                    self._changes.append(DropFunction(key))

    # --- engine sets -----------------------------------------------------------------------------------------

    def results(self, key: int, message: m.TaskResults, body: Sequence[Buffer]) -> None:
        """Tasks have ended on a rank of a set, which keeps the message until it is recorded."""
        self._heard[key] = self._heard.get(key, 0) + 1
        self.farm.results(key, message, body)

    def held(self, key: int, message: m.TasksHeld) -> None:
        """A set that has come back says which tasks it has."""
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
        self._write_submissions()
        found = self.farm.flush(now)
        failures = self._note_ends(found)
        self._unsaid += self._only_lacked(failures)
        if self._changes or self._ends:
            if self._commit_at is None:
                self._commit_at = now + COMMIT_DELAY
            if failures or now >= self._commit_at:
                self._commit_at = None if self._commit() else now + RETRY
        else:
            self._commit_at = None
        self._tell_sets()
        out, self._out = self._out, []
        later = set(map(id, failures))
        told = out + self._only_lacked(effect for effect in found if id(effect) not in later)
        self._lacked.clear()
        if not self._failure:
            told += self._unsaid
            self._unsaid = []
        told = self.named.pass_on(told)
        told = [effect for effect in told if not self._is_for_absent(effect)] + self.named.flush(now)
        if self._changes and self._commit_at is None:
            self._commit_at = now + COMMIT_DELAY
        return told

    def _only_lacked(self, effects: Iterable[Effect]) -> list[Effect]:
        """Leave out results that came again in the turn in which their client came back, and which it has."""
        found: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Ends):
                lacks = self._lacked.get((effect.to, effect.message.group))
                pieces = only(effect.message, b"".join(effect.body), lacks) if lacks is not None else None
                found += [effect] if pieces is None else [Send(effect.to, *piece) for piece in pieces]
            else:
                found.append(effect)
        return found

    def _is_for_absent(self, effect: Effect) -> bool:
        """Whether a client will be told when it has come back, and has said what it lacks of that group."""
        if not isinstance(effect, Send) or not isinstance(effect.message, Ends):
            return False
        away = self._away.get(effect.to)
        return away is not None and effect.message.group not in away.listed

    def _write_submissions(self) -> None:
        if not self._submitted:
            return
        submitted = [kept for kept, _ in self._submitted.values()]
        if self._commit():
            accepted: dict[int, list[int]] = {}
            for kept in submitted:
                accepted.setdefault(kept.client, []).append(kept.number)
                self.farm.recovery.is_written(kept.serial)
            self._out += [Send(client, m.TasksAccepted(groups)) for client, groups in accepted.items()]
            return
        error = self._error
        for kept in reversed(submitted):
            state = self._clients.get(kept.client)
            if state is not None and state.groups.pop(kept.number, None) is not None:
                self.farm.recovery.withdraw(kept.client, kept.number)
                self.named.withdrawn(kept.client, kept.number)
                self._out.append(Send(kept.client, refusal(kept.number, error)))
                self._drop(kept)

    def _arguments(self, serial: int) -> Arguments:
        """Read the arguments of a group."""
        row = self._store.group(serial)
        message = m.decode(row.message)
        assert isinstance(message, m.SubmitTasks)
        return Arguments(message.lengths, row.body or b"")

    def _note_ends(self, effects: Iterable[Effect]) -> list[Effect]:
        """Note the ends of tasks; return those that must be written before they are told."""
        must: list[Effect] = []
        for effect in effects:
            if not isinstance(effect, Send) or not isinstance(effect.message, Ends):
                continue
            client, message = self._clients.get(effect.to), effect.message
            self.named.note(effect, message)
            kept = client.groups.get(message.group) if client is not None else None
            if kept is not None:
                row = EndRow(kept.serial, m.encode(message), b"".join(effect.body))
                self._ends.setdefault(kept.serial, []).append(row)
                if is_failure(message):
                    must.append(effect)
        return must

    def _commit(self) -> bool:
        """Write all that waits; return False, and keep it, if that is impossible now."""
        changes = self._changes + [row for rows in self._ends.values() for row in rows]
        changes += [FunctionRow(*item) for item in self._unwritten.items()]
        changes += [row for _, row in self._submitted.values()]
        try:
            if changes:
                self._store.commit(changes)
        except (JournalFull, JournalDamaged) as error:
            if not self._failure:
                self._out.append(
                    Announce(
                        f"new tasks are refused, and failures told later: the journal cannot be written. {error}"
                    )
                )
            self._error, self._failure = error, str(error)
            return False
        if self._failure:
            self._out.append(Announce("tasks are accepted again: the journal can be written"))
            self._failure = ""
        self._changes.clear()
        self._ends.clear()
        self._unwritten.clear()
        self._submitted.clear()
        return True

    def _tell_sets(self) -> None:
        """Tell engine sets how many of their results need not be kept any more."""
        if self._ends:
            return
        for key, heard in self._heard.items():
            if heard > self._recorded.get(key, 0):
                self._recorded[key] = heard
                self._out.append(Send(key, m.ResultsRecorded(heard)))

    def next_deadline(self, now: float) -> float | None:
        """Return when to call :meth:`flush` if no event occurs."""
        times = (super().next_deadline(now), self._commit_at, self._release_at)
        return min((when for when in times if when is not None), default=None)

    # --- what is kept; see :class:`ipmpi.controller.namedtasks.Record` -----------------------------------------

    def ends(self, group: BundleGroup) -> list[tuple[EndRow, bool]]:
        """Return the ends that are noted of a group; failures are told when they are written."""
        rows = [(row, True) for row in self._store.ends(group.serial)]
        unwritten = self._ends.get(group.serial, ())
        return rows + [(row, not is_failure(m.decode(row.message))) for row in unwritten]  # type: ignore[arg-type]

    def keep(self, group: BundleGroup, row: EndRow) -> None:
        """Note ends of tasks."""
        self._ends.setdefault(group.serial, []).append(row)

    def write(self, change: Change) -> None:
        """Write it soon."""
        self._changes.append(change)

    def forget(self, group: BundleGroup) -> None:
        """Keep nothing of a group."""
        client = self._clients.get(group.bundle.client)
        kept = client.groups.pop(group.number, None) if client is not None else None
        if kept is not None:
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
