"""Commands that engine sets run before the end of their jobs (no I/O)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Final

from ... import limits
from ...protocol import messages as m
from ..registry import Registry
from .commandqueue import CommandQueue, join
from .queuedcommand import QueuedCommand

MOST: Final = 100
"""Most commands of a set in one queue, besides those of clients."""


class BeforeEnd:
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

    def queue(self, key: int, message: m.RunBeforeEnd) -> None:
        """Queue a command that a set runs on its ranks."""
        ids = self._registry.of_ranks(key, message.ranks)
        if not ids or sum(work.is_before_end for work in self._queues[ids[0]].waiting) >= MOST:
            return
        # Some engines may be further than others; none has passed a place behind the last command begun.
        after = max(self._queues[engine].last for engine in ids)[0]
        label = message.label[: limits.LABEL]
        work = QueuedCommand(
            next(self._serial), key, 0, "before_walltime", label, message.operation, [], after=after
        )
        work.outstanding = set(ids)
        self._works[work.serial] = work
        for engine in ids:
            join(self._queues[engine], work)
            self._advance(engine)
