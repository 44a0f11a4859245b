"""Minimum, maximum, mean and deviation of an array of which each engine has a part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

from .layout import Block, Position


class Extreme(NamedTuple):
    """A minimum or maximum.

    Attributes:
        value: as a Python number.
        position: the first one in the whole array, in row-major order.
        engine: the id of the engine that has it.
    """

    value: Any
    position: Position
    engine: int

    def __str__(self) -> str:
        return f"{self.value:g} at {self.position} [{self.engine}]"


@dataclass(frozen=True)
class Summary:
    """What is known of some elements; NaNs are counted, and else left out.

    Attributes:
        count: elements that are not NaN.
        nans: elements that are.
        mean: NaN if there are no elements.
        squares: the sum of squared deviations from the mean.
        least, most: None if there are no elements.
    """

    count: int
    nans: int
    mean: float
    squares: float
    least: Extreme | None
    most: Extreme | None

    @property
    def std(self) -> float:
        """The standard deviation, as of ``numpy.nanstd``."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan


def placed(summary: Summary, block: Block) -> Summary:
    """Return the summary of a block whose positions were counted within it."""

    def moved(extreme: Extreme | None) -> Extreme | None:
        if extreme is None:
            return None
        position = tuple(map(sum, zip(block.offset, extreme.position, strict=True)))
        return Extreme(extreme.value, position, block.engine)

    return replace(summary, least=moved(summary.least), most=moved(summary.most))


_NOTHING = Summary(0, 0, math.nan, 0.0, None, None)


def combined(parts: Iterable[Summary]) -> Summary:
    """Put the summaries of parts together.

    Means and squares by the pairwise formula of Chan, Golub and LeVeque (1983), which does not lose digits.
    """
    return reduce(_both, parts, _NOTHING)


def _both(one: Summary, other: Summary) -> Summary:
    nans = one.nans + other.nans
    if not one.count or not other.count:
        return replace(other if other.count else one, nans=nans)
    count = one.count + other.count
    distance = other.mean - one.mean
    mean = one.mean + distance * (other.count / count)
    squares = one.squares + other.squares + distance * distance * (one.count * (other.count / count))
    least = _first([one.least, other.least], lambda extreme: extreme.value)
    most = _first([one.most, other.most], lambda extreme: -extreme.value)
    return Summary(count, nans, mean, squares, least, most)


def _first(extremes: list[Extreme | None], key: Any) -> Extreme | None:
    """Return the smallest by ``key``; of equal ones, the one that comes first in the array."""
    found = [each for each in extremes if each is not None]
    return min(found, key=lambda each: (key(each), each.position), default=None)
