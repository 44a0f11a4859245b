"""When a call was made and when it was done, by this machine's clock."""

from __future__ import annotations

import time
from datetime import datetime

from .waiting import SessionFuture


class CallTimes:
    """The times of one call, which begins when this is made.

    Thread-safety: :meth:`complete` is called once; everything else may be called from any thread.

    Attributes:
        begun: when it began, by the monotonic clock.
    """

    __slots__ = ("_clock", "_ended", "begun")

    def __init__(self) -> None:
        self._clock = time.time()
        self.begun = time.monotonic()
        self._ended: float | None = None

    def complete(self) -> None:
        """The call is done; later calls change nothing."""
        if self._ended is None:
            self._ended = time.monotonic()

    @property
    def started(self) -> datetime:
        """When the call was made, with the local time zone."""
        return datetime.fromtimestamp(self._clock).astimezone()

    @property
    def completed(self) -> datetime | None:
        """When it was done, with the local time zone; None if it is not."""
        length = self.wall_time
        return None if length is None else datetime.fromtimestamp(self._clock + length).astimezone()

    @property
    def elapsed(self) -> float:
        """Seconds since the call was made, until it was done."""
        ended = self._ended
        return (time.monotonic() if ended is None else ended) - self.begun

    @property
    def wall_time(self) -> float | None:
        """Seconds from the call until it was done; None if it is not."""
        return None if self._ended is None else self._ended - self.begun


class TimedFuture(SessionFuture):
    """A future that tells when its call was made, and when its result arrived.

    Args:
        times: those of the call.
    """

    def __init__(self, times: CallTimes) -> None:
        super().__init__()
        self._times = times

    @property
    def started(self) -> datetime:
        """When the call was made, by the clock of this machine, with its time zone."""
        return self._times.started

    @property
    def completed(self) -> datetime | None:
        """When the result arrived, by the clock of this machine; None if it has not."""
        return self._times.completed

    @property
    def elapsed(self) -> float:
        """Seconds since the call was made, until its result arrived."""
        return self._times.elapsed

    @property
    def wall_time(self) -> float | None:
        """Seconds from the call to its result; None if that has not arrived."""
        return self._times.wall_time
