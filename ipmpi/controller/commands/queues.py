"""The queues of all engines (no I/O).

After a command to all engines that all have answered alike, their queues are the same. So engines with
consecutive ids share one until something concerns only some of them, and again when they are idle. What is done
for all engines costs as much as what is done for one.

The same holds for every second engine, or every hundredth from the third to the last: such a command divides the
engines into *lanes* by the remainders of their ids, and engines that are beside each other in a lane share a
queue. When all are idle, there is one lane again. Engines that are chosen without a pattern have queues of their
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import lcm

from ...errors import EngineBusy
from ...ids import Ids, IdSet, consecutive
from .commandqueue import CommandQueue
from .queuedcommand import QueuedCommand
from .queuelane import Lane

_LANES = 128
"""Most lanes: what is done for all engines is done once for each."""
_PATTERN = 8
"""Most runs of a command that is thought to have a pattern."""
_SERIES = 64
"""Engines at equal distances for which it is worth while to divide the others."""


class Queues:
    """The queues of all engines."""

    def __init__(self) -> None:
        self._lanes = [Lane()]
        """By remainder; their number is the period."""
        self._there = IdSet()

    def __contains__(self, engine: object) -> bool:
        return isinstance(engine, int) and self._find(engine) is not None

    def __iter__(self) -> Iterator[int]:
        return iter(self._there)

    def _find(self, engine: int) -> CommandQueue | None:
        place, remainder = divmod(engine, len(self._lanes))
        return self._lanes[remainder].look(place)

    def _pieces(self, runs: Iterable[range]) -> Iterator[tuple[Lane, range]]:
        """Yield the places of these engines in each lane."""
        lanes, period = self._lanes, len(self._lanes)
        for run, times in _repeated(runs, period):
            if period == run.step == 1:
                yield lanes[0], range(run.start, run.stop + times - 1)
            elif period % run.step:
                for number in run:
                    place, remainder = divmod(number, period)
                    yield lanes[remainder], range(place, place + 1)
            else:
                steps = period // run.step
                for first in range(min(steps, len(run))):
                    place, remainder = divmod(run[first], period)
                    yield lanes[remainder], range(place, place + max(times, len(run[first::steps])))

    def look(self, engine: int) -> CommandQueue:
        """Return the queue that an engine has, perhaps together with others: do not change it.

        Raises:
            KeyError: the engine is not registered.
        """
        found = self._find(engine)
        if found is None:
            raise KeyError(engine)
        return found

    def own(self, engine: int) -> CommandQueue:
        """Return the queue of an engine, which it has alone from now on; KeyError if it is not registered."""
        self.look(engine)
        return self.each(range(engine, engine + 1))[0]

    def each(self, engines: Iterable[int]) -> list[CommandQueue]:
        """Return the queues of these engines, which they share with no others from now on.

        It may divide the queues of all others: do not go on using one that was returned before.
        """
        runs = Ids.of(engines).runs
        if len(runs) <= _PATTERN:
            for run in runs:
                if run.step > 1 and len(run) >= _SERIES:
                    self._divide(lcm(len(self._lanes), run.step), len(run))
        if len(self._lanes) == 1:
            return self._lanes[0].each(list(consecutive(runs)))
        places: dict[Lane, list[range]] = {}
        for lane, part in self._pieces(runs):
            parts = places.setdefault(lane, [])
            if parts and parts[-1].stop == part.start:
                parts[-1] = range(parts[-1].start, part.stop)
            else:
                parts.append(part)
        return [queue for lane, parts in places.items() for queue in lane.each(parts)]

    def _divide(self, period: int, gain: int) -> None:
        """Have so many lanes, if there are not too many; ``gain``: how many queues that saves."""
        more = period // len(self._lanes)
        if more == 1 or period > _LANES or more * sum(map(len, self._lanes)) > gain:
            return
        lanes = [Lane(period, remainder) for remainder in range(period)]
        for lane in self._lanes:
            for queue in lane.queues:
                for first in range(min(more, len(queue.engines))):
                    part = queue.engines[first::more]
                    place, remainder = divmod(part.start, period)
                    lanes[remainder].append(range(place, place + len(part)), queue)
        self._lanes = lanes

    def parts(self, engines: Iterable[int]) -> Iterator[tuple[range, CommandQueue]]:
        """Yield parts of these engines that have the same queue, and it: only to look at.

        They come in the order of the engines, except that those of different lanes are not mixed.
        """
        for lane, places in self._pieces(Ids.of(engines).runs):
            yield from lane.parts(places)

    def those(self, engines: Iterable[int], matches: Callable[[CommandQueue], bool]) -> Ids:
        """Return those of these engines whose queues match: in their order, or ascending."""
        found = Ids(part for part, queue in self.parts(engines) if matches(queue))
        return found if len(self._lanes) == 1 else found.ascending()

    def that_run(self, work: QueuedCommand, engines: Iterable[int]) -> Ids:
        """Return those of these engines that run a command, or are about to."""
        return self.those(engines, lambda queue: queue.running is work)

    def add(self, engines: Iterable[int]) -> None:
        """Engines have registered."""
        ids = Ids.of(engines)
        for lane, places in self._pieces(consecutive(ids.runs)):
            lane.add(places)
        self._there.add(ids)

    def remove(self, engines: Iterable[int]) -> None:
        """Engines are gone."""
        ids = Ids.of(engines)
        self.each(ids)
        for lane, places in self._pieces(ids.runs):
            lane.remove(places)
        self._there.remove(ids)

    def merge(self) -> None:
        """Let idle engines share queues again; to be called when nobody holds one of the queues."""
        for lane in self._lanes:
            lane.merge()
        if len(self._lanes) > 1 and not any(queue.is_busy for lane in self._lanes for queue in lane.queues):
            last = max((queue.last for lane in self._lanes for queue in lane.queues), default=(-1, 0))
            self._lanes = [Lane()]
            for run in consecutive(self._there.ids().runs):
                self._lanes[0].append(run, CommandQueue(run, last))


def _repeated(runs: Iterable[range], period: int) -> Iterator[tuple[range, int]]:
    """Yield runs, and how often each comes: so many times in all, always a period later.

    All engines but the first one of each node are many runs, and a few places in each lane.
    """
    before, times = range(0), 0
    for run in runs:
        is_next = run.start == before.start + times * period and run.step == before.step
        if is_next and len(run) == len(before) and run[-1] - run.start < period and period % run.step == 0:
            times += 1
            continue
        if times:
            yield before, times
        before, times = run, 1
    if times:
        yield before, times


def withdraw(
    queues: Queues, engines: Iterable[int], works: Sequence[QueuedCommand]
) -> list[tuple[QueuedCommand, range]]:
    """Take commands out of the queues in which they wait; returns which ones, and the engines of these queues."""
    taken = []
    for work in works:
        waiting = Ids(part for part, queue in queues.parts(engines) if work in queue.waiting)
        for queue in queues.each(waiting):
            queue.waiting.remove(work)
            taken.append((work, queue.engines))
    return taken


def first_idle(queues: Queues, engines: Iterable[int]) -> Ids:
    """Return the first engine that neither runs a command nor has one waiting.

    Raises:
        EngineBusy: there is none.
    """
    for run in Ids.of(engines).runs:
        idle = [part[0] for part, queue in queues.parts(run) if not queue.is_busy]
        if idle:
            return Ids.of([min(idle)])
    raise EngineBusy("all of these engines run commands; this one is only for an idle engine, and is not queued")
