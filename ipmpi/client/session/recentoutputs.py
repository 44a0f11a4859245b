"""What engines have printed for the last commands of a client."""

from __future__ import annotations

import operator
import threading
import time
from collections import deque
from typing import Final, NamedTuple

from ... import limits
from .commandoutput import CommandOutput

KEPT: Final = 50
"""Commands whose output is kept."""

KEPT_TEXT: Final = 4 * limits.MIB
"""Characters of output of earlier commands; the oldest are dropped first."""


class RecentOutput(NamedTuple):
    """The output of one command; ``began`` is in seconds since the epoch."""

    began: float
    label: str
    output: CommandOutput


_size: Final = operator.attrgetter("output.size")


class RecentOutputs:
    """The outputs of the last commands, oldest first.

    Thread-safety: all methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[RecentOutput] = deque(maxlen=KEPT)

    def add(self, label: str, output: CommandOutput) -> None:
        """Keep the output of one more command, which may still be printing."""
        with self._lock:
            size = sum(map(_size, self._kept))
            while size > KEPT_TEXT:
                size -= self._kept.popleft().output.size
            self._kept.append(RecentOutput(time.time(), label, output))

    def all(self) -> list[RecentOutput]:
        """Return those that are kept."""
        with self._lock:
            return list(self._kept)
