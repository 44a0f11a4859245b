"""Functions that engines of all systems run. They import this module, so it imports next to nothing."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any

from ipmpi.bench.workloads import nothing as nothing

MEETING_SECONDS = 30.0


def part(number: int, of: int, size: int) -> Any:
    """One of ``of`` equal parts of an array of ``size`` bytes; made once in a process."""
    return _made(number, of, size)  # some systems want a function that they can ask for its signature


@functools.lru_cache(8)
def _made(number: int, of: int, size: int) -> Any:
    import numpy

    count = size // 8
    return numpy.arange(number * count // of, (number + 1) * count // of, dtype=numpy.float64)


def meet(folder: str, engines: int) -> None:
    """Wait in as many processes as there are engines, until all are there.

    Raises:
        TimeoutError: not all came.
    """
    Path(folder, str(os.getpid())).touch()
    end = time.monotonic() + MEETING_SECONDS
    while len(os.listdir(folder)) < engines:
        if time.monotonic() > end:
            raise TimeoutError(f"{len(os.listdir(folder))} of {engines} workers came")
        time.sleep(0.001)


class Kept:
    """What an engine keeps, where engines are objects."""

    def __init__(self) -> None:
        self._value: Any = None

    def keep(self, value: Any) -> None:
        """Keep a value."""
        self._value = value

    def make(self, size: int) -> None:
        """Keep an array of ``size`` bytes."""
        self._value = part(0, 1, size)

    def kept(self) -> Any:
        """What was kept."""
        return self._value
