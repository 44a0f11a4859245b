"""Tasks that several ranks run together (no I/O).

The rules.

* Such a task begins when enough ranks are idle: one message sends it to them, with the number of their
  communicator.
* If it is the next task and too few ranks are idle, ranks are *held* for it: those that will be idle together
  first. A held rank gets only tasks that will end before the last of the others is idle. Only one task holds
  ranks; later ones begin earlier if enough other ranks are idle (backfilling).
* The choice of held ranks is revised from time to time, since run times are unknown; at growing intervals, so that
  the task will begin.
* When a part fails, or is lost, the other ranks are told to leave. The task is answered when all of them have, so
  that its ranks are usable again.
* When all parts have succeeded, the first rank delivers its result: from then on it is a task of that rank like
  any other.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ... import limits
from ...errors import LauncherError, PeerError
from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from ...protocol.operations import Failed
from ..session.failures import failed
from .chunks import GroupShare, GroupShares
from .communicators import CommunicatorSerials, Ranks, without
from .effects import Down, Up
from .gangtask import GangTask
from .ranktable import RankState, RankTable

_THINK_AGAIN = 0.1
"""Seconds after which other ranks may be held for a task; doubled each time."""

_SCAN = 64
"""Number of tasks to consider behind the one that holds ranks."""


class _Hold(NamedTuple):
    task: GangTask
    ranks: frozenset[int]
    awaited: set[int]
    """Those of them that have been busy since they were chosen."""
    since: float
    think_again: float


_NONE: frozenset[int] = frozenset()


_NOT_JOINED = "the engines of this set share no communicator: they were not started by an MPI launcher"
_ONE_DIED = (
    "a rank of this set has died, and MPI forms no communicators in it any more: start another set for tasks on "
    "several ranks"
)


class GangTasks:
    """All gang tasks of a set.

    Args:
        joined: whether the ranks of the set share a communicator.
        survives: whether MPI makes communicators for the others when a rank has died.
        out: list to which messages are appended.
    """

    def __init__(
        self, rank_table: RankTable, groups: GroupShares, joined: bool, survives: bool, out: list[Down | Up]
    ) -> None:
        self._rank_table = rank_table
        self._groups = groups
        self._hindrance = "" if joined else _NOT_JOINED
        self._survives = survives
        self._has_lost = False
        self._out = out
        self._communicators = CommunicatorSerials()
        self._waiting: list[GangTask] = []
        self._running: dict[tuple[int, int], GangTask] = {}
        self._hold: _Hold | None = None

    @property
    def waiting(self) -> int:
        """Number of waiting tasks."""
        return len(self._waiting)

    @property
    def held(self) -> frozenset[int]:
        """Ranks that get no tasks, except short ones: see :meth:`spare_time`."""
        return _NONE if self._hold is None else self._hold.ranks

    @property
    def next_deadline(self) -> float:
        """When to call :meth:`place` if no event occurs."""
        return math.inf if self._hold is None else self._hold.think_again

    # --- coming and going ------------------------------------------------------------------------------------

    def rank_died(self) -> None:
        """A process of the set has died, and others have not."""
        self._has_lost = True
        if not self._survives:
            self._hindrance = self._hindrance or _ONE_DIED

    def ranks_changed(self) -> None:
        """Ranks were added or lost."""
        self._communicators.set_ranks({number: state.node for number, state in self._rank_table.states.items()})
        if self._hold is not None and not self._rank_table.states.keys() >= self._hold.ranks:
            self._hold = None
        for task in self._waiting[:]:
            self._give_up(task)

    def add(self, task: GangTask) -> None:
        """Add a task."""
        task.group.wide += 1
        self._waiting.append(task)
        self._give_up(task)

    def _give_up(self, task: GangTask) -> bool:
        """Return a task that can never run here to the controller; return whether it was one."""
        width, same_node = task.group.options.width, task.group.options.same_node
        widest = self._communicators.widest(same_node)
        text = ""
        if self._hindrance:
            text = self._hindrance
        elif width > widest:
            text = f"it needs {width} ranks{' of one node' * same_node}, and the set has {widest}"
        if text:
            self._withdraw([task])
            self._out.append(task.returned(-1, "refused", text))
        elif self._communicators.are_used_up(width, same_node):
            self._withdraw([task])
            error = LauncherError(
                f"The engines of this set have used up their communicators for tasks on several ranks: each may"
                f" make {limits.MAX_ABANDONED_COMMUNICATORS}, since MPI has not many more. Restart"
                f" the engines, and submit the task ({width} ranks) again."
            )
            failure, body = failed(error)
            self._out.append(self._failure(task, min(self._rank_table.states), packed.pack_failure(failure, body)))
            text = str(error)
        return bool(text)

    def _withdraw(self, tasks: Iterable[GangTask]) -> None:
        """Remove waiting tasks."""
        gone = set(tasks)
        self._waiting = [task for task in self._waiting if task not in gone]
        for task in gone:
            self._closed(task)
        if self._hold is not None and self._hold.task in gone:
            self._release()

    def _closed(self, task: GangTask) -> None:
        task.group.wide -= 1
        self._groups.tidy(task.group)

    def cut(self, most: int) -> list[tuple[GroupShare, array[int]]]:
        """Remove and return up to ``most`` waiting tasks, the latest first."""
        tasks = self._waiting[max(0, len(self._waiting) - most) :]
        self._withdraw(tasks)
        return [(task.group, array("I", [task.index])) for task in tasks]

    def leave(self, group: GroupShare) -> list[tuple[GroupShare, array[int]]]:
        """Remove and return all waiting tasks of a group."""
        tasks = [task for task in self._waiting if task.group is group]
        self._withdraw(tasks)
        return [(group, array("I", [task.index])) for task in tasks]

    def cancel(self, group: GroupShare, indices: set[int]) -> list[int]:
        """Remove tasks that are cancelled; return those that waited here."""
        tasks = [task for task in self._waiting if task.group is group and task.index in indices]
        self._withdraw(tasks)
        return [task.index for task in tasks]

    def interrupt(self, group: GroupShare, indices: set[int], interrupt: bool) -> list[int]:
        """Cancel running tasks, or report that they run; return which these are."""
        tasks = [task for index in indices if (task := self._running.get((group.serial, index))) is not None]
        for task in tasks if interrupt else []:
            if task.echo is None:  # its root drops its result, so it cannot succeed any more
                failure, body = failed(PeerError("The task was cancelled."))
                task.echo = self._failure(task, task.ranks[0], packed.pack_failure(failure, body))
            self._leave(task, task.ranks, "The task was cancelled.")
            awaited = sorted(task.awaited)
            self._out.append(Down(awaited, m.CancelTasks(group.serial, packed.pack([task.index]), True, awaited)))
        return [task.index for task in tasks]

    # --- beginning -------------------------------------------------------------------------------------------

    def place(self, now: float, before: float) -> float:
        """Start all tasks from before ``before`` that can start; hold ranks for the next one.

        Returns:
            The arrival time of the first task that was not considered; infinite if there is none.
        """
        due = bisect_left(self._waiting, before, key=lambda task: task.arrival)
        limit = self._waiting[due].arrival if due < len(self._waiting) else math.inf
        self._think_again(now)
        holder: GangTask | None = None
        idle = list(self._rank_table.idle)
        for task in self._waiting[: min(due, _SCAN)]:
            if not idle and holder is not None:
                break
            options = task.group.options
            ranks = self._communicators.pick(options.width, options.same_node, idle)
            if ranks is not None:
                self._begin(task, ranks, now)
                idle = without(idle, ranks)
            elif not self._give_up(task) and holder is None and self._hold_for(task, now):
                holder = task
                idle = without(idle, self.held)
        if holder is None:
            self._release()
        return limit

    def _begin(self, task: GangTask, ranks: Ranks, now: float) -> None:
        self._waiting.remove(task)
        if self._hold is not None and self._hold.task is task:
            self._release()
        task.ranks, task.began = ranks, now
        task.awaited = set(ranks)
        self._running[task.group.serial, task.index] = task
        for state in self._rank_table.get(ranks):
            state.task = task
            self._rank_table.refresh(state)
        number, numbers = self._communicators.number(ranks), list(ranks)
        message = m.RunTogether(
            task.group.serial, task.index, task.group.options, numbers, numbers, number, task.large, task.sizes,
            self._has_lost,
        )  # fmt: skip
        self._out.append(Down(numbers, message, task.body))
        task.body = ()

    def _hold_for(self, task: GangTask, now: float) -> bool:
        """Hold ranks for a task; return False if the set has not enough ranks that accept tasks."""
        if self._hold is not None and self._hold.task is task:
            return True
        return self._choose(task, now, now)

    def _choose(self, task: GangTask, now: float, since: float) -> bool:
        self._release()
        options = task.group.options
        until = {s.number: s.busy_until(now) for s in self._rank_table.states.values() if not s.out}
        ranks = self._communicators.reserve(options.width, options.same_node, until)
        if ranks is None:
            return False
        awaited = {rank for rank in ranks if rank not in self._rank_table.idle}
        again = now + max(_THINK_AGAIN, now - since)
        self._hold = _Hold(task, frozenset(ranks), awaited, since, again)
        return True

    def _think_again(self, now: float) -> None:
        """Hold other ranks if a held one will not become free, or if it is time to revise the choice."""
        hold = self._hold
        if hold is None:
            return
        states = self._rank_table.get(hold.ranks)
        if now >= hold.think_again or any(state.out for state in states):
            self._choose(hold.task, now, hold.since)
        else:
            hold.awaited.difference_update([s.number for s in states if s.number in self._rank_table.idle])

    def _release(self) -> None:
        if self._hold is not None:
            held, self._hold = self._hold.ranks, None
            for state in self._rank_table.get(held):
                self._rank_table.refresh(state)

    def spare_time(self, now: float) -> float:
        """Return for how many seconds idle held ranks would only wait."""
        if self._hold is None:
            return 0.0
        awaited = self._rank_table.get(self._hold.awaited)
        return max((state.busy_until(now) - now for state in awaited), default=0.0)

    def used_meanwhile(self, rank: int) -> None:
        """A held rank was given a short task, for which the gang task need not wait."""
        if self._hold is not None:
            self._hold.awaited.discard(rank)

    # --- running and ending ----------------------------------------------------------------------------------

    def _leave(self, task: GangTask, ranks: Iterable[int], text: str) -> None:
        """Tell ranks to leave a task, once: those whose part runs, and the root, which may have a result."""
        if not task.leaving:
            task.leaving = True
            there = [rank for rank in ranks if rank in self._rank_table.states]
            told = [rank for rank in there if rank in task.awaited or rank == task.ranks[0]]
            if told:
                self._out.append(Down(told, m.LeaveTogether(task.group.serial, task.index, told, text)))

    def want_body(self, message: m.WantTaskBody) -> bool:
        """Ranks wait for a body; return whether it is a gang task's."""
        task = self._running.get((message.group, message.index))
        if task is None:
            return False
        before = len(task.asked)
        task.asked.update(task.awaited.intersection(message.ranks))
        if len(task.asked) == len(task.ranks) > before and not task.leaving and not task.group.stale:
            self._out.append(Up(m.WantTaskBody(message.group, message.index, list(task.ranks))))
        return True

    def ended(self, message: m.TogetherEnded, body: Sequence[Buffer], now: float) -> None:
        """A rank's part has ended."""
        task = self._running.get((message.group, message.index))
        if task is None or message.rank not in task.awaited:
            return
        task.busy = max(task.busy, message.busy)
        if not message.ok:
            payload, kind, text = self._described(task, message.rank, body)
            report = self._failure(task, message.rank, payload)
            if kind == PeerError.__name__:
                task.echo = task.echo or report
            else:
                task.report = task.report or report
            where = f"Rank {task.ranks.index(message.rank)} of the task (engine rank {message.rank})"
            self._leave(task, without(task.ranks, [message.rank]), f"{where} raised {kind}: {text}")
        self._part_ended(task, message.rank, now)

    @staticmethod
    def _described(task: GangTask, rank: int, body: Sequence[Buffer]) -> tuple[bytes, str, str]:
        """Return the failure of one part as that of the task, and the exception's name and text."""
        prefix = f"[rank {task.ranks.index(rank)} of the task, engine rank {rank}] "
        try:
            failure, rest = packed.unpack_failure(body[0] if len(body) == 1 else b"".join(body))
        except (ValueError, msgspec.DecodeError):
            failure, rest = Failed("Exception", "its description did not arrive", ""), []
        told = Failed(failure.type_name, prefix + failure.text, prefix + failure.traceback, failure.executed)
        first_line = failure.text.partition("\n")[0][:200]
        return packed.pack_failure(told, rest), failure.type_name, first_line

    @staticmethod
    def _failure(task: GangTask, rank: int, payload: bytes) -> Up:
        one, none = packed.pack([task.index]), packed.pack([0])
        length, size = packed.pack([len(payload)]), [len(payload)]
        return Up(m.TaskResults(task.group.serial, rank, one, none, length, task.busy, size), [payload])

    def returned(self, message: m.TasksReturned, index: int, now: float) -> None:
        """A rank has not run its part of a gang task, if it is one."""
        task = self._running.get((message.group, index))
        if task is None or message.rank not in task.awaited or message.why == "running":
            return
        task.report = task.report or task.returned(message.rank, message.why, message.text)
        where = f"Rank {task.ranks.index(message.rank)} of the task (engine rank {message.rank})"
        self._leave(task, without(task.ranks, [message.rank]), f"{where} did not run it: {message.why}.")
        self._part_ended(task, message.rank, now)

    def lost(self, state: RankState, now: float) -> None:
        """A rank is lost."""
        task = state.task
        if task is not None:
            task.report = task.report or task.returned(state.number, "lost")
            where = f"Rank {task.ranks.index(state.number)} of the task (engine rank {state.number})"
            self._leave(task, without(task.ranks, [state.number]), f"{where} is lost: its process has ended.")
            self._part_ended(task, state.number, now)

    def _part_ended(self, task: GangTask, rank: int, now: float) -> None:
        task.awaited.discard(rank)
        if rank != task.ranks[0]:
            self._free(rank)  # the root keeps its result, and stays occupied, until all have ended
        if not task.awaited:
            self._ended(task, now)

    def _free(self, rank: int) -> None:
        for state in self._rank_table.get([rank]):
            state.task = None
            self._rank_table.refresh(state)

    def _ended(self, task: GangTask, now: float) -> None:
        """All parts have ended."""
        group, root = task.group, task.ranks[0]
        del self._running[group.serial, task.index]
        self._free(root)
        if task.has_failed:
            self._communicators.spoil(task.ranks)
            report = task.report or task.echo
            if report is not None and not group.stale:
                self._out.append(report)
        elif group.stale:
            self._leave(task, [root], "Its controller has disconnected.")
        else:
            group.runtime.learn(task.busy, 1)
            deliver = m.DeliverTogether(group.serial, task.index, [root])
            for state in self._rank_table.get([root]):
                self._rank_table.put(state, group, [task.index], True, now)
            self._out.append(Down([root], deliver))
        self._closed(task)
