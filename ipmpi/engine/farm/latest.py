"""The latest start times of tasks, before the end of the job (no I/O; the time is an argument)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .chunks import GroupShare

_LENIENT = 2.0
"""Tolerance in seconds. The controller has the same rule, and a clock that is a little late."""


class LatestStarts:
    """The groups with an expected run time, and the end of the job.

    Attributes:
        ends_at: when the job ends; infinite if unknown.
        look_at: when to call :meth:`late` next; infinite if never.
    """

    def __init__(self) -> None:
        self.ends_at = self.look_at = math.inf

    def note(self, group: GroupShare) -> None:
        """Tasks of a group have arrived."""
        if group.options.expected is not None:
            self.look_at = min(self.look_at, self.ends_at - group.options.expected + _LENIENT)

    def late(self, groups: Iterable[GroupShare], now: float) -> list[GroupShare]:
        """Return the groups whose tasks would not end before the job; call it at ``look_at``."""
        self.look_at = math.inf
        found: list[GroupShare] = []
        for group in groups:
            if group.options.expected is None:
                continue
            if now < self.ends_at - group.options.expected + _LENIENT:
                self.note(group)
            else:
                found.append(group)
        return found
