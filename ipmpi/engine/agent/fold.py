"""Merging of equal replies on the way up (the time is an argument).

After a push to 1,000 ranks there are 1,000 equal replies. Each node in the tree collects the replies of the ranks
below it, and sends them when all are complete, when none came for :data:`limits.FOLD_PAUSE` seconds, or
:data:`limits.FOLD_DELAY` after the first, so that one slow rank does not hold up the others. Replies are equal if
status, outcome and body are, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ... import limits
from ...ids import Ids, IdSet
from ...protocol.frames import Buffer
from ...protocol.messages import Result


class Folded(NamedTuple):
    """A reply and its body."""

    message: Result
    body: Sequence[Buffer]


class _Open:
    __slots__ = ("groups", "latest", "since", "waiting")

    def __init__(self, ranks: Iterable[int]) -> None:
        self.waiting = IdSet(ranks)
        self.groups: dict[tuple[bool, bool, bytes, tuple[bytes, ...]], tuple[Folded, IdSet]] = {}
        self.since = 0.0
        self.latest = 0.0

    @property
    def deadline(self) -> float:
        """When to send what has been collected."""
        if not self.groups:
            return math.inf
        return min(self.since + limits.FOLD_DELAY, self.latest + limits.FOLD_PAUSE)

    def folded(self) -> list[Folded]:
        """Return what has been collected."""
        return [
            Folded(msgspec.structs.replace(one.message, engines=ranks.ids()), one.body)
            for one, ranks in self.groups.values()
        ]


class Fold:
    """The replies that are being collected, by command."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}

    def begin(self, number: int, ranks: Iterable[int]) -> None:
        """Ranks were sent a command."""
        entry = self._open.get(number)
        if entry is None:
            self._open[number] = _Open(ranks)
        else:
            entry.waiting.add(ranks)

    def add(self, message: Result, body: Sequence[Buffer], now: float) -> list[Folded]:
        """Add a reply; return what can be sent now."""
        entry = self._open.get(message.id)
        if entry is None:
            return [Folded(message, body)]
        if not entry.groups:
            entry.since = now
        entry.latest = now
        kept = tuple(bytes(buffer) for buffer in body)
        key = (message.ok, message.used, message.outcome, kept)
        same = entry.groups.get(key)
        if same is None:
            entry.groups[key] = Folded(message, kept), IdSet(message.engines)
        else:
            same[1].add(message.engines)
        entry.waiting.remove(message.engines)
        return self._finished(message.id, entry)

    def leave_out(self, number: int | None, ranks: Iterable[int]) -> list[Folded]:
        """Expect no reply (to one command, or to all) of ranks that are lost, or whose reply is streamed."""
        ready: list[Folded] = []
        gone = Ids.of(ranks)
        for key in list(self._open) if number is None else [number]:
            entry = self._open.get(key)
            if entry is not None:
                entry.waiting.remove(gone)
                ready += self._finished(key, entry)
        return ready

    def _finished(self, number: int, entry: _Open) -> list[Folded]:
        if entry.waiting:
            return []
        del self._open[number]
        return entry.folded()

    def due(self, now: float) -> list[Folded]:
        """Return the replies whose time is up."""
        ready: list[Folded] = []
        for entry in self._open.values():
            if entry.deadline <= now:
                ready += entry.folded()
                entry.groups = {}
        return ready

    @property
    def next_deadline(self) -> float | None:
        """Return when to call :meth:`due`; None if nothing is collected."""
        deadline = min((entry.deadline for entry in self._open.values()), default=math.inf)
        return None if deadline == math.inf else deadline
