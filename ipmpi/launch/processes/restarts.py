"""How often engines that have ended are started again (no I/O; the time is an argument)."""

from __future__ import annotations

from typing import Final

DEFAULT: Final = 3
"""A task that ends its engines is given up after so many of them: then all others are run."""

SETTLED: Final = 600.0
"""Seconds after which engines that live are not failing ones: from then on they count anew."""

WITHOUT_ENGINES: Final = 600.0
"""Seconds for which a controller keeps the tasks that wait when no engine is left: somebody may start others."""


class Restarts:
    """Counts them.

    Args:
        most: that there may be before engines have settled.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._left = most
        self._up_at: float | None = None

    def up(self, now: float) -> None:
        """All engines are there."""
        self._up_at = now

    def take(self, now: float) -> str:
        """Start them once more: which time this is, for people; empty if it was often enough."""
        if self._up_at is not None and now - self._up_at >= SETTLED:
            self._left = self.most
        self._up_at = None
        if not self._left:
            return ""
        self._left -= 1
        return f"{self.most - self._left} of {self.most}"
