"""What the root agent of a set does before its job ends, and when (no I/O; the time is an argument).

The rules.

* A function that is to be called before the end is kept by each rank, under a key; the root agent keeps the key,
  the ranks, and the seconds.
* When its time has come, or the batch system has warned, it asks the controller to give the ranks a command
  which calls it. The controller has the queues: it finds a place in the order of commands that no rank has passed.
* If half of the time is gone, and the controller cannot be heard, the set does without it.
* A rank calls each function once, however often it is told to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

METHOD: Final = "before_walltime"
"""The client's method, by which commands about this are known."""

_STILL_THERE: Final = 5.0
"""Seconds between looks at whether the controller can be heard, once half of the time is gone."""


class Call(NamedTuple):
    """A function that these ranks are to call now."""

    key: bytes
    name: str
    ranks: list[int]


class _Function:
    """One that waits for its time: ranks that have it, those that were asked for, and those that were told."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.ranks: set[int] = set()
        self.asked: set[int] = set()
        self.told: set[int] = set()


class JobDeadline:
    """The end of a set's job.

    Attributes:
        ends_at: when it is; infinite if that is not known.
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
        """The controller began anew, and knows of nothing."""
        for function in self._functions.values():
            function.asked = set(function.told)

    def due(self, now: float, *, warned: bool = False) -> list[Call]:
        """What the controller is to be asked for now; with ``warned``, all that has not been asked for."""
        calls = []
        for key, function in self._functions.items():
            ranks = function.ranks - function.asked
            if ranks and (warned or now >= self.ends_at - function.seconds):
                function.asked |= ranks
                calls.append(Call(key, function.name, sorted(ranks)))
        return calls

    def overdue(self, now: float) -> list[Call]:
        """What is to be called without the controller, if that is not there."""
        return [
            Call(key, function.name, sorted(function.ranks - function.told))
            for key, function in self._functions.items()
            if now >= self.ends_at - function.seconds / 2
        ]

    def next_deadline(self, now: float) -> float | None:
        """When to look again although nothing has happened."""
        if now >= self.ends_at:
            return None
        begins = [self.ends_at - f.seconds for f in self._functions.values()]
        halves = [self.ends_at - f.seconds / 2 for f in self._functions.values()]
        times = [*begins, *(half if now < half else now + _STILL_THERE for half in halves)]
        return min((when for when in times if now < when < math.inf), default=None)
