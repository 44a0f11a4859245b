"""Polling that another rank's failure can end (independent of MPI).

A rank that blocks inside MPI notices neither interrupts nor the failure of the rank that it waits for. So the
communicators of gang tasks (:mod:`ipmpi.engine.mpi.comm`) poll, and check a flag in between. An exception from a
signal handler instead of the flag could strike anywhere, even right after the wait has succeeded.

Polling starts without pauses, but yields the processor now and then, since a neighbour in the same call answers
within microseconds; then it pauses, to leave the processor to others. MPI moves data only while it is called, so a
wait that moves data makes no pauses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from ...errors import KernelError, PeerError

Answer = TypeVar("Answer")

ASKS = range(8)
"""Tests per yield: yielding after each makes a small collective on crowded cores half as fast."""
_SPIN = 0.0005
"""Seconds of polling without pauses: longer than a collective whose ranks have all arrived."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.00005, 0.001
_MOVING = 0.00004
"""Seconds of processor time that eight tests take only if data moved (else 2 to 8 microseconds)."""

_ARRIVED = 0.2
"""Seconds within which a rank hears that all ranks have arrived somewhere: far longer than a message takes."""


class Watch:
    """The polling loop, and the flag that ends it.

    Args:
        left: returns the failure, or its text; None while no rank has failed.
    """

    __slots__ = ("_left",)

    def __init__(self, left: Callable[[], KernelError | str | None] = lambda: None) -> None:
        self._left = left

    def look(self) -> None:
        """Check the flag.

        Raises:
            PeerError: the flag is set.
            KernelError: there is no communicator.
        """
        failure = self._left()
        if failure is not None:
            raise PeerError(failure) if isinstance(failure, str) else failure

    def wait(self, ask: Callable[[], Answer]) -> Answer:
        """Call ``ask`` until it returns a true value.

        Args:
            ask: called in this thread, often.

        Returns:
            The first true value.

        Raises:
            PeerError: the flag was set before.
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

    def wait_for_all(self, ask: Callable[[], object], longer: float = _ARRIVED) -> BaseException | None:
        """Wait until all ranks have arrived at a call that cannot be left once it was begun.

        If the wait is to end before, others may have seen the last rank arrive, and have begun the call. So it is
        awaited a little longer: if all are there, this rank must begin the call as well.

        Args:
            ask: returns whether all ranks have arrived.
            longer: seconds.

        Returns:
            What to raise after the call, or None.

        Raises:
            PeerError: not all have arrived. So does whatever else ends the wait.
        """
        try:
            self.wait(ask)
            return None
        except BaseException as error:
            end = time.monotonic() + longer
            while not ask():
                if time.monotonic() > end:
                    raise
                time.sleep(_FIRST_PAUSE)
            return error
