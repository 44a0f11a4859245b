"""The log of exceptions that nobody foresaw."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Final

log = logging.getLogger("ipmpi")

REPEAT: Final = 60.0
"""Seconds for which the same exception from the same line is only counted: a busy link would fill the disk."""
_PLACES = 1000


class ErrorLog:
    """Writes the traceback of each exception, of equal ones the first in a minute.

    Args:
        now: gives the time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._logged: dict[tuple[type[BaseException], str, int], tuple[float, int]] = {}
        """By class and line: when it was logged last, and how often it has come since."""

    def report(self, error: BaseException) -> None:
        """Log an exception."""
        frames = list(traceback.walk_tb(error.__traceback__))
        file, line = (frames[-1][0].f_code.co_filename, frames[-1][1]) if frames else ("", 0)
        place = type(error), file, line
        now = self._now()
        last, count = self._logged.get(place, (-REPEAT, 0))
        if now - last < REPEAT:
            self._logged[place] = last, count + 1
            return
        if len(self._logged) >= _PLACES:
            self._logged.clear()
        self._logged[place] = now, 0
        again = f" ({count} more of these since the last one was logged)" if count else ""
        log.error(
            "an error that was not foreseen; please report this%s", again,
            exc_info=(type(error), error, error.__traceback__),
        )  # fmt: skip
