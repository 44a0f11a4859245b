"""When single tasks that were submitted in quick succession are sent (no I/O)."""

from __future__ import annotations

from typing import Final

GATHER: Final = 0.001
"""Seconds for which such tasks are collected into one message, while engines are busy."""

GATHER_LONGEST: Final = 0.02
GATHER_PER_TASK: Final = 1e-6
"""It is longer, the more tasks wait already: a message of many costs little more than one of few. No engines end
more than a task per microsecond, so they do not run out of work meanwhile."""


class Pace:
    """Collects tasks; not thread-safe.

    Attributes:
        under_way: how many tasks were sent and have not ended.
    """

    def __init__(self) -> None:
        self.under_way = 0
        self._flushed_at = 0.0

    def flushed(self, now: float) -> None:
        """All that waited was sent."""
        self._flushed_at = now

    def wait(self, now: float) -> float:
        """Return for how many seconds a task that was submitted just now waits for others; 0 if it does not."""
        gather = max(GATHER, min(GATHER_LONGEST, self.under_way * GATHER_PER_TASK))
        return gather if now - self._flushed_at < gather else 0.0
