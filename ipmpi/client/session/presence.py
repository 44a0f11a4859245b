"""Which engines there are, as the controller tells every client without being asked."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence


class Presence:
    """The ids of the engines; any thread may wait until they are others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ids: list[int] = []
        self._is_over = False

    @property
    def ids(self) -> list[int]:
        """Ascending."""
        return list(self._ids)

    def update(self, came: Iterable[int], gone: Iterable[int]) -> None:
        """The controller has told something new."""
        with self._changed:
            self._ids = sorted((set(self._ids) | set(came)) - set(gone))
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing new will come: whoever waits is let go."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def others_than(self, known: Sequence[int]) -> list[int] | None:
        """Wait until they are others than ``known``, ascending; None if nothing new will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._ids != known)
            return None if self._is_over else list(self._ids)
