"""The loop of a process in the simulation: its time is that of the stage, and it turns when it is told to."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from ipmpi.transport.loop import Timer
from tests.controller.journal_stage import JournalStage

Call = Callable[[], object]


class StageLoop:
    """Does what :class:`ipmpi.transport.loop.Loop` does, without descriptors and threads."""

    thread = -1

    def __init__(self) -> None:
        self._posted: deque[Call] = deque()
        self._turn_end: dict[Call, None] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return JournalStage.clock.monotonic()

    def call_soon(self, call: Call, on_error: Any = None) -> None:
        del on_error
        self._posted.append(call)

    call_threadsafe = call_soon

    def call_at_turn_end(self, call: Call, on_error: Any = None) -> None:
        del on_error
        self._turn_end[call] = None

    def call_later(self, delay: float, call: Call, on_error: Any = None) -> Timer:
        return self.call_at(self.now() + delay, call, on_error)

    def call_at(self, when: float, call: Call, on_error: Any = None) -> Timer:
        del on_error
        timer = Timer(when, call)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def call_later_threadsafe(self, delay: float, call: Call) -> None:
        self.call_later(delay, call)

    def report(self, error: BaseException) -> None:
        raise error

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be called before some time has passed."""
        return not (self._posted or self._turn_end)

    def turn(self) -> None:
        """Make the calls that are due."""
        while self._timers and self._timers[0][0] <= self.now():
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                call()
        while self._posted:
            self._posted.popleft()()
        while self._turn_end:
            calls, self._turn_end = self._turn_end, {}
            for call in calls:
                call()
