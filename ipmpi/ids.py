"""Engine ids and ranks, of which there may be 65,536, as runs of equal steps.

What is addressed to all engines, or to every second one, and an answer that all of them give, names one run. So
messages about them, and what the controller does for each, cost the same for 4 engines as for 65,536. Irregular
ids need a run for each group of consecutive ones.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain, pairwise, repeat
from math import lcm
from struct import Struct, error, pack, unpack
from typing import TYPE_CHECKING, Any, overload

from . import limits

_RUN = Struct("<II")
_STEPS = b"\1"
"""Begins packed ids that have steps. Other packed ids have an even number of bytes, these an odd one."""
_STEPPED_RUN = Struct("<III")
_ONE_STEPPED_RUN = len(_STEPS) + _STEPPED_RUN.size

_FEW = 4
"""Numbers at equal distances from which they are one run, if there are no others."""
_SERIES = 64
"""The same, if there are others: two or three of many random numbers are at equal distances by chance."""


class Ids(Sequence[int]):
    """An immutable sequence of whole numbers; it equals any sequence of the same numbers.

    Attributes:
        runs: ascending ranges, none of which is empty. Most are of consecutive numbers.
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
        if isinstance(numbers, range) and (numbers.step == 1 or (numbers.step > 1 and len(numbers) >= _FEW)):
            return cls((numbers,)) if numbers else NONE
        found = numbers if isinstance(numbers, list) else list(numbers)
        if not found:
            return NONE
        first, length = found[0], len(found)
        if length == 1:
            return cls((range(first, first + 1),))
        # Nearly always it is one run.
        run = _one_series(found)
        return cls(_series(list(_runs(found))) if run is None else (run,))

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
        if any(run.step > 1 for run in runs):
            swept = _swept(runs)
            return Ids.of(sorted(set(self))) if swept is None else Ids(swept)
        found: list[range] = []
        for run in sorted(runs, key=lambda each: each.start):
            if found and run.start <= found[-1].stop:
                found[-1] = range(found[-1].start, max(found[-1].stop, run.stop))
            else:
                found.append(run)
        return Ids(found)

    @property
    def are_stepped(self) -> bool:
        """Whether a run is not of consecutive numbers."""
        return any(run.step > 1 for run in self.runs)

    def packed(self) -> bytes:
        """Return the first number and the length of each run, 32 bits each, little-endian.

        If there are steps, a byte 1 comes first, and the step follows the length of each run.
        """
        if self.are_stepped:
            steps = chain.from_iterable((run.start, len(run), run.step) for run in self.runs)
            return _STEPS + pack(f"<{3 * len(self.runs)}I", *steps)
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
            found = cls(_unpacked_runs(data))
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
def _one_run(data: Any) -> Ids:
    """As :meth:`Ids.unpacked`: the same ids are addressed again and again."""
    return Ids.unpacked(data)


def on_the_wire(value: object) -> object:
    """Return what an encoder is to write for ids: runs, or the numbers themselves where that is shorter."""
    if isinstance(value, Ids):
        runs = value.runs
        with suppress(error):  # numbers that no engine has, but that may be asked for
            if len(runs) == 1 and runs[0].step == 1:
                return _RUN.pack(runs[0].start, len(runs[0]))
            if runs and (3 if value.are_stepped else 2) * len(runs) <= len(value):
                return value.packed()
        return list(value)
    raise NotImplementedError(f"{type(value).__name__} in a message")


def from_the_wire(kind: type, value: object) -> object:
    """Return the ids that a decoder has found; ValueError if they are none."""
    if kind is Ids:
        is_one = type(value) is bytes and len(value) in (_RUN.size, _ONE_STEPPED_RUN)
        return _one_run(value) if is_one else Ids.unpacked(value)
    raise NotImplementedError(f"{kind.__name__} in a message")


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield range(first, last + 1)
            first = number
        last = number
    yield range(first, last + 1)


def _unpacked_runs(data: bytes) -> list[range]:
    """Return what :meth:`Ids.packed` has written; ValueError if it has not."""
    if len(data) % _RUN.size == 0:
        numbers = unpack(f"<{len(data) // 4}I", data)
        steps: Iterable[int] = repeat(1, len(numbers) // 2)
        firsts, lengths = numbers[::2], numbers[1::2]
    elif data[:1] == _STEPS and len(data) % _STEPPED_RUN.size == len(_STEPS):
        numbers = unpack(f"<{len(data) // 4}I", data[len(_STEPS) :])
        firsts, lengths, steps = numbers[::3], numbers[1::3], numbers[2::3]
    else:
        raise ValueError(f"ids of {len(data)} bytes")
    if 0 in lengths or 0 in (steps if isinstance(steps, tuple) else ()):
        raise ValueError("ids in runs without a length, or a step")
    return [
        range(first, first + length * step, step)
        for first, length, step in zip(firsts, lengths, steps, strict=True)
    ]


def _one_series(numbers: Sequence[int]) -> range | None:
    """Return two or more numbers as one run, if they are one; lists are compared at the speed of C."""
    first, step, length = numbers[0], numbers[1] - numbers[0], len(numbers)
    if step < 1 or numbers[-1] - first != step * (length - 1) or (step > 1 and length < _FEW):
        return None
    run = range(first, first + step * length, step)
    return run if numbers == list(run) else None


def _series(runs: list[range]) -> list[range]:
    """Let many single numbers at equal distances be one run each time."""
    if len(runs) < _SERIES:
        return runs
    found: list[range] = []
    at = 0
    while at < len(runs):
        stop, first = at, runs[at].start
        step = runs[at + 1].start - first if at + 1 < len(runs) else 0
        while stop < len(runs) and len(runs[stop]) == 1 and runs[stop].start == first + (stop - at) * step:
            stop += 1
        if stop - at >= _SERIES and step > 1:
            found.append(range(first, runs[stop - 1].start + 1, step))
        else:
            # The last one may begin the next series.
            stop = max(at + 1, stop - 1)
            found += runs[at:stop]
        at = stop
    return found


def _swept(runs: Sequence[range]) -> list[range] | None:
    """Return the numbers of runs with steps as ascending runs; None if it costs less to sort the numbers.

    Where the same remainders are there from one multiple of all steps to another, these are looked at once.
    """
    period, numbers = 1, sum(map(len, runs))
    for step in {run.step for run in runs}:
        period = lcm(period, step)
        if period > numbers:  # of steps that a peer has made up, it may have a million digits
            return None
    if 2 * sum(period // run.step for run in runs) > numbers:
        return None
    edges: dict[int, list[tuple[int, int]]] = {}
    for run in runs:
        steps = period // run.step
        for part in (run[first::steps] for first in range(min(steps, len(run)))):
            place, rest = divmod(part.start, period)
            edges.setdefault(place, []).append((rest, 1))
            edges.setdefault(place + len(part), []).append((rest, -1))
    if len(edges) * period > numbers:
        return None
    there = [0] * period
    found: list[range] = []
    for start, stop in pairwise(sorted(edges)):
        for rest, change in edges[start]:
            there[rest] += change
        for run in _repeated([rest for rest in range(period) if there[rest]], start, stop, period):
            if found and run.start - found[-1][-1] == run.step == found[-1].step:
                found[-1] = range(found[-1].start, run.stop, run.step)
            else:
                found.append(run)
    return found


def _repeated(rests: Sequence[int], start: int, stop: int, period: int) -> Iterator[range]:
    """Yield all numbers from one multiple of a period to another that leave one of these remainders, ascending."""
    if not rests:
        return
    first, last = start * period, (stop - 1) * period
    step = period // len(rests)
    run = range(first + rests[0], last + rests[-1] + 1, step)
    if rests == list(range(rests[0], period, step)) and len(rests) * step == period:
        yield run if len(run) > 1 else range(run.start, run.start + 1)
        return
    blocks = list(_runs(rests))
    for multiple in range(first, last + 1, period):
        yield from (shifted(block, multiple) for block in blocks)


def clipped(run: range, low: int, high: int) -> range:
    """Return those numbers of a run that are at least ``low`` and less than ``high``."""
    if run.step == 1:
        return range(max(run.start, low), min(run.stop, high))
    return run[max(0, -((run.start - low) // run.step)) : max(0, -((run.start - high) // run.step))]


def shifted(run: range, by: int) -> range:
    """Return the numbers of a run, to each of which the same is added."""
    return range(run.start + by, run.stop + by, run.step)


def consecutive(runs: Iterable[range]) -> Iterator[range]:
    """Yield runs of consecutive numbers: those without a step, and each number of the others."""
    for run in runs:
        if run.step == 1:
            yield run
        else:
            yield from (range(number, number + 1) for number in run)


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
"""Changes from which one pass over all runs is cheaper, as each change moves what comes behind ..."""
_SHARE = 32
"""... or a larger number of them, if there are more than 32 times as many runs."""


class IdSet:
    """A set of whole numbers that changes; the cost of a change follows the number of runs in it.

    If all numbers have one distance, or a multiple of it, from each other, the set counts in steps of that.
    """

    __slots__ = ("_first", "_length", "_starts", "_step", "_stops")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._become(Ids.of(numbers).ascending())

    def _become(self, ids: Ids) -> None:
        """Have these numbers, which ascend."""
        self._first, self._step = _frame(ids.runs)
        counted = [count for run in ids.runs for count in self._counts(run)]
        self._hold(Ids(counted).ascending().runs if ids.are_stepped else counted)

    def _hold(self, counts: Sequence[range]) -> None:
        self._starts = [run.start for run in counts]
        self._stops = [run.stop for run in counts]
        self._length = sum(map(len, counts))

    def _counts(self, run: range) -> Iterable[range]:
        """Those numbers of a run that are whole steps from the first one: of how many, in consecutive runs."""
        first, step = self._first, self._step
        if step == 1:
            return (run,) if run.step == 1 else consecutive((run,))
        if run.step == 1:
            found = range(-((first - run.start) // step), -((first - run.stop) // step))
            return (found,) if found else ()
        if run.step == step:
            low, rest = divmod(run.start - first, step)
            return () if rest else (range(low, low + len(run)),)
        steps = (divmod(number - first, step) for number in run)
        return [range(count, count + 1) for count, rest in steps if not rest]

    def _numbers(self, counts: Iterable[range]) -> Iterator[range]:
        first, step = self._first, self._step
        if step == 1:
            return iter(counts)
        return (range(first + run.start * step, first + run.stop * step, step) for run in counts)

    def _fits(self, run: range) -> bool:
        """Whether all numbers of a run are whole steps from the first one."""
        step = self._step
        return step == 1 or ((len(run) == 1 or run.step % step == 0) and (run.start - self._first) % step == 0)

    def _changes(self, run: range) -> int:
        """How many changes it takes to add a run that fits."""
        return 1 if run.step in (1, self._step) else len(run)

    def _is_much(self, counts: int) -> bool:
        """Whether one pass over all runs is cheaper than so many changes."""
        return counts > _MANY + len(self._starts) // _SHARE

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids())

    def __contains__(self, number: int) -> bool:
        count, rest = divmod(number - self._first, self._step)
        at = bisect_right(self._starts, count) - 1
        return not rest and at >= 0 and count < self._stops[at]

    def ids(self) -> Ids:
        """Return all of them, ascending."""
        if self._step == 1 and len(self._starts) == self._length >= _FEW:
            series = _one_series(self._starts)
            if series is not None:
                return Ids((series,))
        return Ids(self._numbers(map(range, self._starts, self._stops)))

    def add(self, numbers: Iterable[int]) -> None:
        """Add numbers."""
        more = Ids.of(numbers)
        runs = more.runs
        if not self._length:
            self._become(more.ascending())
        elif all(map(self._fits, runs)) and not self._is_much(sum(map(self._changes, runs))):
            for run in runs:
                for count in self._counts(run):
                    self._replace(count, keep=True)
        else:
            self._become(Ids((*self.ids().runs, *runs)).ascending())

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove numbers; those that it does not have are ignored."""
        less = [count for run in Ids.of(numbers).runs for count in self._counts(run)] if self._length else ()
        if self._is_much(len(less)):
            self._hold(_without(list(map(range, self._starts, self._stops)), Ids(less).ascending().runs))
            return
        for run in less:
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
        found: list[range] = []
        for wanted in Ids.of(numbers).ascending().runs:
            # Where this set counts by ones, it has the numbers of a run whatever their distance is.
            for run in (wanted,) if self._step == 1 else self._counts(wanted):
                low = bisect_right(self._stops, run.start)
                high = bisect_left(self._starts, run.stop, low)
                there = zip(self._starts[low:high], self._stops[low:high], strict=True)
                found += filter(None, (clipped(run, start, stop) for start, stop in there))
        return Ids(self._numbers(found))


def _frame(runs: Sequence[range]) -> tuple[int, int]:
    """Return the first number and the distance in which a set with these numbers counts."""
    step = max((run.step for run in runs if len(run) > 1), default=1)
    first = runs[0].start if runs else 0
    if step > 1 and all((len(run) == 1 or run.step == step) and (run.start - first) % step == 0 for run in runs):
        return first, step
    return 0, 1
