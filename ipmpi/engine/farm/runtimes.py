"""Estimates of run times, and sizes of batches (no I/O).

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
"""Seconds of work that are worth a message: less is not divided among ranks."""

LARGEST_BATCH = 1024
"""Most tasks in one batch, in case they take longer than estimated."""

BRIEF = 0.001
"""A shorter task is always queued behind another: sending it later would cost as much."""

LONG = 0.050
"""A longer task is never queued behind another."""

AHEAD = 0.030
"""Seconds of work that a set holds per rank: more than a round trip to the controller."""

LARGEST_WINDOW = 20_000
WAITING_BYTES = 64 * limits.MIB
"""Approximate bytes of payload that a set holds."""

_KNOWN = 1024
_SHORTEST = 1e-7
_MEMORY = 0.05
"""Seconds of work of each rank that an estimate covers."""


class RuntimeEstimate:
    """The recent mean run time of a kind of task, in seconds.

    It covers the last :data:`_MEMORY` seconds of work, not a number of reports: otherwise one short task that
    waited for a processor would count as much as thousands before. But if two reports in a row show tasks that
    take ten times as long, and longer than :data:`LONG`, they are believed.
    """

    __slots__ = ("_busy", "_suspected", "_tasks")

    def __init__(self, seconds: float | None = None) -> None:
        self._busy = self._tasks = 0.0
        self._suspected = math.inf
        if seconds is not None:
            self.expect(seconds)

    def expect(self, seconds: float) -> None:
        """Replace the estimate."""
        seconds = max(seconds, _SHORTEST)
        self._busy = min(seconds, _MEMORY)
        self._tasks = self._busy / seconds

    @property
    def seconds(self) -> float | None:
        """The mean; None while unknown."""
        return max(self._busy / self._tasks, _SHORTEST) if self._tasks else None

    def seconds_of(self, tasks: int) -> float:
        """Return the estimated seconds for ``tasks`` tasks; infinite while unknown."""
        return math.inf if self.seconds is None else tasks * self.seconds

    def learn(self, busy: float, tasks: int, ranks: int = 1) -> None:
        """Add a report: ``tasks`` tasks took one of ``ranks`` ranks ``busy`` seconds in total."""
        mean, known = busy / tasks, self.seconds
        if known is not None and max(10 * known, LONG) < mean < math.inf:
            if self._suspected < math.inf:
                self.expect(min(mean, self._suspected))
                self._suspected = mean
                return
            self._suspected = mean
        else:
            self._suspected = math.inf
        self._busy += busy / ranks if busy > 0 else 0.0  # also ignores nan
        self._tasks += tasks / ranks
        if self._busy > _MEMORY:
            self._tasks *= _MEMORY / self._busy
            self._busy = _MEMORY


class RuntimeEstimates:
    """The estimates for recent kinds of tasks.

    Groups with the same function share an estimate, since single submissions make many small groups.
    """

    def __init__(self) -> None:
        self._runtimes: dict[tuple[bytes, float | None], RuntimeEstimate] = {}

    def of(self, options: TaskOptions) -> RuntimeEstimate:
        """Return the estimate for such tasks, initially the user's."""
        key = (options.operation, options.expected)
        runtime = self._runtimes.pop(key, None) or RuntimeEstimate(options.expected)
        self._runtimes[key] = runtime
        if len(self._runtimes) > _KNOWN:
            del self._runtimes[next(iter(self._runtimes))]
        return runtime


def batch_size(seconds: float | None, waiting: int, ranks: int) -> int:
    """Return how many of ``waiting`` tasks one of ``ranks`` gets at a time, if each takes ``seconds``."""
    if seconds is None:
        return 1
    seconds = max(seconds, _SHORTEST)
    share = max(-(-waiting // (2 * ranks)), int(MESSAGE / seconds))
    return max(1, min(int(BATCH / seconds), LARGEST_BATCH, share))


def window_size(seconds: float | None, payload: float, ranks: int) -> int:
    """Return how many tasks of so many seconds and bytes a set of ``ranks`` ranks may hold."""
    if seconds is None or ranks == 0:
        return ranks
    if seconds > LONG:
        # A few more than are running, so that ranks need not wait for the controller. For very long tasks that
        # wait is negligible, and holding more would spoil their order.
        spare = ranks * BATCH / seconds
        return ranks + (math.ceil(spare) if seconds < 1.0 else 0)
    wanted = max(3 * ranks, int(AHEAD * ranks / max(seconds, _SHORTEST)))
    return max(ranks, min(wanted, LARGEST_WINDOW, int(WAITING_BYTES / max(payload, 1.0))))
