"""Commands that engine sets run before the end of their jobs (no I/O)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Final

from ... import limits
from ...ids import IdSet
from ...protocol import messages as m
from ..registry import Registry
from .commandqueue import CommandQueue, Queues, join
from .queuedcommand import QueuedCommand

MOST: Final = 100
"""Most commands of a set in one queue, besides those of clients."""


class BeforeEnd:
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

    def queue(self, key: int, message: m.RunBeforeEnd) -> None:
        """Queue a command that a set runs on its ranks."""
        ids = self._registry.of_ranks(key, message.ranks)
        if not ids or sum(work.is_before_end for work in self._queues.look(ids[0]).waiting) >= MOST:
            return
        # Some engines may be further than others; none has passed a place behind the last command begun.
        after = max(queue.last for _, queue in self._queues.parts(ids))[0]
        label = message.label[: limits.LABEL]
        work = QueuedCommand(
            next(self._serial), key, 0, "before_walltime", label, message.operation, [], after=after
        )
        work.outstanding = IdSet(ids)
        self._works[work.serial] = work
        for queue in self._queues.each(ids):
            join(queue, work)
            self._advance(queue)
