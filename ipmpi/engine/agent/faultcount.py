"""How many errors of the controller a set puts up with (no I/O)."""

from __future__ import annotations

from typing import Final

FAULTS: Final = 10
WITHIN: Final = 60.0
"""This many errors of the controller in this many seconds end the set: they would recur."""


class FaultCount:
    """The recent errors of the controller."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def may_go_on(self, now: float) -> bool:
        """Count an error; return whether to ask for a new session after it."""
        self._times = [now, *(when for when in self._times if now - when < WITHIN)]
        return len(self._times) < FAULTS
