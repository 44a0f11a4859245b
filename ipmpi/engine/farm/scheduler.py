"""Which rank of a set runs which task (no I/O; the time is an argument).

The controller gives a set as many tasks as it requests; its root agent distributes them among the ranks.

The rules.

* Tasks are assigned in the order of arrival, in batches that take a rank about ``runtimes.BATCH``
  seconds. A rank gets its next batch before it has ended the last one, unless tasks take so long that a
  second one would only wait; while run times are unknown, each rank gets one.
* A rank that has a command, or is reserved, gets nothing.
* Tasks that wait at a rank behind a long one are taken back, so that others can run them. They are returned to the
  controller, which assigns them again: so tasks are counted, cancelled and ordered in one place.
* Tasks that a set cannot run now, since all its ranks are reserved or have long commands, are returned as well.
* So are waiting tasks that are expected to end after the end of the job.
* Every task is answered once: by a result, or by TasksReturned.

Tasks on several ranks: see :mod:`ipmpi.engine.farm.gangs`. Methods take events and change the state;
:meth:`SetScheduler.decide` says what is to be sent.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence

from ...protocol import messages as m, packed
from ...protocol.frames import Buffer, size_of
from .chunks import GroupShare, GroupShares, SetQueue, TaskChunk
from .effects import Down, Up
from .gangs import GangTasks
from .gangtask import GangTask
from .latest import LatestStarts
from .ranktable import RankState, RankTable, started
from .runtimes import BATCH, BRIEF, LARGEST_WINDOW, LONG, RuntimeEstimate, batch_size, window_size

__all__ = ["Down", "SetScheduler", "Up"]

_SLOW = 0.020
"""A rank that has ended no task for this time returns half of its queue, if another rank is idle."""

_STUCK = 0.100
"""After this time it returns all of its queue. A command that takes this time counts as a long one."""

_WORTH = 0.005
"""Least seconds of work to take back from a rank that is not slow."""

_TOO_MUCH = 0.100
"""Seconds of work per rank; more is returned to the controller, for other sets."""

_ASK_AGAIN = 0.020
"""Seconds until the same rank is asked again."""

_LOOK_AGAIN = 0.005
"""Seconds between two checks of all ranks."""


class SetScheduler:
    """The tasks of one set.

    Args:
        joined: whether the ranks share a communicator, so that they can run tasks together.
        survives: whether those that are left can still do so when one has died.
    """

    def __init__(self, joined: bool, survives: bool = False) -> None:
        self._out: list[Down | Up] = []
        self._rank_table = RankTable()
        self._groups = GroupShares()
        self._waiting = SetQueue()
        self._gangs = GangTasks(self._rank_table, self._groups, joined, survives, self._out)
        self._arrivals = 0
        self._runtime = RuntimeEstimate()
        """The estimate for all recent tasks."""
        self._payload = 0.0
        """Mean bytes of a task."""
        self._window = 0
        """The window that was sent to the controller."""
        self._beyond = 0
        """Enlargement of the window, because idle ranks cannot run the tasks that wait."""
        self._look_at = math.inf
        self._looked = -math.inf
        self._latest = LatestStarts()

    # --- ranks -----------------------------------------------------------------------------------------------

    def add_ranks(self, nodes: Mapping[int, int]) -> None:
        """Add ranks, with the leader of the node of each."""
        self._rank_table.add(nodes)
        self._gangs.ranks_changed()

    def remove_ranks(self, ranks: Iterable[int], now: float, *, died: bool = False, ordered: bool = False) -> None:
        """Remove ranks that are lost or were ended, and return their tasks.

        ``died``: their processes have ended. ``ordered``: they were told to, so no task is suspected.
        """
        if died:
            self._gangs.rank_died()
        gone = [state for number in ranks if (state := self._rank_table.remove(number)) is not None]
        for state in gone:
            for group, began, rest in state.parted():
                del group.holders[state.number]
                # Only tasks that may have run are suspected.
                self._return(group, began, state.number, "ended" if ordered else "lost")
                self._return(group, rest, -1, "taken")
            for group, left in self._waiting.remove_rank(state.number):
                self._return(group, left, -1, "taken")
            self._gangs.lost(state, now)
        if gone:
            self._gangs.ranks_changed()

    def command_given(self, ranks: Iterable[int], now: float) -> None:
        """Ranks have been sent a command."""
        for state in self._rank_table.get(ranks):
            state.commands += 1
            self._rank_table.refresh(state)
            if state.commanded is None:
                state.commanded = now
                self._watch(now + _STUCK)

    @property
    def awaits_ranks(self) -> bool:
        """Whether commands are to be decided on at once: there are tasks, or the window is reduced."""
        return bool(self._groups) or self._rank_table.available < len(self._rank_table.states)

    def command_answered(self, ranks: Iterable[int], now: float) -> None:
        """Ranks have replied to a command."""
        for state in self._rank_table.get(ranks):
            state.commands = max(0, state.commands - 1)
            if not state.commands:
                state.commanded, state.busy_for_long = None, False
                state.progress = now
                self._rank_table.refresh(state)

    def reserve(self, ranks: Iterable[int], on: bool, now: float) -> None:
        """Start no more tasks on these ranks; ``on`` False: start tasks again."""
        for state in self._rank_table.get(ranks):
            state.reserved = on
            if on and state.count:
                self._ask_back(state, now)
            self._rank_table.refresh(state)

    # --- from the controller ---------------------------------------------------------------------------------

    def reset(self, keep: bool = False) -> dict[int, set[int]]:
        """The controller was restarted: drop waiting tasks, and unless ``keep`` the results of running ones.

        Returns:
            The tasks that ranks have, by group. Those that have not begun will be returned by them.
        """
        self._out.clear()
        if not keep:
            self._groups.make_stale()
        for group, _ in self._all_waiting():
            self._groups.tidy(group)
        for state in self._rank_table.states.values():
            state.reserved = False
            self._rank_table.refresh(state)
            for group in state.items:
                message = m.CancelTasks(group.serial, packed.pack(state.items[group]), False, [state.number])
                self._out.append(Down([state.number], message))
        self._window = self._beyond = 0
        return self._rank_table.tasks()

    def give(self, message: m.GiveTasks, body: Sequence[Buffer], now: float) -> None:
        """Add tasks.

        Raises:
            RemoteProtocolError: the message is inconsistent.
        """
        self._arrivals += 1
        group = self._groups.open(message.group, message.options)
        chunk = TaskChunk(group, message, body, self._arrivals)
        if chunk.waiting:
            self._payload += 0.2 * (size_of(body) / chunk.waiting - self._payload)
        self._latest.note(group)
        if message.options.width <= 1:
            self._watch(now + _STUCK)
            ranks = self._rank_table.states.keys() & set(message.ranks)
            if ranks or not message.ranks:
                self._waiting.add(chunk, ranks)
            else:
                self._return(group, chunk.indices(), -1, "taken")
            return
        group.wide += 1  # keeps the group while tasks are added that may be refused at once
        for position, index in enumerate(chunk.indices()):
            payload = chunk.payload(position)
            sizes = message.sizes if chunk.is_large else [size_of(payload)]
            self._gangs.add(GangTask(group, index, self._arrivals, chunk.is_large, sizes, payload))
        group.wide -= 1
        self._groups.tidy(group)

    def job_ends(self, ends_at: float) -> None:
        """Set the end of the job."""
        self._latest.ends_at = ends_at

    def _return_late(self, now: float) -> None:
        """Return waiting tasks that would not end before the job."""
        for group in self._latest.late(self._groups.all(), now):
            for _, indices in [*self._waiting.leave(list(group.chunks)), *self._gangs.leave(group)]:
                self._return(group, indices, -1, "taken")

    def take_back(self, message: m.TakeBackTasks, now: float) -> None:
        """Return tasks that have not started: the latest first, then those that wait at ranks."""
        count = message.count
        if not message.ranks:
            for group, indices in [*self._waiting.cut(count), *self._gangs.cut(count)]:
                count -= len(indices)
                self._return(group, indices, -1, "taken")
        asked = set(message.ranks) if message.ranks else self._rank_table.many
        states = [state for state in self._rank_table.get(asked) if state.count > 1]
        for state in sorted(states, key=lambda state: state.count, reverse=True):
            if count <= 0:
                break
            wanted = min(count, state.count - 1)
            count -= wanted
            self._ask_back(state, now, wanted)

    def cancel(self, message: m.CancelTasks, now: float) -> None:  # noqa: ARG002 - like its neighbours
        """Cancel waiting tasks; with ``interrupt``, also interrupt running ones."""
        group = self._groups.get(message.group)
        if group is None:
            return
        indices = set(packed.unpack(message.indices))
        found = self._waiting.cancel(group, indices) + self._gangs.cancel(group, indices)
        self._return(group, found, -1, "cancelled")
        running = self._gangs.interrupt(group, indices, message.interrupt)
        if running and not message.interrupt:
            self._out.append(Up(m.TasksReturned(group.serial, packed.pack(running), -1, "running")))
        for rank, held in group.holders.items():
            there = held & indices
            if there:
                order = m.CancelTasks(group.serial, packed.pack(sorted(there)), message.interrupt, [rank])
                self._out.append(Down([rank], order))

    def _return(self, group: GroupShare, indices: Collection[int], rank: int, why: str) -> None:
        """Report tasks that were removed without being run."""
        if indices and not group.stale:
            self._out.append(Up(m.TasksReturned(group.serial, packed.pack(indices), rank, why)))
        self._groups.tidy(group)

    # --- from ranks ------------------------------------------------------------------------------------------

    def results(self, message: m.TaskResults, body: Sequence[Buffer], now: float) -> None:
        """Tasks have ended; passed up."""
        if self._done(message.group, message.rank, packed.unpack(message.indices), message.busy, now):
            self._out.append(Up(message, body))

    def result(self, message: m.LargeTaskResult, now: float) -> None:
        """A task has ended with a large result, which the caller streams up."""
        self._done(message.group, message.rank, [message.index], message.busy, now)

    def _done(self, serial: int, rank: int, indices: Collection[int], busy: float, now: float) -> bool:
        """Tasks have ended on a rank; return whether to report it to the controller."""
        group, state = self._groups.get(serial), self._rank_table.states.get(rank)
        if group is None or state is None or not self._rank_table.drop(state, group, indices):
            return False
        if indices and group.options.width <= 1:
            ranks = self._ranks
            group.runtime.learn(busy, len(indices), ranks)
            self._runtime.learn(busy, len(indices), ranks)
        state.progress = now
        self._groups.tidy(group)
        return not group.stale

    def returned(self, message: m.TasksReturned, now: float) -> None:
        """A rank has not run tasks, or (why: 'running') cannot stop them; passed up."""
        group, state = self._groups.get(message.group), self._rank_table.states.get(message.rank)
        if group is None or state is None:
            return
        indices = packed.unpack(message.indices)
        if message.why == "running":
            if not group.stale and indices:
                self._out.append(Up(message))
            return
        if state.task is not None and state.task.group is group:
            for index in indices:
                self._gangs.returned(message, index, now)
        if indices and self._rank_table.drop(state, group, indices):
            if message.why != "taken":
                state.progress = now
            if not group.stale:
                self._out.append(Up(message))
            self._groups.tidy(group)

    def want_body(self, message: m.WantTaskBody, now: float) -> None:  # noqa: ARG002 - like its neighbours
        """Ranks wait for the body of a task; passed up once, when all of its ranks do."""
        group = self._groups.get(message.group)
        if self._gangs.want_body(message) or group is None or group.stale:
            return
        if any(message.index in group.holders.get(rank, ()) for rank in message.ranks):
            self._out.append(Up(message))

    def together_ended(self, message: m.TogetherEnded, body: Sequence[Buffer], now: float) -> None:
        """A rank's part of a task has ended."""
        self._gangs.ended(message, body, now)

    def held(self, message: m.TaskHolds, now: float) -> None:
        """A rank does not return from a task, or has returned; passed up."""
        for state in self._rank_table.get([message.rank]):
            state.is_held, state.progress = bool(message.label), now
            if state.is_held and state.count:
                self._ask_back(state, now)
            self._rank_table.refresh(state)
        self._out.append(Up(message))

    # --- deciding --------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Down | Up]:
        """Return the messages to send; call it after each event, and at :meth:`next_deadline`."""
        if now >= self._latest.look_at:
            self._return_late(now)
        self._assign(now)
        spare, held = 0, self._gangs.held
        if self._rank_table.many and not self._waiting.open_count:
            spare = len(self._rank_table.idle.keys() - held) if held else len(self._rank_table.idle)
            if spare:
                self._watch(max(now, self._looked + _LOOK_AGAIN))
        if now >= self._look_at:
            self._look(now, spare)
        self._want()
        out, self._out[:] = [*started(self._out), *self._out], []
        return out

    def next_deadline(self) -> float | None:
        """Return when to call :meth:`decide` if no event occurs."""
        deadline = min(self._look_at, self._gangs.next_deadline, self._latest.look_at)
        return None if deadline == math.inf else deadline

    def _watch(self, when: float) -> None:
        self._look_at = min(self._look_at, when)

    def _assign(self, now: float) -> None:
        """Assign all tasks that can be assigned, in the order of arrival."""
        while True:
            limit = self._gangs.place(now, self._waiting.arrival) if self._gangs.waiting else math.inf
            if self._waiting.open_count or self._waiting.bound_count:
                self._feed(limit, now)
            if self._waiting.arrival < limit or limit == math.inf:
                return

    def _feed(self, limit: float, now: float) -> None:
        """Assign tasks from before ``limit``: one batch to each idle rank, then more to ranks with few."""
        rank_table, waiting = self._rank_table, self._waiting
        for number in self._idle_in_turn():
            if not waiting.open_count and not waiting.bound_count:
                return
            self._offer(rank_table.states[number], limit, now)
        again = True
        while again and rank_table.touched and (waiting.open_count or waiting.bound_count):
            again = False
            numbers = rank_table.touched if waiting.open_count else waiting.bound_ranks()
            for number in [number for number in numbers if number in rank_table.touched]:
                state = rank_table.states[number]
                if self._has_room(state, now):
                    again = self._queue(state, limit, now) or again
                else:
                    del rank_table.touched[number]

    def _idle_in_turn(self) -> list[int]:
        """Return the idle ranks, the most recently busy first, as its caches are warm."""
        rank_table, waiting = self._rank_table, self._waiting
        idle = reversed(rank_table.idle) if waiting.open_count else waiting.bound_ranks()
        return [number for number in idle if number in rank_table.idle]

    def _offer(self, state: RankState, limit: float, now: float) -> None:
        """Assign tasks to an idle rank."""
        chunk = self._waiting.first(state.number)
        if chunk is None or chunk.arrival >= limit:
            return
        seconds = chunk.group.runtime.seconds
        most = batch_size(seconds, self._waiting.count, self._ranks)
        if chunk.alone:
            most = 1
        if state.number in self._gangs.held:
            spare = self._gangs.spare_time(now)
            if seconds is None or seconds > spare:
                return
            most = min(most, int(spare / seconds))
            self._gangs.used_meanwhile(state.number)
        self._hand_out(state, chunk, most, now)

    def _has_room(self, state: RankState, now: float) -> bool:
        """Return whether a busy rank will end its tasks soon."""
        if state.number in self._gangs.held or now - state.progress > _SLOW:
            return False
        backlog = state.backlog()
        return backlog < BATCH or (state.count == 1 and backlog <= LONG)

    def _queue(self, state: RankState, limit: float, now: float) -> bool:
        """Assign more tasks to a busy rank; return whether it got any."""
        chunk = self._waiting.first(state.number)
        if chunk is None or chunk.alone or chunk.arrival >= limit:
            return False
        seconds = chunk.group.runtime.seconds
        # The last tasks go to idle ranks, unless they are very short.
        plenty = self._waiting.open_count > self._ranks or self._waiting.is_bound(chunk)
        if seconds is None or seconds > (LONG if plenty else BRIEF):
            return False
        self._hand_out(state, chunk, batch_size(seconds, self._waiting.count, self._ranks), now)
        return True

    @property
    def _ranks(self) -> int:
        return max(1, self._rank_table.available)

    def _hand_out(self, state: RankState, chunk: TaskChunk, most: int, now: float) -> None:
        piece = self._waiting.take(chunk, most, state.number)
        self._rank_table.put(state, chunk.group, piece.indices, chunk.alone, now, is_large=chunk.is_large)
        self._out.append(Down([state.number], piece.message, piece.body))
        if state.count > 1:
            self._watch(now + _STUCK)

    # --- checking assigned tasks -----------------------------------------------------------------------------

    def _look(self, now: float, spare: int) -> None:
        """Check all ranks: note long commands, and take back tasks that wait behind long ones."""
        self._looked, self._look_at = now, math.inf
        progress = -math.inf
        """When the last of all busy ranks ended a task."""
        for state in self._rank_table.states.values():
            if state.commanded is not None:
                self._look_at_command(state, state.commanded, now)
            elif state.count > 1 and not state.reserved:
                self._look_at_queue(state, now, spare)
            if state.count:
                progress = max(progress, state.progress)
        if not self._waiting.open_count or progress == -math.inf:
            return
        if now < progress + _STUCK:
            self._watch(progress + _STUCK)
        elif (self._runtime.seconds or 0.0) < now - progress:
            self._runtime.expect(now - progress)  # tasks take longer than before: reduces the window

    def _look_at_command(self, state: RankState, since: float, now: float) -> None:
        if now < since + _STUCK:
            self._watch(since + _STUCK)
        elif not state.busy_for_long:
            state.busy_for_long = True
            self._rank_table.refresh(state)
            if state.count:
                self._ask_back(state, now)

    def _look_at_queue(self, state: RankState, now: float, spare: int) -> None:
        if now < state.asked + _ASK_AGAIN:
            self._watch(state.asked + _ASK_AGAIN)
        elif now >= state.progress + _STUCK:
            self._ask_back(state, now)
        elif spare and (now >= state.progress + _SLOW or _WORTH < state.backlog() < math.inf):
            self._ask_back(state, now, -(-(state.count - 1) * spare // (spare + 1)))
        else:
            self._watch(state.progress + (_SLOW if spare else _STUCK))

    def _ask_back(self, state: RankState, now: float, tasks: int | None = None) -> None:
        """Ask a rank to return tasks that it has not started; None: all."""
        state.asked = now
        count = state.count if tasks is None else tasks
        self._out.append(Down([state.number], m.TakeBackTasks(count, [state.number])))
        self._watch(now + _STUCK)

    def _all_waiting(self) -> list[tuple[GroupShare, array[int]]]:
        """Remove and return all waiting tasks."""
        waiting = self._waiting
        open_ones, bound = waiting.cut(waiting.open_count), waiting.leave_bound()
        return [*open_ones, *bound, *self._gangs.cut(self._gangs.waiting)]

    def _want(self) -> None:
        """Send the controller the window; if the set has too many tasks, return the latest."""
        ranks = self._rank_table.available
        window = window_size(self._runtime.seconds, self._payload, ranks)
        fixed = self._waiting.bound_count + self._gangs.waiting
        if not fixed:
            self._beyond = 0
        elif self._rank_table.idle:
            self._beyond = max(self._beyond, 2 * fixed)  # idle ranks may find tasks behind these
        window = min(window + self._beyond, LARGEST_WINDOW) if ranks else 0
        told, waiting = self._window, self._waiting.open_count
        changes = window != told and not (window and abs(window - told) < 0.25 * told)
        if changes:
            self._window = window
            self._out.append(Up(m.WantTasks(window)))
        if window == 0:
            left = self._all_waiting()  # also tasks that were sent before the controller got the message
        elif changes and waiting > window and self._runtime.seconds_of(waiting) > _TOO_MUCH * ranks:
            left = self._waiting.cut(waiting - window)
        else:
            return
        for group, indices in left:
            self._return(group, indices, -1, "taken")
