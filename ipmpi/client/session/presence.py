"""The registered engines, of which the controller informs every client."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence


class Presence:
    """The ids of the engines; any thread may wait for a change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ids: list[int] = []
        self._is_over = False

    @property
    def ids(self) -> list[int]:
        """The ids, ascending."""
        return list(self._ids)

    def update(self, came: Iterable[int], gone: Iterable[int]) -> None:
        """Apply a change that the controller has announced."""
        with self._changed:
            self._ids = sorted((set(self._ids) | set(came)) - set(gone))
            self._changed.notify_all()

    def end(self) -> None:
        """The session has ended: let waiting threads go on."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait_for_number(self, number: int, timeout: float | None) -> list[int]:
        """Wait until there are at least ``number`` engines, and return their ids; fewer after ``timeout`` seconds.

        It returns early if the session ends.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or len(self._ids) >= number, timeout)
            return list(self._ids)

    def wait_for(self, ids: Iterable[int], timeout: float) -> list[int]:
        """Wait until there are all of these engines, and return those of them that there are not.

        It returns early if the session ends.
        """
        wanted = set(ids)
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or wanted <= set(self._ids), timeout)
            return sorted(wanted - set(self._ids))

    def others_than(self, known: Sequence[int]) -> list[int] | None:
        """Wait until the ids differ from ``known``, and return them; None if the session has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._ids != known)
            return None if self._is_over else list(self._ids)
