"""The queues of engines at equal distances: of all, of every second one, ... (no I/O)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from .commandqueue import CommandQueue

_MANY = 256


class Lane:
    """The queues of engines whose ids leave the same remainder when they are divided by a period.

    The *place* of an engine is the quotient. Engines at consecutive places with the same commands share a queue.

    Args:
        period: what ids are divided by.
        remainder: what is left.
    """

    def __init__(self, period: int = 1, remainder: int = 0) -> None:
        self._period = period
        self._remainder = remainder
        self._starts: list[int] = []
        """The first place of each queue."""
        self._queues: list[CommandQueue] = []
        self._changed: list[range] = []
        """Places of engines whose queues may have become the same."""

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def queues(self) -> Sequence[CommandQueue]:
        """All queues, ascending."""
        return self._queues

    def ids(self, places: range) -> range:
        """Return the ids of the engines at these places."""
        period = self._period
        if period == 1:
            return places
        return range(places.start * period + self._remainder, places.stop * period + self._remainder, period)

    def _places(self, at: int) -> range:
        start = self._starts[at]
        return range(start, start + len(self._queues[at].engines))

    def look(self, place: int) -> CommandQueue | None:
        """Return the queue that has this place, perhaps together with others; None if nobody is there."""
        at = bisect_right(self._starts, place) - 1
        return self._queues[at] if at >= 0 and place in self._places(at) else None

    def each(self, runs: Sequence[range]) -> list[CommandQueue]:
        """Return the queues of these places, which they share with no others from now on."""
        self._changed += runs
        found = self._apart_already(runs)
        if found is not None:
            return found
        found = []
        if len(runs) == 1:
            self._cut(runs[0].start)
            self._cut(runs[0].stop)
        else:
            self._cut_often(sorted({edge for run in runs for edge in (run.start, run.stop)}))
        for run in runs:
            found += self._queues[bisect_left(self._starts, run.start) : bisect_left(self._starts, run.stop)]
        return found

    def _apart_already(self, runs: Sequence[range]) -> list[CommandQueue] | None:
        """Return the queues of these runs if each has one that it shares with no others, else None."""
        found = []
        for run in runs:
            at = bisect_left(self._starts, run.start)
            if at == len(self._queues) or self._places(at) != run:
                return None
            found.append(self._queues[at])
        return found

    def parts(self, run: range) -> Iterator[tuple[range, CommandQueue]]:
        """Yield the ids of parts of these places that have the same queue, ascending, and it: only to look at."""
        at = max(0, bisect_right(self._starts, run.start) - 1)
        if at < len(self._queues) and self._places(at) == run:
            yield self._queues[at].engines, self._queues[at]
            return
        for each in range(at, bisect_left(self._starts, run.stop)):
            there = self._places(each)
            part = range(max(there.start, run.start), min(there.stop, run.stop))
            if part:
                yield self.ids(part), self._queues[each]

    def add(self, run: range) -> None:
        """Engines have registered."""
        at = bisect_left(self._starts, run.start)
        self._starts.insert(at, run.start)
        self._queues.insert(at, CommandQueue(self.ids(run)))
        self._changed.append(run)

    def append(self, run: range, like: CommandQueue) -> None:
        """Let the engines at these places, which come after all others, have the commands of a queue."""
        self._starts.append(run.start)
        self._queues.append(_copy(like, self.ids(run)))
        self._changed.append(run)

    def remove(self, run: range) -> None:
        """Engines are gone."""
        self.each([run])
        low, high = bisect_left(self._starts, run.start), bisect_left(self._starts, run.stop)
        del self._starts[low:high], self._queues[low:high]

    def _cut(self, edge: int) -> None:
        """Make a queue begin at a place."""
        at = bisect_right(self._starts, edge) - 1
        if at >= 0 and self._starts[at] < edge < self._places(at).stop:
            self._starts[at : at + 1], self._queues[at : at + 1] = self._divided(at, [edge])

    def _cut_often(self, edges: Sequence[int]) -> None:
        """Make queues begin at many places, which ascend, in one pass."""
        if not edges:
            return
        low, high = max(0, bisect_right(self._starts, edges[0]) - 1), bisect_left(self._starts, edges[-1])
        starts: list[int] = []
        queues: list[CommandQueue] = []
        for at in range(low, high):
            there = self._places(at)
            inside = edges[bisect_right(edges, there.start) : bisect_left(edges, there.stop)]
            if inside:
                more_starts, more_queues = self._divided(at, inside)
                starts += more_starts
                queues += more_queues
            else:
                starts.append(there.start)
                queues.append(self._queues[at])
        self._starts[low:high], self._queues[low:high] = starts, queues

    def _divided(self, at: int, edges: Sequence[int]) -> tuple[list[int], list[CommandQueue]]:
        """Divide a queue at these places; return the first places, and the queues."""
        queue, there = self._queues[at], self._places(at)
        bounds = [there.start, *edges, there.stop]
        ids = self.ids
        return bounds[:-1], [_copy(queue, ids(range(start, stop))) for start, stop in pairwise(bounds)]

    def merge(self) -> None:
        """Let idle engines share queues again; to be called when nobody holds one of the queues."""
        changed, self._changed = self._changed, []
        if len(changed) > _MANY:
            # One pass is cheaper than many short ones, each of which moves what comes behind.
            changed = [range(min(run.start for run in changed), max(run.stop for run in changed))]
        for run in changed:
            low = max(0, bisect_left(self._starts, run.start) - 1)
            high = bisect_left(self._starts, run.stop) + 1
            starts, queues = _merged(self._starts[low:high], self._queues[low:high])
            if len(queues) < len(self._queues[low:high]):
                self._starts[low:high], self._queues[low:high] = starts, queues


def _copy(queue: CommandQueue, engines: range) -> CommandQueue:
    return CommandQueue(engines, queue.last, queue.running, queue.stage, queue.since, queue.waiting.copy())


def _merged(starts: Iterable[int], queues: Iterable[CommandQueue]) -> tuple[list[int], list[CommandQueue]]:
    """Return the first places, and the queues, when idle engines beside each other share them."""
    firsts: list[int] = []
    found: list[CommandQueue] = []
    before: CommandQueue | None = None
    """The last one, if others may be merged with it."""
    stop = 0
    """Where it ends."""
    for start, queue in zip(starts, queues, strict=True):
        if queue.running is not None or queue.waiting:
            before = None
        elif before is not None and stop == start:
            engines = before.engines
            before.engines = range(engines.start, queue.engines.stop, engines.step)
            before.last = max(before.last, queue.last)
            stop += len(queue.engines)
            continue
        else:
            before, stop = queue, start + len(queue.engines)
        firsts.append(start)
        found.append(queue)
    return firsts, found
