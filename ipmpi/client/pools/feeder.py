"""The thread that reads the items of ``Pool.imap``."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from ...errors import ResultNotCompleted
from ..session.given import waiting_time
from ..session.results import wait_until_done
from ..session.waiting import check_process, check_waiting, forks
from ..tasks.futures import TaskFuture
from .inflight import Row

AHEAD: Final = 10_000
"""How many calls are submitted from an iterable without a length before it is read on."""

Ended = concurrent.futures.Future[Any]


class PoolTimeout(ResultNotCompleted, multiprocessing.TimeoutError):
    """A pool's result did not arrive in time; a ``multiprocessing.TimeoutError`` and a ``TimeoutError``."""


class Feeder(threading.Thread):
    """Submits the items of an iterable that may be slow or endless, and returns the results.

    Args:
        submit: submits a call.
        rows: the arguments of each.
        ordered: whether the results come in the order of the items.
        bound: how many calls may be submitted at a time.
        until_taken: whether a call counts until its result was taken; else until it has ended.
    """

    def __init__(
        self,
        submit: Callable[[Row], TaskFuture],
        rows: Iterable[Row],
        ordered: bool,
        bound: int,
        *,
        until_taken: bool,
    ) -> None:
        super().__init__(name="ipmpi-imap", daemon=True)
        self._submit = submit
        self._rows = rows
        self._ordered = ordered
        self._room = threading.Semaphore(bound)
        self._until_taken = until_taken
        self._stopped = False
        self._refusal: BaseException | None = None
        self._came: queue.SimpleQueue[Ended | tuple[int, BaseException | None]] = queue.SimpleQueue()
        self._next: Ended | None = None
        self._left: int | None = None
        self._taken = 0
        self._error: BaseException | None = None
        self._born = forks()

    def run(self) -> None:
        """Called by the new thread."""
        number, error = 0, None
        try:
            rows = iter(self._rows)
            while True:
                self._room.acquire()  # before an item is made, since that may be large
                if self._stopped:
                    error = self._refusal
                    break
                row = next(rows, None)
                if row is None:
                    break
                future = self._submit(row)
                number += 1
                if not self._until_taken:
                    future.add_done_callback(lambda _: self._room.release())
                if self._ordered:
                    self._came.put(future)
                else:
                    future.add_done_callback(self._came.put)
        except BaseException as raised:
            # The user's iterable raised, or the pool was terminated: raised after the results of the items before.
            error = raised
        self._came.put((number, error))

    def stop(self, refusal: BaseException | None = None) -> None:
        """Read no more items; ``refusal`` is raised after the results of those before."""
        self._refusal, self._stopped = refusal, True
        self._room.release()

    def next(self, timeout: float | None) -> Any:
        """See :meth:`IMapIterator.next`."""
        timeout = waiting_time(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        check_process(self._born)
        while self._next is None:
            if self._taken == self._left:
                error, self._error = self._error, None
                raise StopIteration if error is None else error
            if self._came.empty():
                check_waiting()
            try:
                came = self._came.get(timeout=_remaining(deadline))
            except queue.Empty:
                raise too_late() from None
            if isinstance(came, tuple):
                self._left, self._error = came
            else:
                self._next = came
        if not wait_until_done(self._next, _remaining(deadline)):
            raise too_late()
        future, self._next = self._next, None
        self._taken += 1
        if self._until_taken:
            self._room.release()
        return future.result()


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def too_late() -> Exception:
    """Return the exception for a result that has not arrived in time."""
    return PoolTimeout("the result did not arrive in time; ask again")
