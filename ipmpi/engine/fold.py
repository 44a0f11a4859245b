"""Folding equal answers on their way up (layer L2; the time is an argument).

After a push to 1,000 ranks there are 1,000 equal answers. Each node in the tree waits for the ranks below it,
but not for long: what has come within :data:`limits.FOLD_DELAY` of the first answer is reported, so that one
slow rank does not hold up the others. Answers are equal if status, outcome and body are, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .. import limits
from ..protocol.frames import Buffer
from ..protocol.messages import Result


class Folded(NamedTuple):
    """An answer, and the body that goes with it."""

    message: Result
    body: Sequence[Buffer]


class _Open:
    __slots__ = ("deadline", "groups", "waiting")

    def __init__(self, ranks: Iterable[int]) -> None:
        self.waiting = set(ranks)
        self.groups: dict[tuple[bool, bytes, tuple[bytes, ...]], Folded] = {}
        self.deadline: float | None = None


class Fold:
    """The answers that are being collected, by command."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}

    def begin(self, number: int, ranks: Iterable[int]) -> None:
        """Ranks were given a command."""
        entry = self._open.get(number)
        if entry is None:
            self._open[number] = _Open(ranks)
        else:
            entry.waiting.update(ranks)

    def add(self, message: Result, body: Sequence[Buffer], now: float) -> list[Folded]:
        """An answer came; what can be reported now."""
        entry = self._open.get(message.id)
        if entry is None:
            return [Folded(message, body)]
        kept = tuple(bytes(buffer) for buffer in body)
        key = (message.ok, message.outcome, kept)
        same = entry.groups.get(key)
        if same is None:
            entry.groups[key] = Folded(message, kept)
        else:
            same.message.engines.extend(message.engines)
        entry.waiting.difference_update(message.engines)
        if entry.deadline is None:
            entry.deadline = now + limits.FOLD_DELAY
        return self._finished(message.id, entry)

    def leave_out(self, number: int | None, ranks: Iterable[int]) -> list[Folded]:
        """Ranks whose answer (to one command, or to all) does not come here: it is streamed, or they are lost."""
        ready: list[Folded] = []
        gone = set(ranks)
        for key in list(self._open) if number is None else [number]:
            entry = self._open.get(key)
            if entry is not None:
                entry.waiting -= gone
                ready += self._finished(key, entry)
        return ready

    def _finished(self, number: int, entry: _Open) -> list[Folded]:
        if entry.waiting:
            return []
        del self._open[number]
        return list(entry.groups.values())

    def due(self, now: float) -> list[Folded]:
        """What has waited long enough."""
        ready: list[Folded] = []
        for entry in self._open.values():
            if entry.deadline is not None and entry.deadline <= now:
                ready += entry.groups.values()
                entry.groups = {}
                entry.deadline = None
        return ready

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`due` will have something."""
        return min((e.deadline for e in self._open.values() if e.deadline is not None), default=None)
