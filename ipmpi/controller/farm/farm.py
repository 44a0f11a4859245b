"""The controller's half of the task farm: which engine set gets which tasks (no I/O).

The rules.

* A set reports how many tasks it may have at a time (its window); its agent distributes them among its ranks.
  Tasks are sent in batches, and there is no object per task: groups have arrays, the queue has ranges.
* A task runs at least once, and exactly one end is reported to its client. Results are accepted only from the set
  that the task was given to last.
* A task that fails is queued again at the tail while it has retries. A task that is returned for any other reason
  keeps its place in the order and its retries. After the loss of its engine it is run alone, which shows whether
  it was the cause; after ``limits.MAX_CRASHES`` lost engines it fails.
* A task that rejects an engine goes to another one, and fails when all have been tried. A task whose condition
  does not hold waits for another engine, or for changed properties.
* A set whose job ends before a task is expected to end does not get it; other tasks do not wait behind it.
* A task that no engine can run is parked, and fails after ``limits.UNSCHEDULABLE_AFTER`` seconds.

Methods take events and change the state; :meth:`Farm.flush` returns the effects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from ... import limits
from ...errors import JournalDamaged
from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from ..effects import Effect, Send
from ..registry import Registry
from .aborts import Aborts
from .answers import Classified, check, classify, numbers
from .arguments import ArgumentMemory
from .departures import Departures
from .endings import Endings
from .functions import Functions
from .groups import CANCELLING, DROPPED, GIVEN, INTERRUPTED, TaskGroup, as_range, runs
from .large import LargeResults
from .largearguments import LargeArguments
from .order import Order, Priority, Queued
from .recovery import FarmRecovery
from .reservations import Reservations
from .sets import Incarnation, Need, SetState, SetStates, Verdict, rounded_up, sentence
from .suspects import Suspects
from .taskqueue import QueueSlice, TaskQueue
from .tasktable import TaskTable

_STATUS: int = 250_000
"""Most running tasks in one TaskStatus, which has to fit into a message."""


class Farm:
    """All tasks, and the engine sets that run them.

    Args:
        registry: the registered engines.
        first_serial: the number of the first group between this controller and engine sets.
        order: the order in which tasks are given.
    """

    def __init__(self, registry: Registry, first_serial: int = 1, order: Order | None = None) -> None:
        self._registry = registry
        self._order: Order = order if order is not None else Priority()
        self._waiting = TaskQueue(self._order.newest_first)
        self._arrivals = count(1)
        self._table = TaskTable(first_serial, lambda group: self.recovery.ready(group), self._closed)
        self.functions = Functions()
        self._sets = SetStates()
        self.aborts, self.blame = Aborts(self._table), Suspects(self._table)
        self._endings = Endings(self._table, self._sets)
        self.arguments = ArgumentMemory()
        self.bodies = LargeArguments(self._table, self.arguments, lambda serial: self.recovery.may_be_held(serial))
        self.large = LargeResults(self._table, self._sets, self._large_ended, self.returned, self._taken)
        large = (self.large, self.bodies)
        self.departures = Departures(
            self._table, self._sets, self._waiting, self.functions, self.aborts, large, self._forget
        )
        self.recovery = FarmRecovery(
            self._table, self._sets, self.functions, self.arguments, self._ready, self._taken, self.bodies.released
        )
        self.reservations = Reservations(registry, self._sets, self._table)
        self.reserve, self.release = self.reservations.reserve, self.reservations.release
        self.limit_to = self._table.limit_to
        self._look_at: float | None = None
        self.on_closed: Callable[[TaskGroup], None] = lambda group: None
        self.stale_results = 0
        """Number of unexpected results, which are dropped."""

    # --- clients -------------------------------------------------------------------------------------------

    def submit(self, client: int, message: m.SubmitTasks, body: Sequence[Buffer], stream: int) -> TaskGroup:
        """Queue a group of tasks, and return it; raises an error to refuse it."""
        self.functions.use(client, message.options.functions)
        try:
            group = self._table.open(client, message, body, stream, len(self._registry.engines))
        except Exception:
            self._forget(self.functions.unuse(message.options.functions))
            raise
        self._sets.group_opened(group.options.expected)
        self._table.start(group, message.options)
        return group

    def define(self, client: int, message: m.DefineFunction, body: Sequence[Buffer]) -> None:
        """Add a piece of a function of tasks; raises RemoteProtocolError if it is not the next one."""
        self.functions.define(client, message, body)

    def forget(self, client: int, message: m.ForgetFunctions) -> None:
        """A client drops these functions."""
        self._forget(self.functions.forget(client, message.keys))

    def _forget(self, keys: list[bytes]) -> None:
        for set_state in self._sets.by_key.values() if keys else ():
            theirs = [key for key in keys if key in set_state.functions]
            set_state.functions.difference_update(theirs)
            if theirs:
                self._table.effects.append(Send(set_state.key, m.ForgetFunctions(theirs)))

    def recheck(self, client: int) -> None:
        """Evaluate the conditions of a client's tasks again on all engines."""
        for condition in self._table.conditions(client):
            condition.refused.clear()
            self._waiting.evaluate_again(condition.needs)

    def status(self, client: int) -> dict[str, Any]:
        """Return the reply to :class:`TaskStatus`."""
        table = self._table
        return {
            "scheduled": table.scheduled, "pending": table.pending, "succeeded": table.n_succeeded,
            "failed": table.n_failed, "running": table.running(client, _STATUS),
        }  # fmt: skip

    def client_lost(self, client: int) -> None:
        """A client's session has ended: drop its waiting tasks, and cancel given ones that have not started."""
        self.departures.lost(client)

    # --- engine sets -----------------------------------------------------------------------------------------

    def registered(self, key: int) -> None:
        """A set was registered."""
        self.set_lost(key, "its engine set registered anew", blame=False)
        self._sets.register(self._registry.sets[key])
        self._waiting.evaluate_again()

    def has_work(self, key: int) -> bool:
        """Return whether a set has tasks."""
        set_state = self._sets.by_key.get(key)
        return set_state is not None and set_state.unanswered > 0

    def want_tasks(self, key: int, window: int) -> None:
        """A set reports its window: how many tasks it may have at a time."""
        set_state = self._sets.by_key.get(key)
        if set_state is not None:
            set_state.window = window
            self._sets.update(set_state)

    def job_ends(self, key: int, ends_at: float | None) -> None:
        """Set the end of a set's job; None if unknown."""
        set_state = self._sets.by_key.get(key)
        if set_state is not None:
            self._sets.ends(set_state, ends_at)

    def properties_changed(self, key: int, ranks: Iterable[int]) -> None:
        """The properties of ranks have changed, so that conditions may hold now."""
        set_state = self._sets.by_key.get(key)
        if set_state is not None:
            engines = {set_state.incarnations[rank].number for rank in ranks if rank in set_state.incarnations}
            self._waiting.evaluate_again(self._table.properties_changed(engines))

    def results(self, key: int, message: m.TaskResults, body: Sequence[Buffer]) -> None:
        """Tasks have ended on a rank."""
        set_state, group = self._sets.by_key.get(key), self._table.groups.get(message.group)
        engine = set_state.former.get(message.rank) if set_state is not None else None
        if set_state is None or group is None or engine is None:
            self.stale_results += len(numbers(message.indices))
            return
        check(message, body)
        span = as_range(message.indices)
        if span is not None and group.all_given(key, *span) and not (message.failed and group.options.retries):
            # All results are valid: the message is passed on unchanged.
            self._answered(set_state, group, span[1] - span[0])
            positions = packed.unpack(message.failed) if message.failed else ()
            failed = sorted({span[0] + p for p in positions if p < span[1] - span[0]})
            done = m.TasksDone(
                group.id, engine.id, message.indices, message.failed, message.lengths, message.sizes
            )
            self._table.effects.append(Send(group.client, done, body))
            self._record(group, [span] if not failed else runs(sorted({*range(*span)}.difference(failed))),
                         failed, engine)  # fmt: skip
            return
        found = classify(key, group, message, body)
        self._answered(set_state, group, found.answered)
        self.stale_results += found.stale
        self._sorted(group, engine, found)

    def _sorted(self, group: TaskGroup, engine: Incarnation, found: Classified) -> None:
        """Handle results that are not all passed on."""
        if found.indices:
            done = m.TasksDone(
                group.id, engine.id, packed.pack(found.indices), packed.pack(found.failed_positions),
                packed.pack(found.lengths), [sum(found.lengths)],
            )  # fmt: skip
            self._table.effects.append(Send(group.client, done, [b"".join(found.payloads)]))
        for index in found.settled:
            self.aborts.settle(group, index, False)
        for index in found.dropped:
            self._table.gone(group, index)
        self._interrupted(group, found.interrupted)
        for index in found.retried:
            group.retry(index, found.mark)
        if found.retried:
            self._requeue(group, found.retried, self._rank(group, len(found.retried)))
            self.recovery.on_used(group)
        self._record(group, runs(found.succeeded), found.failed, engine)

    def _record(
        self, group: TaskGroup, done: list[tuple[int, int]], failed: list[int], engine: Incarnation
    ) -> None:
        for start, stop in done:
            self._table.succeeded(group, start, stop, engine.number)
        if failed:
            self._table.failed(group, failed, engine.number)

    def _interrupted(self, group: TaskGroup, indices: list[int]) -> None:
        self._table.undone(group, indices, "TaskAborted", f"{group.options.label} was interrupted")

    def result(self, key: int, message: m.LargeTaskResult, body: Sequence[Buffer], stream: int) -> None:
        """A task has succeeded with a large result."""
        self.stale_results += not self.large.result(key, message, body, stream)

    def result_passed_on(self, key: int, stream: int, complete: bool) -> None:
        """A large result was forwarded (or its client does not want it), or will not arrive."""
        self.large.passed_on(key, stream, complete)

    def _large_ended(self, set_state: SetState, group: TaskGroup, index: int, engine: Incarnation) -> None:
        self._answered(set_state, group, 1)
        self.aborts.settle(group, index, False)
        if group.states[index] == DROPPED:
            self._table.gone(group, index)
        elif group.states[index] == INTERRUPTED:
            self._interrupted(group, [index])
        else:
            self._table.succeeded(group, index, index + 1, engine.number)

    @property
    def unfinished(self) -> int:
        """Number of tasks that have not ended."""
        return self._table.scheduled + self._table.pending

    def has_tasks_of_others(self, key: int, client: int) -> bool:
        """Return whether a set has tasks of other clients."""
        state = self._sets.by_key.get(key)
        return state is not None and any(self._table.groups[serial].client != client for serial in state.given)

    def pause(self, client: int) -> None:
        """Give no tasks of a client that does not read its results."""
        self._waiting.pause(client)

    def resume(self, client: int) -> None:
        """The client reads its results again, or has disconnected."""
        self._waiting.resume(client)

    # --- returned tasks --------------------------------------------------------------------------------------

    def returned(self, key: int, message: m.TasksReturned) -> None:
        """A set returns tasks that it has not completed, or (why: 'running') cannot cancel them."""
        set_state, group = self._sets.by_key.get(key), self._table.groups.get(message.group)
        indices = dict.fromkeys(numbers(message.indices))
        if set_state is None or group is None:
            self.stale_results += len(indices)
            return
        back = [index for index in indices if group.is_given(key, index)]
        self.stale_results += len(indices) - len(back)
        if message.why == "running":
            for index in back:
                if group.states[index] == CANCELLING:
                    group.states[index] = GIVEN
                    self.aborts.settle(group, index, False)
            return
        self._answered(set_state, group, len(back))
        self._back(set_state, group, back, message)

    def _back(self, set_state: SetState, group: TaskGroup, indices: list[int], message: m.TasksReturned) -> None:
        """A set has returned tasks."""
        group.wanted = None
        again: list[int] = []
        cancelled: list[int] = []
        interrupted: list[int] = []
        for index in indices:
            state = group.states[index]
            if state == DROPPED:
                self._table.gone(group, index)
            else:
                (again if state == GIVEN else cancelled if state == CANCELLING else interrupted).append(index)
        self._table.undone(
            group, cancelled, "TaskAborted", f"{group.options.label} was cancelled before it started"
        )
        self._interrupted(group, interrupted)
        for index in indices:
            self.aborts.settle(group, index, message.why == "cancelled" or index in cancelled)
        if again:
            self._again(set_state, group, again, message)

    def _again(self, set_state: SetState, group: TaskGroup, indices: list[int], message: m.TasksReturned) -> None:
        engine = set_state.former.get(message.rank)
        concerned = [engine] if engine is not None else set_state.incarnations.values()
        refusing = [each.number for each in concerned]
        ended = message.why == "ended" or (message.why == "lost" and message.rank in set_state.told)
        if ended and engine is not None:
            indices = self._endings.told_to_end(group, indices, engine)
        elif message.why == "lost" and message.rank not in set_state.doomed:
            indices = self.blame.strike(group, indices, engine.text if engine else f"of a set: {message.text}")
        elif message.why == "refused" and group.condition is not None:
            group.condition.refused.update(refusing)
            self._waiting.evaluate_again(group.condition.needs)
        elif message.why in ("refused", "rejected"):
            group.rejected, group.last_refusal = group.rejected or {}, message.text
            for index in indices:
                group.rejected.setdefault(index, set()).update(refusing)
            self.recovery.on_used(group)
        elif message.why == "broken":
            group.broken += 1
            if group.broken >= limits.MAX_CRASHES:
                text = f"{group.options.label}: its arguments did not reach an engine in {group.broken} attempts"
                self._table.undone(group, indices, "ConnectionError", f"{text}. {message.text}")
                return
        self._requeue(group, indices, group.rank)

    def ranks_lost(
        self, key: int, ranks: Iterable[int], *, ordered: bool = False, told: bool = False, reason: str = ""
    ) -> None:
        """Engines are lost (``ordered``: ended by a client or with their job; ``told``: by a signal)."""
        set_state = self._sets.by_key.get(key)
        if set_state is None:
            return
        if ordered:
            set_state.doomed.update(ranks)
        elif told:
            set_state.told.update(ranks)
        self._sets.remove_ranks(set_state, ranks, reason)  # which will return their tasks
        if not set_state.incarnations:
            self.set_lost(key, "its engines are gone", blame=not (ordered or told))
        set_state.explained = True
        self._waiting.evaluate_again()

    def set_lost(self, key: int, reason: str, *, blame: bool = True) -> None:
        """A set is lost, with all its tasks."""
        set_state = self._sets.by_key.get(key)
        if set_state is None:
            return
        self._sets.remove(set_state)
        why = "lost" if blame and not set_state.explained else "taken"
        for serial in list(set_state.given):
            group = self._table.groups[serial]
            held = group.held_by(key)
            self._answered(set_state, group, len(held))
            for indices, how in zip(self.blame.split(group, held), (why, "taken"), strict=True):
                if indices:
                    self._back(set_state, group, indices, m.TasksReturned(serial, b"", -1, how, reason))
        self._waiting.evaluate_again()

    # --- the queue -------------------------------------------------------------------------------------------

    def _ready(self, group: TaskGroup) -> None:
        """A group is ready to be run."""
        group.rank = self._rank(group, group.count)
        if group.rejected:  # before the controller was started again
            self._line_up(group, group.waiting(), group.rank)
        else:
            self._waiting.add(self._need(group), group.rank, group, 0, group.count)

    def _closed(self, group: TaskGroup) -> None:
        """A group has ended."""
        self.on_closed(group)
        self.arguments.ended(group)
        self._waiting.group_ended()
        self._sets.group_closed(group.options.expected)
        self._forget(self.functions.unuse(group.options.functions))

    def _rank(self, group: TaskGroup, tasks: int) -> tuple[float, ...]:
        options = group.options
        return self._order.rank(
            Queued(next(self._arrivals), group.client, tasks, options.priority, options.expected)
        )

    def _need(self, group: TaskGroup, index: int = -1) -> Need:
        barred = frozenset(group.rejected.get(index, ())) if group.rejected else frozenset()
        strikes = group.strikes.get(index, 0) if group.strikes else 0
        options = group.options
        return Need(
            options.width, options.same_node, group.follow, group.condition, barred, strikes > 0,
            rounded_up(options.expected), strikes > 1, group.only,
        )  # fmt: skip

    def _requeue(self, group: TaskGroup, indices: list[int], rank: tuple[float, ...]) -> None:
        indices.sort()
        self._table.requeued(group, indices)
        self.arguments.wait_again(group)
        if not self.recovery.is_withheld(group):
            self._line_up(group, indices, rank)

    def _line_up(self, group: TaskGroup, indices: list[int], rank: tuple[float, ...]) -> None:
        """Queue some tasks of a group."""
        if group.strikes or group.rejected:
            by_need: dict[Need, list[int]] = {}
            for index in indices:
                by_need.setdefault(self._need(group, index), []).append(index)
        else:
            by_need = {self._need(group): indices}
        for need, theirs in by_need.items():
            for start, stop in runs(theirs):
                self._waiting.add(need, rank, group, start, stop)

    def _answered(self, set_state: SetState, group: TaskGroup, tasks: int) -> None:
        """A set has completed or returned tasks of a group."""
        if not tasks:
            return
        set_state.unanswered -= tasks
        set_state.exclusive = set_state.exclusive and set_state.in_hand > 0
        if group.is_movable:
            set_state.movable -= tasks
        set_state.given[group.serial] -= tasks
        if not set_state.given[group.serial]:
            del set_state.given[group.serial]
        self._sets.update(set_state)

    def _taken(self, set_state: SetState, group: TaskGroup, index: int) -> None:
        self._answered(set_state, group, 1)
        self.aborts.settle(group, index, False)

    # --- effects -----------------------------------------------------------------------------------------------

    def flush(self, now: float) -> list[Effect]:
        """Return the effects of all events since the last call, in order; ``now`` is in seconds."""
        for verdict, need, group, indices in self._waiting.settle(self._sets.evaluate, now):
            self._give_up(verdict, need, group, indices)
        for need, group, indices in self._waiting.expire(now):
            self._give_up(Verdict.PARK, need, group, indices)
        self._sets.time_is(now)
        if self._waiting.count and self._sets.open:
            self._share_out()
        for client, text in self._waiting.too_long(self._sets.longest_left):
            self._table.effects.append(Send(client, m.Notice(text)))
        surplus, self._look_at = self._sets.look_for_surplus(now)
        effects, self._table.effects = self._table.effects + surplus, []
        return effects

    def next_deadline(self) -> float | None:
        """Return when to call :meth:`flush` if no event occurs."""
        return min((when for when in (self._waiting.deadline(), self._look_at) if when is not None), default=None)

    def _give_up(self, verdict: Verdict, need: Need, group: TaskGroup, indices: list[int]) -> None:
        self._table.undone(group, indices, *sentence(verdict, need, group.options.label, group.last_refusal))

    def _share_out(self) -> None:
        """Give waiting tasks to idle engines if these suffice, else to sets in proportion to their windows."""
        places = self._sets
        sets = list(places.open.values())
        if self._waiting.count < len(sets):
            wanted = {set_state.key: 1 for set_state in sets if set_state.idle}
        else:
            rooms = {set_state.key: set_state.idle for set_state in sets}
            if self._waiting.count > sum(rooms.values()):
                rooms = {set_state.key: set_state.free for set_state in sets}
            total, tasks = sum(rooms.values()), self._waiting.count
            wanted = {key: min(room, -(-tasks * room // total)) for key, room in rooms.items() if room}
        for set_state in sets:
            if not self._waiting.count:
                return
            self._give(set_state, wanted.get(set_state.key, 0))
        for set_state in sets:
            if not self._waiting.count:
                return
            self._give(set_state, set_state.free)

    def _give(self, set_state: SetState, room: int) -> None:
        for piece in self._waiting.take(set_state, room):
            self._give_piece(set_state, piece)

    def _give_piece(self, state: SetState, piece: QueueSlice) -> None:
        group, start, stop, *_, sole = piece
        effects = self._table.effects
        try:
            message = self.arguments.message(state.key, piece, self._order.newest_first)
        except JournalDamaged as error:
            self._table.undone(group, group.waiting(), "JournalDamaged", str(error))
            return
        pieces = self.functions.lacking(state.functions, group.options.functions)
        effects += [*(Send(state.key, *piece) for piece in pieces), message]
        group.give(state.key, start, stop)
        self.arguments.given(group)
        tasks = stop - start
        self._table.given(tasks)
        state.unanswered += tasks
        state.movable += tasks if group.is_movable else 0
        state.given[group.serial] = state.given.get(group.serial, 0) + tasks
        state.exclusive = sole
        # A set that got tasks comes last the next time.
        self._sets.open.pop(state.key, None)
        self._sets.update(state)
