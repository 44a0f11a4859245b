"""Whether a controller that was killed is started again (no I/O; the time is an argument)."""

from __future__ import annotations

from collections import deque
from typing import Final

from ipmpi.exits import how_it_ended
from ipmpi.launch.cluster.effects import StartController

MOST: Final = 5
"""Starts within :data:`WITHIN` after which a controller is given up: it would end again."""

WITHIN: Final = 60.0
"""Seconds."""

_PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before a start, by how many there were within :data:`WITHIN`."""

RETURN: Final = 25.0
"""Seconds after a start for engine sets to come back, before those that are missing count as lost: they dial at
intervals that grow to 1.3 * RECONNECT_LONGEST, and connecting takes a moment."""


class ControllerEnds:
    """The unexpected ends of a controller, and its starts after them.

    Attributes:
        due: when it has to be started; None if it need not be.
        returns_until: until when engine sets may be coming back.
    """

    def __init__(self) -> None:
        self._starts: deque[float] = deque()
        self._how = ""
        self.due: float | None = None
        self.returns_until = 0.0

    def ended(self, code: int, now: float) -> str:
        """It has ended unexpectedly: return "" if it will be started again, else why it is given up."""
        while self._starts and now - self._starts[0] >= WITHIN:
            self._starts.popleft()
        self._how = f"The controller ended unexpectedly ({how_it_ended(code)})"
        if len(self._starts) >= MOST:
            return f"{self._how}, although it was started again {MOST} times within {WITHIN:g} s."
        self.due = now + _PAUSES[len(self._starts)]
        return ""

    def start(self, now: float) -> StartController | None:
        """Return the effect if it is to be started now, which counts as a start."""
        if self.due is None or now < self.due:
            return None
        self.due = None
        self._starts.append(now)
        self.returns_until = now + RETURN
        return StartController(f"{self._how}. It is started again, with the same furls.")
