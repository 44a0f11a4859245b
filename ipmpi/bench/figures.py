"""Samples, what is told about them, and whether that is good enough. No I/O here."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from .goals import Goal

OURS: Final = "ipmpi"
MORE_IS_BETTER: Final = {"GB/s": 1e9, "tasks/s": 1.0}
"""Units of rates, and how many bytes or tasks one of them is."""
LESS_IS_BETTER: Final = {"s": 1.0, "ms": 1e3, "%": 1.0, "MB": 1.0}
"""Units of costs, and how many of them one second (for the first two) is."""


class Figure(NamedTuple):
    """What was measured of one kind of work.

    Attributes:
        key: what the work is, the same for each system that was measured.
        name: the same in words.
        unit: one of :data:`MORE_IS_BETTER` or :data:`LESS_IS_BETTER`.
        median: half of the samples are better, in ``unit``.
        p90: nine of ten samples are better; of a rate, it is the one of the slow samples.
        p99: 99 of 100 are better.
        samples: how many were taken.
        system: which system did it.
        goal: what to reach, where there is a goal and the circumstances are those of the goal.
    """

    key: str
    name: str
    unit: str
    median: float
    p90: float
    p99: float
    samples: int
    system: str = OURS
    goal: Goal | None = None

    def verdict(self) -> str:
        """``yes``, ``first`` (only the first goal is reached), ``no``, or empty without a goal."""
        if self.goal is None:
            return ""
        if self._reaches(self.goal.final):
            return "yes"
        if self.goal.first is not None and self._reaches(self.goal.first):
            return "first"
        return "no"

    def _reaches(self, limit: float) -> bool:
        return self.median >= limit if self.unit in MORE_IS_BETTER else self.median <= limit

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        goal = None if self.goal is None else self.goal._asdict()
        return {**self._asdict(), "goal": goal, "verdict": self.verdict()}


def from_times(key: str, name: str, unit: str, times: Sequence[float], amount: float = 1.0) -> Figure:
    """The figure for how long something took each time.

    Args:
        key: see :class:`Figure`.
        name: see :class:`Figure`.
        unit: ``s``, ``ms``, ``GB/s`` or ``tasks/s``.
        times: seconds.
        amount: bytes or tasks of each time, for a rate.

    Raises:
        ValueError: no times, or another unit.
    """
    if unit not in (*MORE_IS_BETTER, "s", "ms"):
        raise ValueError(f"a time cannot be told in {unit!r}")
    if not times:
        raise ValueError("there is no figure of no times")
    import numpy

    slow = [float(time) for time in numpy.quantile(times, [0.5, 0.9, 0.99])]
    if unit in MORE_IS_BETTER:
        median, p90, p99 = (amount / MORE_IS_BETTER[unit] / max(time, 1e-9) for time in slow)
    else:
        median, p90, p99 = (time * LESS_IS_BETTER[unit] for time in slow)
    return Figure(key, name, unit, median, p90, p99, len(times))


def single(key: str, name: str, unit: str, value: float) -> Figure:
    """The figure for something that was measured once."""
    return Figure(key, name, unit, value, value, value, 1)


def greedy_bound(durations: Iterable[float], engines: int) -> float:
    """The time that ``engines`` take if each takes the next piece of work the moment it is free.

    Raises:
        ValueError: no engines.
    """
    if engines < 1:
        raise ValueError("work needs at least one engine")
    free_at = [0.0] * engines
    for duration in durations:
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(free_at)
