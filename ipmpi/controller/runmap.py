"""Values that are the same for runs of consecutive ids or ranks (no I/O)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from ..ids import Ids, clipped, consecutive

Value = TypeVar("Value")


class RunMap(Generic[Value]):
    """A value for each of some numbers, kept once for a run of them."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._values: list[Value] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.get(number) is not None

    def ids(self) -> Ids:
        """Return the numbers that have a value, ascending."""
        return Ids(map(range, self._starts, self._stops)).ascending()

    def get(self, number: int) -> Value | None:
        """Return the value of a number; None if it has none."""
        at = bisect_right(self._starts, number) - 1
        return self._values[at] if at >= 0 and number < self._stops[at] else None

    def within(self, numbers: Iterable[int]) -> Iterator[tuple[range, Value]]:
        """Yield the parts of these numbers that have one value each, in their order, and those values."""
        starts, stops = self._starts, self._stops
        for run in Ids.of(numbers).runs:
            at = bisect_right(stops, run.start)
            if at < len(starts) and starts[at] <= run.start and run.stop <= stops[at]:
                yield run, self._values[at]
                continue
            while at < len(starts) and starts[at] < run.stop:
                part = clipped(run, starts[at], stops[at])
                if part:
                    yield part, self._values[at]
                at += 1

    def insert(self, run: range, value: Value) -> None:
        """Set the value of consecutive numbers that have none."""
        at = bisect_right(self._starts, run.start)
        self._starts.insert(at, run.start)
        self._stops.insert(at, run.stop)
        self._values.insert(at, value)
        self._length += len(run)

    def remove(self, numbers: Iterable[int]) -> None:
        """Numbers have no value any more."""
        for run in consecutive(Ids.of(numbers).runs):
            low = bisect_right(self._stops, run.start)
            high = bisect_right(self._starts, run.stop - 1, low)
            kept = []
            for start, stop, value in self._pieces(low, high):
                self._length -= min(stop, run.stop) - max(start, run.start)
                kept += [(start, run.start, value)] * (start < run.start)
                kept += [(run.stop, stop, value)] * (stop > run.stop)
            self._starts[low:high] = [start for start, _, _ in kept]
            self._stops[low:high] = [stop for _, stop, _ in kept]
            self._values[low:high] = [value for _, _, value in kept]

    def _pieces(self, low: int, high: int) -> list[tuple[int, int, Value]]:
        return list(zip(self._starts[low:high], self._stops[low:high], self._values[low:high], strict=True))
