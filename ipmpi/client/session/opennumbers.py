"""The numbers of commands that have not ended, so that a controller can be told which have."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator


class OpenNumbers:
    """Numbers that no other call of a session has, and which of them are those of open commands.

    Thread-safety: all methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._numbers: Iterator[int] = itertools.count(1)
        self._lock = threading.Lock()
        self._open: OrderedDict[int, None] = OrderedDict()
        """Ascending. Its first is found at once, even after many were removed."""
        self.has_begun = False
        """Whether there ever was a command."""

    def take(self) -> int:
        """Return a new number, which is not that of a command."""
        return next(self._numbers)

    def begin(self) -> tuple[int, int]:
        """Return a new number, of a command; and a number below which all commands have ended."""
        with self._lock:  # so that a command with a smaller number cannot begin later
            self.has_begun = True
            number = next(self._numbers)
            self._open[number] = None
            return number, next(iter(self._open))

    def ends(self, number: int) -> Callable[[object], None]:
        """Return a callback for the future of a command."""
        return lambda _future: self.end(number)

    def end(self, number: int) -> None:
        """A command has ended, or will not be sent."""
        with self._lock:
            self._open.pop(number, None)
