"""The queue of the task farm: ranges of tasks, by what they need (no I/O).

Tasks with the same need wait in one queue, a heap. A second heap has the first of each queue, so that the first
task that a set may run is found without checking all others. Cancelled tasks stay in their range, and are skipped
later.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ... import limits
from .groups import TaskGroup
from .order import Rank
from .sets import Need, SetState, Verdict


class Range(NamedTuple):
    """Tasks ``start`` to ``stop`` of a group; sorted by the first fields."""

    rank: Rank
    serial: int
    start: int
    stop: int
    group: TaskGroup


class QueueSlice(NamedTuple):
    """Tasks for a set, and the ranks that may run them ([] for any).

    ``alone``: no other task on the rank; ``sole``: none in the set.
    """

    group: TaskGroup
    start: int
    stop: int
    ranks: list[int]
    alone: bool
    sole: bool


class _NeedQueue:
    __slots__ = ("heap", "need", "parked", "told")

    def __init__(self, need: Need) -> None:
        self.need = need
        self.heap: list[Range] = []
        self.parked: list[tuple[float, Range]] = []
        self.told = False


class TaskQueue:
    """All tasks that wait for an engine.

    Args:
        newest_first: whether a range is taken from its end.
    """

    def __init__(self, newest_first: bool = False) -> None:
        self._newest_first = newest_first
        self._queues: dict[Need, _NeedQueue] = {}
        self._heads: list[tuple[Range, Need]] = []
        self._unjudged: dict[Need, None] = {}
        self._paused: dict[int, list[tuple[Need, Range]]] = {}
        """Paused clients, and their ranges that were due."""
        self._ended = 0
        self._tidy_after = 1000
        self.count = 0
        """Number of queued tasks that are not parked, including cancelled ones that were not skipped yet."""

    def add(self, need: Need, rank: Rank, group: TaskGroup, start: int, stop: int) -> None:
        """Add tasks to the queue."""
        queue = self._queues.get(need)
        if queue is None:
            queue = self._queues[need] = _NeedQueue(need)
            if need.condition is not None:
                need.condition.needs.add(need)
        self._push(queue, Range(rank, group.serial, start, stop, group))
        if not need.is_plain:
            self._unjudged[need] = None

    def _push(self, queue: _NeedQueue, item: Range) -> None:
        self.count += item.stop - item.start
        heapq.heappush(queue.heap, item)
        if queue.heap[0] is item:
            heapq.heappush(self._heads, (item, queue.need))

    def _pop(self, queue: _NeedQueue) -> Range:
        item = heapq.heappop(queue.heap)
        self.count -= item.stop - item.start
        return item

    # --- who can run it ------------------------------------------------------------------------------------

    def evaluate_again(self, needs: Iterable[Need] | None = None) -> None:
        """Engines or properties have changed: evaluate these needs again (None: all)."""
        self._unjudged.update((need, None) for need in (self._queues if needs is None else needs))

    def settle(
        self, evaluate: Callable[[Need], Verdict], now: float
    ) -> list[tuple[Verdict, Need, TaskGroup, list[int]]]:
        """Park tasks that no engine can run, and unpark others; return the tasks that can never run."""
        ended: list[tuple[Verdict, Need, TaskGroup, list[int]]] = []
        unjudged, self._unjudged = self._unjudged, {}
        for need in unjudged:
            queue = self._queues.get(need)
            if queue is None:
                continue
            verdict = evaluate(need)
            if verdict is Verdict.OPEN:
                parked, queue.parked = queue.parked, []
                for _, item in parked:
                    self._push(queue, item)
            elif verdict is Verdict.PARK:
                while queue.heap:
                    queue.parked.append((now + limits.UNSCHEDULABLE_AFTER, self._pop(queue)))
            else:
                while queue.heap:
                    queue.parked.append((now, self._pop(queue)))
                ended += [(verdict, need, item.group, _left(item)) for _, item in queue.parked]
                queue.parked = []
                self._drop_if_empty(queue)
        return ended

    def deadline(self) -> float | None:
        """When the first parked task fails."""
        return min((queue.parked[0][0] for queue in self._queues.values() if queue.parked), default=None)

    def expire(self, now: float) -> Iterator[tuple[Need, TaskGroup, list[int]]]:
        """Remove and yield the tasks that were parked for too long."""
        for queue in [queue for queue in self._queues.values() if queue.parked and queue.parked[0][0] <= now]:
            while queue.parked and queue.parked[0][0] <= now:
                item = queue.parked.pop(0)[1]
                yield queue.need, item.group, _left(item)
            self._drop_if_empty(queue)

    def too_long(self, left: float) -> Iterator[tuple[int, str]]:
        """Yield clients and texts, once, for tasks that take longer than the ``left`` seconds of any set."""
        for queue in self._queues.values() if left < math.inf else ():
            if queue.need.expected > left and queue.heap and not queue.told:
                queue.told = True
                group = queue.heap[0].group
                takes = f"{group.options.label}, expected to take {group.options.expected:.0f} s,"
                yield group.client, f"{takes} waits for other engines: the jobs of the present ones end before"

    # --- paused clients --------------------------------------------------------------------------------------

    def pause(self, client: int) -> None:
        """Give no tasks of this client."""
        self._paused.setdefault(client, [])

    def resume(self, client: int) -> None:
        """Give its tasks again."""
        for need, item in self._paused.pop(client, ()):
            if item.group.unfinished:
                self.add(need, item.rank, item.group, item.start, item.stop)

    # --- giving --------------------------------------------------------------------------------------------

    def take(self, set_state: SetState, room: int) -> Iterator[QueueSlice]:
        """Yield the next tasks for a set, at most ``room``. Each must be given before the next is requested."""
        passed_over = []
        while room > 0 and self._heads:
            item, need = self._heads[0]
            queue = self._queues.get(need)
            if queue is None or not queue.heap or queue.heap[0] is not item:
                heapq.heappop(self._heads)
                continue
            if item.group.client in self._paused:
                self._set_aside(queue)
                continue
            ranks = need.ranks_now(set_state)
            if ranks is None:
                passed_over.append(heapq.heappop(self._heads))
                continue
            only_one = need.sole or (need.alone and set_state.is_single)
            if only_one and set_state.unanswered:
                break  # it gets this one when it has no other
            heapq.heappop(self._heads)
            start, stop = self._cut(queue, 1 if only_one else room)
            if queue.heap:
                heapq.heappush(self._heads, (queue.heap[0], need))
            else:
                self._drop_if_empty(queue)
            if stop > start:
                room = 0 if only_one else room - (stop - start)
                yield QueueSlice(item.group, start, stop, ranks, need.alone, only_one)
        for head in passed_over:
            heapq.heappush(self._heads, head)

    def _set_aside(self, queue: _NeedQueue) -> None:
        """Set the first range of a queue aside until its client is resumed."""
        heapq.heappop(self._heads)
        item = self._pop(queue)
        self._paused[item.group.client].append((queue.need, item))
        if queue.heap:
            heapq.heappush(self._heads, (queue.heap[0], queue.need))
        else:
            self._drop_if_empty(queue)

    def _cut(self, queue: _NeedQueue, room: int) -> tuple[int, int]:
        """Remove up to ``room`` tasks from the first range of a queue; empty if they were cancelled."""
        item = self._pop(queue)
        start, stop = item.start, item.stop
        if not self._newest_first:
            first, end = item.group.next_waiting(start, stop)
            end = min(end, first + room)
            rest = (end, stop)
        else:
            end = stop
            while end > start and item.group.states[end - 1]:
                end -= 1
            first = end
            while first > start and end - first < room and not item.group.states[first - 1]:
                first -= 1
            rest = (start, first)
        if rest[0] < rest[1]:
            heapq.heappush(queue.heap, Range(item.rank, item.serial, *rest, item.group))
            self.count += rest[1] - rest[0]
        return first, end

    def _drop_if_empty(self, queue: _NeedQueue) -> None:
        if not queue.heap and not queue.parked:
            self._queues.pop(queue.need, None)
            if queue.need.condition is not None:
                queue.need.condition.needs.discard(queue.need)

    # --- cleanup -------------------------------------------------------------------------------------------

    def group_ended(self) -> None:
        """A group has ended: now and then, remove ranges of cancelled tasks."""
        self._ended += 1
        if self._ended < self._tidy_after:
            return
        for queue in list(self._queues.values()):
            self.count -= sum(item.stop - item.start for item in queue.heap if not item.group.unfinished)
            queue.heap = [item for item in queue.heap if item.group.unfinished]
            heapq.heapify(queue.heap)
            queue.parked = [(when, item) for when, item in queue.parked if item.group.unfinished]
            self._drop_if_empty(queue)
        self._heads = [(queue.heap[0], queue.need) for queue in self._queues.values() if queue.heap]
        heapq.heapify(self._heads)
        left = sum(len(queue.heap) + len(queue.parked) for queue in self._queues.values())
        self._ended, self._tidy_after = 0, max(1000, left)


def _left(item: Range) -> list[int]:
    """Return the tasks of a range that still wait."""
    return [index for index in range(item.start, item.stop) if not item.group.states[index]]
