"""Commands that no client has sent (no I/O): those before the end of a job, and those after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Final

from ... import limits
from ...protocol import messages as m
from ..registry import Registry
from .commandqueue import CommandQueue, join
from .queuedcommand import QueuedCommand

MOST: Final = 100
"""Most commands of a set in one queue, besides those of clients."""


class OwnCommands:
    """Puts them into queues.

    Args:
        queues: the queues of all engines.
        works: the commands that are under way, by serial number.
        serial: yields new ones.
        advance: sends a free engine its next command.
    """

    def __init__(
        self,
        registry: Registry,
        queues: Mapping[int, CommandQueue],
        works: MutableMapping[int, QueuedCommand],
        serial: Iterator[int],
        advance: Callable[[int], None],
    ) -> None:
        self._registry = registry
        self._queues = queues
        self._works = works
        self._serial = serial
        self._advance = advance

    def before_end(self, key: int, message: m.RunBeforeEnd) -> None:
        """Queue a command that a set runs on its ranks before the end of its job."""
        ids = self._registry.of_ranks(key, message.ranks)
        self.queue(key, ids, "before_walltime", message.label[: limits.LABEL], message.operation)

    def queue(self, key: int, ids: Sequence[int], method: str, label: str, operation: bytes) -> None:
        """Queue a command for some engines of a set, if there is room."""
        if not ids or sum(work.is_before_end for work in self._queues[ids[0]].waiting) >= MOST:
            return
        # Some engines may be further than others; none has passed a place behind the last command begun.
        after = max(self._queues[engine].last for engine in ids)[0]
        work = QueuedCommand(next(self._serial), key, 0, method, label, operation, [], after=after)
        work.outstanding = set(ids)
        self._works[work.serial] = work
        for engine in ids:
            join(self._queues[engine], work)
            self._advance(engine)
