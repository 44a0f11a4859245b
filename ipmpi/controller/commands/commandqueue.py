"""The running command of an engine, and its queue (no I/O)."""

from __future__ import annotations

import enum
from bisect import insort_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...ids import Ids
from ...quantities import duration
from ...ranges import shortened
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
    """The commands of one engine, or of several with ids at equal distances that all have the same ones."""

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


def gone(engine: Engine, reason: str, now: float | None, queue: CommandQueue) -> str:
    """Return why an engine is lost; with the time, also what it ran."""
    text = f"engine {engine.id} (rank {engine.rank}, pid {engine.pid} on {engine.host}) is gone: {reason}"
    return text if now is None else text + queue.doing(now)


def which_cleared(engines: Sequence[int]) -> str:
    """Name engines with one queue, on which a command has failed, and what became of it."""
    if len(engines) == 1:
        return f"engine {engines[0]}, which cleared its queue"
    return f"engines {shortened(engines)}, which cleared their queues"


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
