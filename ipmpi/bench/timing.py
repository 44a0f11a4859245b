"""Take times, within limits."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType


class TookTooLong(Exception):
    """A part of the measurement did not come to its end."""


def sample(call: Callable[[], object], repeat: int, *, warm: int = 1, budget: float = 4.0) -> list[float]:
    """Seconds of each of ``repeat`` calls, after ``warm`` others.

    Stops early, with at least one time, when ``budget`` seconds are over. Of the others, only the first may begin
    after half of that.
    """
    begin = time.perf_counter()
    end = begin + budget
    for number in range(warm):
        if not number or time.perf_counter() < begin + budget / 2:
            call()
    times: list[float] = []
    while len(times) < max(1, repeat) and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


@contextlib.contextmanager
def limited(seconds: float, what: str) -> Iterator[None]:
    """Raise :class:`TookTooLong` in the body if it takes longer. To be used in the main thread."""

    def ring(_signum: int, _frame: FrameType | None) -> None:
        raise TookTooLong(
            f"'{what}' was given up after {seconds:g} s. If the machine is not just slow, look into the log files "
            "of controller and engines (--keep-logs FOLDER keeps them)"
        )

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
