"""How many errors of the controller an engine set outlives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MOST: Final = 10
WITHIN: Final = 60.0
"""This many errors of the controller in this many seconds end the set: they would recur."""


class ControllerFaults:
    """The recent errors of the controller.

    Args:
        now: returns the time.
        log: called with lines for the log.
    """

    def __init__(self, now: Callable[[], float], log: Callable[[str], None]) -> None:
        self._now = now
        self._log = log
        self._times: list[float] = []

    def may_go_on(self, reason: str) -> bool:
        """Count an error of the controller; return whether to ask it for a new session."""
        now = self._now()
        self._times = [now, *(when for when in self._times if now - when < WITHIN)]
        self._log(f"the controller has ended this session: {reason}. Requesting a new one")
        return len(self._times) < MOST
