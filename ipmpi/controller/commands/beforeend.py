"""Commands that no client has sent (no I/O): those before the end of a job, and those after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Final

from ... import limits
from ...ids import IdSet
from ...protocol import messages as m
from ..registry import Registry
from .commandqueue import CommandQueue, join
from .queuedcommand import QueuedCommand
from .queues import Queues

MOST: Final = 100
"""Most commands of a set in one queue, besides those of clients."""


class OwnCommands:
    """Puts them into queues.

    Args:
        queues: the queues of all engines.
        works: the commands that are under way, by serial number.
        serial: yields new ones.
        advance: sends the engines of a queue their next command, if they are free.
    """

    def __init__(
        self,
        registry: Registry,
        queues: Queues,
        works: MutableMapping[int, QueuedCommand],
        serial: Iterator[int],
        advance: Callable[[CommandQueue], None],
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
        if not ids or sum(work.is_before_end for work in self._queues.look(ids[0]).waiting) >= MOST:
            return
        # Some engines may be further than others; none has passed a place behind the last command begun.
        after = max(queue.last for _, queue in self._queues.parts(ids))[0]
        work = QueuedCommand(next(self._serial), key, 0, method, label, operation, [], after=after)
        work.outstanding = IdSet(ids)
        self._works[work.serial] = work
        for queue in self._queues.each(ids):
            join(queue, work)
            self._advance(queue)
