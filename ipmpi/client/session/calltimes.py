"""When a call was made and when it was done, by this machine's clock."""

from __future__ import annotations

import time
from datetime import datetime


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
