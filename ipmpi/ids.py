"""Engine ids and ranks, of which there may be 65,536, as runs of consecutive ones.

What is addressed to all engines, and an answer that all of them give, names one run. So messages about them, and
what the controller does for each, cost the same for 4 engines as for 65,536. Irregular ids need a run each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain, pairwise
from struct import Struct, error, pack, unpack
from typing import TYPE_CHECKING, Any, overload

from . import limits

_RUN = Struct("<II")


class Ids(Sequence[int]):
    """An immutable sequence of whole numbers; it equals any sequence of the same numbers.

    Attributes:
        runs: ranges of consecutive numbers, none of which is empty.
    """

    __slots__ = ("_length", "runs")

    def __init__(self, runs: Iterable[range] = ()) -> None:
        self.runs = found = tuple(runs)
        self._length = len(found[0]) if len(found) == 1 else sum(map(len, found))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Ids:
        """Return these numbers, in this order."""
        if isinstance(numbers, Ids):
            return numbers
        if isinstance(numbers, IdSet):
            return numbers.ids()
        if isinstance(numbers, range) and numbers.step == 1:
            return cls((numbers,)) if numbers else NONE
        found = numbers if isinstance(numbers, list) else list(numbers)
        if not found:
            return NONE
        first, length = found[0], len(found)
        if length == 1:
            return cls((range(first, first + 1),))
        # Nearly always it is one run, and lists are compared at the speed of C.
        if found[-1] - first == length - 1 and found == list(range(first, first + length)):
            return cls((range(first, first + length),))
        return cls(_runs(found))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.runs)

    def __contains__(self, number: object) -> bool:
        return any(number in run for run in self.runs)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return list(self)[index]
        at = index if index >= 0 else index + self._length
        for run in self.runs:
            if 0 <= at < len(run):
                return run[at]
            at -= len(run)
        raise IndexError(f"number {index} of {self._length}")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Ids):
            return self.runs == other.runs or (self._length == other._length and list(self) == list(other))
        if isinstance(other, (list, tuple)):
            return self._length == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(list(self))

    def ascending(self) -> Ids:
        """Return each of the numbers once, ascending, in as few runs as possible."""
        runs = self.runs
        if len(runs) < 2 or all(before.stop < after.start for before, after in pairwise(runs)):
            return self
        found: list[range] = []
        for run in sorted(runs, key=lambda each: each.start):
            if found and run.start <= found[-1].stop:
                found[-1] = range(found[-1].start, max(found[-1].stop, run.stop))
            else:
                found.append(run)
        return Ids(found)

    def packed(self) -> bytes:
        """Return the first number and the length of each run, 32 bits each, little-endian."""
        numbers = chain.from_iterable((run.start, len(run)) for run in self.runs)
        return pack(f"<{2 * len(self.runs)}I", *numbers)

    @classmethod
    def unpacked(cls, data: Any) -> Ids:
        """Return what is said by :meth:`packed`, or by a list of the numbers themselves.

        Raises:
            ValueError: it is neither, or there are more numbers than a controller has engines.
        """
        if not data and isinstance(data, (list, bytes)):
            return NONE
        if isinstance(data, list):
            if not all(type(number) is int for number in data):
                raise ValueError("numbers that are no engine ids or ranks")
            found = cls.of(data)
        elif isinstance(data, bytes):
            if len(data) % _RUN.size:
                raise ValueError(f"ids of {len(data)} bytes")
            numbers = unpack(f"<{len(data) // 4}I", data)
            if 0 in numbers[1::2]:
                raise ValueError("ids in runs without a length")
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            found = cls(range(first, first + length) for first, length in pairs)
        else:
            raise ValueError(f"ids as {type(data).__name__}")  # noqa: TRY004 - bad data
        if len(found) > limits.MAX_ENGINES:
            raise ValueError(f"{len(found)} ids; one controller has at most {limits.MAX_ENGINES} engines")
        return found


NONE = Ids()

if TYPE_CHECKING:
    IdList = Sequence[int]
else:
    IdList = Ids
"""The type of a field of a message: it takes any sequence, and what has arrived is :class:`Ids`."""


@lru_cache(256)
def _one_run(data: bytes) -> Ids:
    """As :meth:`Ids.unpacked`: the same ids are addressed again and again."""
    return Ids.unpacked(data)


def on_the_wire(value: object) -> object:
    """Return what an encoder is to write for ids: runs, or the numbers themselves where that is shorter."""
    if isinstance(value, Ids):
        runs = value.runs
        with suppress(error):  # numbers that no engine has, but that may be asked for
            if len(runs) == 1:
                return _RUN.pack(runs[0].start, len(runs[0]))
            if runs and 2 * len(runs) <= len(value):
                return value.packed()
        return list(value)
    raise NotImplementedError(f"{type(value).__name__} in a message")


def from_the_wire(kind: type, value: object) -> object:
    """Return the ids that a decoder has found; ValueError if they are none."""
    if kind is Ids:
        return _one_run(value) if type(value) is bytes and len(value) == _RUN.size else Ids.unpacked(value)
    raise NotImplementedError(f"{kind.__name__} in a message")


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield range(first, last + 1)
            first = number
        last = number
    yield range(first, last + 1)


def _without(runs: Iterable[range], others: Sequence[range]) -> list[range]:
    """Return what is in these runs and not in the others; both ascend."""
    found, at = [], 0
    for run in runs:
        start = run.start
        while at < len(others) and others[at].stop <= start:
            at += 1
        other = at
        while other < len(others) and others[other].start < run.stop:
            if others[other].start > start:
                found.append(range(start, others[other].start))
            start = others[other].stop
            other += 1
        if start < run.stop:
            found.append(range(start, run.stop))
    return found


_MANY = 256
"""Runs from which one pass over all is cheaper than many changes, each of which moves what comes behind."""


class IdSet:
    """A set of whole numbers that changes; the cost of a change follows the number of runs in it."""

    __slots__ = ("_length", "_starts", "_stops")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._become(Ids.of(numbers).ascending().runs)

    def _become(self, runs: Sequence[range]) -> None:
        self._starts = [run.start for run in runs]
        self._stops = [run.stop for run in runs]
        self._length = sum(map(len, runs))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids())

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._stops[at]

    def ids(self) -> Ids:
        """Return all of them, ascending."""
        return Ids(map(range, self._starts, self._stops))

    def add(self, numbers: Iterable[int]) -> None:
        """Add numbers."""
        more = Ids.of(numbers)
        if len(more.runs) > _MANY:
            self._become(Ids((*self.ids().runs, *more.runs)).ascending().runs)
            return
        for run in more.runs:
            self._replace(run, keep=True)

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove numbers; those that it does not have are ignored."""
        less = Ids.of(numbers)
        if len(less.runs) > _MANY:
            self._become(_without(self.ids().runs, less.ascending().runs))
            return
        for run in less.runs:
            self._replace(run, keep=False)

    def _replace(self, run: range, *, keep: bool) -> None:
        starts, stops = self._starts, self._stops
        # The runs that touch this one, or overlap with it.
        low = bisect_right(stops, run.start - 1 if keep else run.start)
        high = bisect_right(starts, run.stop if keep else run.stop - 1, low)
        before = sum(stops[low:high]) - sum(starts[low:high])
        if keep:
            new = [(min([*starts[low : low + 1], run.start]), max([*stops[high - 1 : high], run.stop]))]
            if high == low:
                new = [(run.start, run.stop)]
        else:
            new = []
            if low < high and starts[low] < run.start:
                new.append((starts[low], run.start))
            if low < high and stops[high - 1] > run.stop:
                new.append((run.stop, stops[high - 1]))
        starts[low:high] = [start for start, _ in new]
        stops[low:high] = [stop for _, stop in new]
        self._length += sum(stop - start for start, stop in new) - before

    def common(self, numbers: Iterable[int]) -> Ids:
        """Return those of these numbers that it has, ascending."""
        found = []
        for run in Ids.of(numbers).ascending().runs:
            low = bisect_right(self._stops, run.start)
            high = bisect_right(self._starts, run.stop - 1, low)
            found += [
                range(max(start, run.start), min(stop, run.stop))
                for start, stop in zip(self._starts[low:high], self._stops[low:high], strict=True)
            ]
        return Ids(found)
