"""When the root agent of a set has functions called before the end of the job (no I/O; the time is an argument).

The rules.

* Each rank keeps the functions by key; the root agent keeps the key, the ranks, and the seconds before the end.
* When a function is due, or the batch system has sent a warning, the root asks the controller to send the ranks a
  command that calls it. The controller has the queues, and can place it so that all ranks run it in the same
  order.
* If half of the time has passed and the controller is unreachable, the set calls the function without it.
* A rank calls each function once, however often it is told to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

METHOD: Final = "before_walltime"
"""The client's method that registers a function."""

_STILL_THERE: Final = 5.0
"""Seconds between checks for the controller, once half of the time has passed."""


class Call(NamedTuple):
    """A function that these ranks must call now."""

    key: bytes
    name: str
    ranks: list[int]


class _Function:
    """A function, the ranks that have it, those requested to call it, and those told to."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.ranks: set[int] = set()
        self.asked: set[int] = set()
        self.told: set[int] = set()


class JobDeadline:
    """The end of a set's job.

    Attributes:
        ends_at: its time; infinite if unknown.
    """

    def __init__(self) -> None:
        self.ends_at = math.inf
        self._functions: dict[bytes, _Function] = {}

    def add(self, key: bytes, name: str, seconds: float, ranks: Iterable[int]) -> None:
        """Ranks were given a function."""
        function = self._functions.setdefault(key, _Function(name, seconds))
        function.ranks.update(ranks)

    def told(self, key: bytes, ranks: Iterable[int]) -> None:
        """Ranks were given the command that calls a function."""
        function = self._functions.get(key)
        if function is not None:
            function.told.update(ranks)
            if function.told >= function.ranks:
                del self._functions[key]

    def ask_again(self) -> None:
        """The controller was restarted: requests must be repeated."""
        for function in self._functions.values():
            function.asked = set(function.told)

    def due(self, now: float, *, warned: bool = False) -> list[Call]:
        """Return the calls to request from the controller now; with ``warned``, all that are left."""
        calls = []
        for key, function in self._functions.items():
            ranks = function.ranks - function.asked
            if ranks and (warned or now >= self.ends_at - function.seconds):
                function.asked |= ranks
                calls.append(Call(key, function.name, sorted(ranks)))
        return calls

    def overdue(self, now: float) -> list[Call]:
        """Return the calls to make without the controller, if it is unreachable."""
        return [
            Call(key, function.name, sorted(function.ranks - function.told))
            for key, function in self._functions.items()
            if now >= self.ends_at - function.seconds / 2
        ]

    def next_deadline(self, now: float) -> float | None:
        """Return when to check again if no event occurs."""
        if now >= self.ends_at:
            return None
        begins = [self.ends_at - f.seconds for f in self._functions.values()]
        halves = [self.ends_at - f.seconds / 2 for f in self._functions.values()]
        times = [*begins, *(half if now < half else now + _STILL_THERE for half in halves)]
        return min((when for when in times if now < when < math.inf), default=None)
