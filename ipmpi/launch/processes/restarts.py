"""The limit on restarts of engines that have ended (no I/O; the time is an argument)."""

from __future__ import annotations

from typing import Final

DEFAULT: Final = 3
"""As many as a task may crash its engines before it fails: so all other tasks are run."""

SETTLED: Final = 600.0
"""Seconds of running engines after which the count of restarts is reset."""

WITHOUT_ENGINES: Final = 600.0
"""Seconds for which a controller without engines keeps waiting tasks, in case engines are started."""


class Restarts:
    """Counts restarts.

    Args:
        most: number of restarts before engines have settled.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._left = most
        self._up_at: float | None = None

    def up(self, now: float) -> None:
        """All engines are registered."""
        self._up_at = now

    def take(self, now: float) -> str:
        """Count a restart; return its number as text, "" if there were too many."""
        if self._up_at is not None and now - self._up_at >= SETTLED:
            self._left = self.most
        self._up_at = None
        if not self._left:
            return ""
        self._left -= 1
        return f"{self.most - self._left} of {self.most}"
