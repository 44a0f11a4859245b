"""The registered engines, of which the controller informs every client, and values that programs tell."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence

from ...protocol.steering import Watched

_KEPT = 1_000
"""Messages of a watch that are kept for a program that does not read them: at 20 a second, 50 s."""


class Presence:
    """The ids of the engines; any thread may wait for a change.

    Attributes:
        restarts: how often the controller was started again from its journal.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ids: list[int] = []
        self._is_over = False
        self.restarts = 0
        self._watches: dict[int, deque[Watched]] = {}

    @property
    def ids(self) -> list[int]:
        """The ids, ascending."""
        return list(self._ids)

    def update(self, came: Iterable[int], gone: Iterable[int]) -> None:
        """Apply a change that the controller has announced."""
        with self._changed:
            self._ids = sorted((set(self._ids) | set(came)) - set(gone))
            self._changed.notify_all()

    def begin_again(self) -> None:
        """The controller was started again, and no engine has come back yet."""
        with self._changed:
            self.restarts += 1
            self._ids = []
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

    def watch(self, number: int) -> None:
        """Keep what comes of this watch, until :meth:`unwatch`."""
        with self._changed:
            self._watches[number] = deque(maxlen=_KEPT)

    def unwatch(self, number: int) -> None:
        """Keep nothing of it any more."""
        with self._changed:
            self._watches.pop(number, None)
            self._changed.notify_all()

    def watched(self, message: Watched) -> None:
        """Values have come."""
        with self._changed:
            queue = self._watches.get(message.watch)
            if queue is not None:
                queue.append(message)
                self._changed.notify_all()

    def next_watched(
        self, number: int, engines: Iterable[int], timeout: float | None = None
    ) -> list[Watched] | None:
        """Wait for values, and return all that have come; an empty list when the time is up.

        It is None if no more will come: one of the engines is gone, the session has ended, or nobody watches.
        """
        wanted = set(engines)
        with self._changed:

            def has_ended() -> bool:
                return self._is_over or number not in self._watches or not wanted <= set(self._ids)

            self._changed.wait_for(lambda: self._watches.get(number) or has_ended(), timeout)
            queue = self._watches.get(number)
            if queue:
                found = list(queue)
                queue.clear()
                return found
            return None if has_ended() else []

    def others_than(
        self, known: Sequence[int] | None, timeout: float | None = None
    ) -> tuple[list[int], int] | None:
        """Wait until the ids differ from ``known``, and return them; None if the session has ended.

        After ``timeout`` seconds, they are returned as they are. With them comes :attr:`restarts`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._ids != known, timeout)
            return None if self._is_over else (list(self._ids), self.restarts)
