"""When a session whose link broke dials again (no I/O; the time is an argument)."""

from __future__ import annotations

import random

from ... import limits


class Redialling:
    """The pauses between two attempts to reach a controller.

    They grow by ``limits.RECONNECT_FACTOR``, up to ``limits.RECONNECT_LONGEST``. A controller that was killed
    listens again a second or two later, so for the first ``limits.RECONNECT_SOON`` seconds they are at most
    ``limits.RECONNECT_OFTEN``: who dials less often by then would notice it late.
    """

    def __init__(self) -> None:
        self.link_is_up()

    def link_is_up(self) -> None:
        """There is a link: what comes next is the first attempt after its end."""
        self._pause = limits.RECONNECT_FIRST
        self._began: float | None = None

    def pause(self, now: float, *, is_cheap: bool) -> float:
        """Return the seconds until the next attempt, after one that has failed.

        Args:
            now: the present time.
            is_cheap: whether an attempt in vain is just refused by a kernel, and goes through no proxy and no ssh.
        """
        if self._began is None:
            self._began = now
        pause, longest = self._pause, limits.RECONNECT_LONGEST
        if is_cheap and now - self._began < limits.RECONNECT_SOON:
            longest = limits.RECONNECT_OFTEN
        self._pause = min(pause * limits.RECONNECT_FACTOR, longest)
        # Jitter, so that a thousand sets do not knock together.
        return min(pause, longest) * random.uniform(0.7, 1.3)
