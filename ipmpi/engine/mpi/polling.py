"""Waiting that another rank's failure can end (knows nothing of MPI).

A rank that blocks inside MPI hears nobody: no interrupt, and no word that the rank it waits for has failed. So the
communicators that tasks on several ranks get (:mod:`ipmpi.engine.mpi.comm`) ask again and again, and look at a
flag in between. It is a flag, not an exception raised from a signal handler: that could strike anywhere, also
where the rank has just got what it waited for.

How often to ask: many times at first, yielding the processor now and then, since a neighbour that works on the
same thing answers within microseconds; then with pauses, since one that computes for minutes deserves this
processor. MPI moves data only while it is asked, so a wait that finds itself moving data makes no pauses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from ...errors import PeerError

Answer = TypeVar("Answer")

ASKS = range(8)
"""Questions per yield: yielding after each makes a small collective on crowded cores half as fast."""
_SPIN = 0.0005
"""Seconds of asking without pauses: longer than a collective among ranks that are all there."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.00005, 0.001
_MOVING = 0.00004
"""Seconds of processor time that eight questions take only if data moved (nothing to do: 2 to 8 microseconds)."""


class Watch:
    """A flag that ends what waits, and the waiting.

    Args:
        left: gives what the failure shall say; None while nobody has failed.
    """

    __slots__ = ("_left",)

    def __init__(self, left: Callable[[], str | None] = lambda: None) -> None:
        self._left = left

    def look(self) -> None:
        """Return while nobody has failed.

        Raises:
            PeerError: the flag is set.
        """
        text = self._left()
        if text is not None:
            raise PeerError(text)

    def wait(self, ask: Callable[[], Answer]) -> Answer:
        """Ask until the answer is true.

        Args:
            ask: asked in this thread, often.

        Returns:
            The first true answer.

        Raises:
            PeerError: the flag was set while the answer was not yet true.
        """
        for _ in ASKS:
            if answer := ask():
                return answer
        end, pause = time.monotonic() + _SPIN, 0.0
        while True:
            self.look()
            if pause:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                before = time.thread_time()
            else:
                os.sched_yield()
                if time.monotonic() > end:
                    pause = _FIRST_PAUSE
                before = 0.0
            for _ in ASKS:
                if answer := ask():
                    return answer
            if before and time.thread_time() - before > _MOVING:
                end, pause = time.monotonic() + _SPIN, 0.0
