"""How many of the engines of somebody else's controller are ours (no I/O; the time is an argument)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .controllerends import RETURN

FOR_EVER: Final = float("inf")


class OwnCount:
    """The number of our engines, from the ids of all engines.

    Engines that were there before ours belong to others. When a controller was started again, engines come back
    one set after the other: until :data:`RETURN` seconds later, fewer of them are not reported as a loss.

    Attributes:
        told: the number that was reported last.
        waits_until: until when fewer are not reported; infinity while there is no controller.
    """

    def __init__(self) -> None:
        self._others: set[int] | None = None
        self._there: set[int] = set()
        self.told = 0
        self.waits_until = 0.0

    def others_are(self, ids: Iterable[int]) -> None:
        """These were there before ours; only what is said first counts."""
        if self._others is None:
            self._others = set(ids)

    def controller_is_away(self) -> None:
        """The controller has ended, and may be started again."""
        self.waits_until = FOR_EVER
        self._there = set()

    def controller_is_back(self, now: float) -> None:
        """It was started again; engines come back from now on."""
        self.waits_until = now + RETURN
        self._there = set()

    def are(self, ids: Iterable[int], now: float) -> int | None:
        """These are all engines; return the number of ours if it has to be reported."""
        there = set(ids)
        others = set() if self._others is None else self._others
        # An id of others that are gone may be given to one of ours. While they come back, they are not gone.
        others -= self._there - there
        self._there = there
        count = len(there - others)
        if count >= self.told:
            self.waits_until = 0.0
        if count == self.told or now < self.waits_until:
            return None
        self.told = count
        return count
