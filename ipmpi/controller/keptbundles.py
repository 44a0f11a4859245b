"""For how long bundles are kept (no I/O): how much all hold is counted, and they are in the order of their ends.

So a look for those that are not kept any longer costs as much as there are of them, and not as there are bundles.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from .bundle import Bundle, BundleGroup

_FEW: Final = 64
"""Ends that do not hold any more and are not looked for."""


class State(enum.Enum):
    """What a bundle is that is kept."""

    ENDED = enum.auto()
    """All its tasks have ended."""
    LEFT = enum.auto()
    """Some have not, and its client is gone."""
    OPEN = enum.auto()
    """Some have not, and its client is there."""


class _Counted(NamedTuple):
    """How a bundle was counted: ``end`` is its entry in the order of ends."""

    state: State
    size: int
    end: tuple[float, int] | None


class KeptBundles:
    """Those that are kept, and what they hold."""

    def __init__(self) -> None:
        self._counted: dict[int, _Counted] = {}
        self._bundles: dict[int, Bundle] = {}
        """The same, by number."""
        self._held = dict.fromkeys(State, 0)
        """Bytes."""
        self._ends: list[tuple[float, int]] = []
        """A heap of ends and numbers. Some have been counted anew since: they do not hold any more."""

    def changed(self, bundle: Bundle, *, is_there: bool) -> None:
        """Something about a bundle has changed; ``is_there``: somebody can find it."""
        before = self._counted.get(bundle.number)
        if not (is_there and bundle.is_kept):
            if before is not None and self._bundles[bundle.number] is bundle:
                self._held[before.state] -= before.size
                del self._counted[bundle.number], self._bundles[bundle.number]
            return
        if before is not None:
            self._held[before.state] -= before.size
        state = State.ENDED if bundle.ended else State.LEFT if bundle.is_orphan else State.OPEN
        end = (bundle.ended, bundle.number) if bundle.ended else None
        if end is not None and (before is None or before.end != end):
            self._add_end(end)
        self._held[state] += bundle.size
        self._counted[bundle.number] = _Counted(state, bundle.size, end)
        self._bundles[bundle.number] = bundle

    def _add_end(self, end: tuple[float, int]) -> None:
        if len(self._ends) > 2 * len(self._counted) + _FEW:
            self._ends = [counted.end for counted in self._counted.values() if counted.end is not None]
            heapq.heapify(self._ends)
        heapq.heappush(self._ends, end)

    def _holds(self, end: tuple[float, int]) -> bool:
        counted = self._counted.get(end[1])
        return counted is not None and counted.end == end

    def _take_ends(self) -> Iterator[Bundle]:
        """Yield those that have ended, in the order of their ends, each once; they leave that order."""
        last = None
        while self._ends:
            end = heapq.heappop(self._ends)
            if end != last and self._holds(end):
                last = end
                yield self._bundles[end[1]]

    def _put_back(self, bundles: Iterable[Bundle]) -> None:
        for bundle in bundles:
            heapq.heappush(self._ends, (bundle.ended, bundle.number))

    def expired(self, now: float, keep: float, keep_bytes: int) -> list[Bundle]:
        """Return the bundles that are not kept any longer.

        Those that have ended more than ``keep`` seconds ago. If there are more than ``keep_bytes`` bytes, also
        those that have ended first; then those of clients that are gone, oldest first.
        """
        held = sum(self._held.values())
        over: list[Bundle] = []
        taken: list[Bundle] = []
        for bundle in self._take_ends():
            taken.append(bundle)
            if not (bundle.ended + keep <= now or held > keep_bytes):
                break
            over.append(bundle)
            held -= bundle.size
        self._put_back(taken)
        for bundle in self._oldest(State.LEFT) if held > keep_bytes else ():
            over.append(bundle)
            held -= bundle.size
            if held <= keep_bytes:
                break
        return over

    def _oldest(self, state: State) -> list[Bundle]:
        found = [self._bundles[number] for number, counted in self._counted.items() if counted.state is state]
        return sorted(found, key=lambda bundle: (bundle.submitted, bundle.number))

    def surplus(self, keep_bytes: int) -> list[BundleGroup]:
        """Return groups that are not kept although their client is there, oldest first.

        They are of bundles that have not ended, and alone have more than ``keep_bytes`` bytes.
        """
        held = self._held[State.OPEN]
        found: list[BundleGroup] = []
        for bundle in self._oldest(State.OPEN) if held > keep_bytes else ():
            for group in bundle.groups.values():
                if held <= keep_bytes:
                    return found
                if group.size:
                    found.append(group)
                    held -= group.size
        return found

    def next_expiry(self, keep: float) -> float | None:
        """Return when the next bundle is not kept any longer, in seconds since 1970."""
        while self._ends and not self._holds(self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] + keep if self._ends else None
