"""How often a controller may end the session of a set because of an error of its own (no I/O)."""

from __future__ import annotations

from collections.abc import Callable

_FAULTS, _WITHIN = 10, 60.0
"""This many errors of the controller in this many seconds end the set: they would recur."""


class SessionFaults:
    """The recent ones.

    Args:
        log: called with lines for the log.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._when: list[float] = []

    def may_go_on(self, now: float, reason: str) -> bool:
        """There was another one; return whether to ask for a new session."""
        self._log(f"the controller has ended this session: {reason}. Requesting a new one")
        self._when = [now, *(when for when in self._when if now - when < _WITHIN)]
        return len(self._when) < _FAULTS
