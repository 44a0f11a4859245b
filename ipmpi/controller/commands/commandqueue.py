"""The running command of an engine, and its queue (no I/O)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import EngineBusy
from ...quantities import duration
from .queuedcommand import QueuedCommand


class Stage(enum.Enum):
    """The state of an engine's current command."""

    STARTING = enum.auto()
    """It has not been sent to the engine: this iteration will, or its body has to arrive first."""
    GIVEN = enum.auto()
    """The engine has it and has not replied."""


@dataclass
class CommandQueue:
    """The commands of one engine."""

    last: tuple[int, int] = (-1, 0)
    """The place of the last command that was begun."""
    running: QueuedCommand | None = None
    stage: Stage = Stage.STARTING
    since: float = 0.0
    """When the engine was sent its current command."""
    waiting: deque[QueuedCommand] = field(default_factory=deque)

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
    queue.waiting.insert(sum(other.place < work.place for other in queue.waiting), work)


def withdraw(
    queues: Mapping[int, CommandQueue], works: Iterable[QueuedCommand]
) -> list[tuple[QueuedCommand, int]]:
    """Take commands out of the queues in which they wait; returns which ones, and the engines of these queues."""
    taken = []
    for work in works:
        for engine, queue in queues.items():
            if work in queue.waiting:
                queue.waiting.remove(work)
                taken.append((work, engine))
    return taken


def first_idle(queues: Mapping[int, CommandQueue], engines: Sequence[int]) -> list[int]:
    """The first engine that neither runs a command nor has one waiting, as a list.

    Raises:
        EngineBusy: there is none.
    """
    for engine in engines:
        if not queues[engine].is_busy:
            return [engine]
    raise EngineBusy("all of these engines run commands; this one is only for an idle engine, and is not queued")
