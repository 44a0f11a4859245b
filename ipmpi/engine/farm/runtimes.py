"""How long tasks take, and how many of them to hand out at a time (no I/O).

A rank is given batches of about :data:`BATCH` seconds, two of them at a time, so that it is busy while messages
travel; a set asks for :data:`AHEAD` seconds of work. Of long tasks each rank has one: a second one would only wait
behind it.
"""

from __future__ import annotations

import math

from ... import limits
from ...protocol.messages import TaskOptions

BATCH = 0.010
"""Seconds of work in one batch."""

MESSAGE = 0.000_2
"""Seconds of work that are worth a message: not every rank needs a part of what is over sooner."""

LARGEST_BATCH = 1024
"""Tasks in one batch: it should come to an end although one of them may take longer than was expected."""

BRIEF = 0.001
"""A task that takes no longer is always queued behind another: to send it later costs as much."""

LONG = 0.050
"""A task that takes longer is never queued behind another."""

AHEAD = 0.030
"""Seconds of work that a set holds for each of its ranks: the way to the controller and back, and some more."""

LARGEST_WINDOW = 20_000
WAITING_BYTES = 64 * limits.MIB
"""Payload that a set holds, about."""

_KNOWN = 1024
_SHORTEST = 1e-7
_MEMORY = 0.05
"""Seconds of work of each rank."""


class RuntimeEstimate:
    """The mean seconds of a kind of task: lately, not ever.

    What counts is the last :data:`_MEMORY` seconds of work, and not so many reports: in a report of a few short
    tasks, one that had to wait for a processor would count as much as the thousands before. But when two reports
    in a row say that tasks take ten times as long, and longer than :data:`LONG`, they do.
    """

    __slots__ = ("_busy", "_suspected", "_tasks")

    def __init__(self, seconds: float | None = None) -> None:
        self._busy = self._tasks = 0.0
        self._suspected = math.inf
        if seconds is not None:
            self.expect(seconds)

    def expect(self, seconds: float) -> None:
        """Forget what was; so long do they take from now on."""
        seconds = max(seconds, _SHORTEST)
        self._busy = min(seconds, _MEMORY)
        self._tasks = self._busy / seconds

    @property
    def seconds(self) -> float | None:
        """The mean; None while nothing is known."""
        return max(self._busy / self._tasks, _SHORTEST) if self._tasks else None

    def seconds_of(self, tasks: int) -> float:
        """The seconds that so many will take; infinite while nothing is known."""
        return math.inf if self.seconds is None else tasks * self.seconds

    def learn(self, busy: float, tasks: int, ranks: int = 1) -> None:
        """So many tasks took one of ``ranks`` ranks ``busy`` seconds together."""
        mean, known = busy / tasks, self.seconds
        if known is not None and max(10 * known, LONG) < mean < math.inf:
            if self._suspected < math.inf:
                self.expect(min(mean, self._suspected))
                self._suspected = mean
                return
            self._suspected = mean
        else:
            self._suspected = math.inf
        self._busy += busy / ranks if busy > 0 else 0.0  # a busy that is no number is no reason to fail
        self._tasks += tasks / ranks
        if self._busy > _MEMORY:
            self._tasks *= _MEMORY / self._busy
            self._busy = _MEMORY


class RuntimeEstimates:
    """What is known of the tasks that were seen lately.

    Groups with the same function share it: who submits one task after the other makes many small groups.
    """

    def __init__(self) -> None:
        self._runtimes: dict[tuple[bytes, float | None], RuntimeEstimate] = {}

    def of(self, options: TaskOptions) -> RuntimeEstimate:
        """The pace of such tasks; to begin with, what their user expects."""
        key = (options.operation, options.expected)
        runtime = self._runtimes.pop(key, None) or RuntimeEstimate(options.expected)
        self._runtimes[key] = runtime
        if len(self._runtimes) > _KNOWN:
            del self._runtimes[next(iter(self._runtimes))]
        return runtime


def batch_size(seconds: float | None, waiting: int, ranks: int) -> int:
    """How many of ``waiting`` tasks one of ``ranks`` gets at a time, if each takes ``seconds``."""
    if seconds is None:
        return 1
    seconds = max(seconds, _SHORTEST)
    share = max(-(-waiting // (2 * ranks)), int(MESSAGE / seconds))
    return max(1, min(int(BATCH / seconds), LARGEST_BATCH, share))


def window_size(seconds: float | None, payload: float, ranks: int) -> int:
    """How many unanswered tasks of so many seconds and bytes ``ranks`` ranks can hold."""
    if seconds is None or ranks == 0:
        return ranks
    if seconds > LONG:
        # A few more than are running, so that a rank need not wait for the controller; what matters little for
        # tasks that are really long would spoil their order.
        spare = ranks * BATCH / seconds
        return ranks + (math.ceil(spare) if seconds < 1.0 else 0)
    wanted = max(3 * ranks, int(AHEAD * ranks / max(seconds, _SHORTEST)))
    return max(ranks, min(wanted, LARGEST_WINDOW, int(WAITING_BYTES / max(payload, 1.0))))
