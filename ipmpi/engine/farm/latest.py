"""Until when tasks of a set can begin, if its job comes to an end (no I/O; the time is an argument)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .chunks import GroupShare

_LENIENT = 2.0
"""Seconds that a task may be too long. The controller has the same rule, and a clock that is a little late."""


class LatestStarts:
    """Groups that say how long their tasks take, and the end of the job.

    Attributes:
        ends_at: when the job ends; infinite if that is not known.
        look_at: when it is too late for some group; infinite if there is none.
    """

    def __init__(self) -> None:
        self.ends_at = self.look_at = math.inf

    def note(self, group: GroupShare) -> None:
        """Tasks of a group came."""
        if group.options.expected is not None:
            self.look_at = min(self.look_at, self.ends_at - group.options.expected + _LENIENT)

    def late(self, groups: Iterable[GroupShare], now: float) -> list[GroupShare]:
        """Those whose tasks would not end before the job does; to be called at ``look_at``."""
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
