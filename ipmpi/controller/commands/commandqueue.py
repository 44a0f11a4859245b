"""The running command of an engine, and its queue (no I/O)."""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right, insort_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ...errors import EngineBusy
from ...ids import Ids
from ...quantities import duration
from ..registry import Engine
from .queuedcommand import QueuedCommand


class Stage(enum.Enum):
    """The state of an engine's current command."""

    STARTING = enum.auto()
    """It has not been sent to the engine: this iteration will, or its body has to arrive first."""
    GIVEN = enum.auto()
    """The engine has it and has not replied."""


@dataclass(slots=True)
class CommandQueue:
    """The commands of one engine, or of several with consecutive ids that all have the same ones."""

    engines: range
    last: tuple[int, int] = (-1, 0)
    """The place of the last command that was begun."""
    running: QueuedCommand | None = None
    stage: Stage = Stage.STARTING
    since: float = 0.0
    """When the engine was sent its current command."""
    waiting: list[QueuedCommand] = field(default_factory=list)
    """By place. No deque: an empty one takes twelve times the memory and time, and there may be 65,536."""

    @property
    def runs(self) -> str | None:
        """The label of what the engine runs; None if it is idle."""
        return None if self.running is None else self.running.label

    @property
    def is_busy(self) -> bool:
        """Whether the engine runs a command, or commands wait for it."""
        return self.running is not None or bool(self.waiting)

    @property
    def busy_since(self) -> float | None:
        """When the engine was sent its current command; None if it has none."""
        return self.since if self.running is not None and self.stage is Stage.GIVEN else None

    def doing(self, now: float) -> str:
        """What it runs and for how long, as ``; it ran execute(...) for 41 s``; "" if nothing is known to run."""
        since = self.busy_since
        return "" if since is None else f"; it ran {self.runs} for {duration(now - since)}"

    def is_wanted_by_others(self, client: int) -> bool:
        """Return whether commands of other clients run or wait here."""
        return any(work.client != client for work in (self.running, *self.waiting) if work is not None)


def join(queue: CommandQueue, work: QueuedCommand) -> None:
    """Insert a command into the queue, which is sorted by place."""
    insort_left(queue.waiting, work, key=lambda other: other.place)


_MANY = 256


class Queues:
    """The queues of all engines.

    After a command to all engines that all have answered alike, their queues are the same. So engines with
    consecutive ids share one until something concerns only some of them, and again when they are idle. What is
    done for all engines costs as much as what is done for one.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._queues: list[CommandQueue] = []
        self._changed: list[range] = []
        """Ids of engines whose queues may have become the same."""

    def __contains__(self, engine: object) -> bool:
        return isinstance(engine, int) and self._find(engine) is not None

    def __iter__(self) -> Iterator[int]:
        return iter(Ids(queue.engines for queue in self._queues))

    def _find(self, engine: int) -> CommandQueue | None:
        at = bisect_right(self._starts, engine) - 1
        return self._queues[at] if at >= 0 and engine in self._queues[at].engines else None

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
        """Return the queues of these engines, which they share with no others from now on."""
        runs = Ids.of(engines).runs
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
            if at == len(self._queues) or self._queues[at].engines != run:
                return None
            found.append(self._queues[at])
        return found

    def parts(self, engines: Iterable[int]) -> Iterator[tuple[range, CommandQueue]]:
        """Yield parts of these engines that have the same queue, in their order, and it: only to look at."""
        for run in Ids.of(engines).runs:
            at = max(0, bisect_right(self._starts, run.start) - 1)
            if at < len(self._queues) and self._queues[at].engines == run:
                yield run, self._queues[at]
                continue
            for queue in self._queues[at : bisect_left(self._starts, run.stop)]:
                part = range(max(queue.engines.start, run.start), min(queue.engines.stop, run.stop))
                if part:
                    yield part, queue

    def those(self, engines: Iterable[int], matches: Callable[[CommandQueue], bool]) -> Ids:
        """Return those of these engines whose queues match, in their order."""
        return Ids(part for part, queue in self.parts(engines) if matches(queue))

    def add(self, engines: Iterable[int]) -> None:
        """Engines have registered."""
        for run in Ids.of(engines).runs:
            at = bisect_left(self._starts, run.start)
            self._starts.insert(at, run.start)
            self._queues.insert(at, CommandQueue(run))
            self._changed.append(run)

    def remove(self, engines: Iterable[int]) -> None:
        """Engines are gone."""
        self.each(engines)
        for run in Ids.of(engines).runs:
            low, high = bisect_left(self._starts, run.start), bisect_left(self._starts, run.stop)
            del self._starts[low:high], self._queues[low:high]

    def _cut(self, edge: int) -> None:
        """Make a queue begin at an id."""
        at = bisect_right(self._starts, edge) - 1
        if at >= 0 and self._starts[at] < edge < self._queues[at].engines.stop:
            self._starts[at : at + 1], self._queues[at : at + 1] = _halves(self._queues[at], [edge])

    def _cut_often(self, edges: Sequence[int]) -> None:
        """Make queues begin at many ids, which ascend, in one pass."""
        if not edges:
            return
        low, high = max(0, bisect_right(self._starts, edges[0]) - 1), bisect_left(self._starts, edges[-1])
        starts: list[int] = []
        queues: list[CommandQueue] = []
        for queue in self._queues[low:high]:
            inside = edges[bisect_right(edges, queue.engines.start) : bisect_left(edges, queue.engines.stop)]
            if inside:
                more_starts, more_queues = _halves(queue, inside)
                starts += more_starts
                queues += more_queues
            else:
                starts.append(queue.engines.start)
                queues.append(queue)
        self._starts[low:high], self._queues[low:high] = starts, queues

    def merge(self) -> None:
        """Let idle engines share queues again; to be called when nobody holds one of the queues."""
        changed, self._changed = self._changed, []
        if len(changed) > _MANY:
            # One pass is cheaper than many short ones, each of which moves what comes behind.
            changed = [range(min(run.start for run in changed), max(run.stop for run in changed))]
        for run in changed:
            low = max(0, bisect_left(self._starts, run.start) - 1)
            high = bisect_left(self._starts, run.stop) + 1
            merged = _merged(self._queues[low:high])
            if len(merged) < len(self._queues[low:high]):
                self._starts[low:high] = [queue.engines.start for queue in merged]
                self._queues[low:high] = merged


def _halves(queue: CommandQueue, edges: Sequence[int]) -> tuple[list[int], list[CommandQueue]]:
    """Divide a queue at these ids; return the first ids, and the queues."""
    bounds = [queue.engines.start, *edges, queue.engines.stop]
    parts = [
        CommandQueue(range(start, stop), queue.last, queue.running, queue.stage, queue.since, queue.waiting.copy())
        for start, stop in pairwise(bounds)
    ]
    return bounds[:-1], parts


def _merged(queues: Iterable[CommandQueue]) -> list[CommandQueue]:
    found: list[CommandQueue] = []
    before: CommandQueue | None = None
    """The last one, if others may be merged with it."""
    for queue in queues:
        if queue.is_busy:
            before = None
            found.append(queue)
        elif before is not None and before.engines.stop == queue.engines.start:
            before.engines = range(before.engines.start, queue.engines.stop)
            before.last = max(before.last, queue.last)
        else:
            before = queue
            found.append(queue)
    return found


def gone(engine: Engine, reason: str, now: float | None, queue: CommandQueue) -> str:
    """Return why an engine is lost; with the time, also what it ran."""
    text = f"engine {engine.id} (rank {engine.rank}, pid {engine.pid} on {engine.host}) is gone: {reason}"
    return text if now is None else text + queue.doing(now)


def begin(queues: Iterable[CommandQueue]) -> dict[QueuedCommand, Ids]:
    """Let engines that are free begin their next commands; return these, and their engines."""
    begun: dict[QueuedCommand, list[range]] = {}
    for queue in queues:
        if queue.running is None and queue.waiting:
            work = queue.waiting.pop(0)
            queue.running, queue.last, work.is_begun = work, work.place, True
            queue.stage = Stage.STARTING
            begun.setdefault(work, []).append(queue.engines)
    return {work: Ids(runs) for work, runs in begun.items()}


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
    for part, queue in queues.parts(engines):
        if not queue.is_busy:
            return Ids.of(part[:1])
    raise EngineBusy("all of these engines run commands; this one is only for an idle engine, and is not queued")
