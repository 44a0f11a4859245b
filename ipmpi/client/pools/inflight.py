"""What an executor or a pool has under way: its calls, and whether there may be more."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..session.functions import OfThisProgram
from ..session.waiting import check_waiting
from ..tasks.calloptions import settings_of
from ..tasks.futures import TaskFuture, cancel_all
from ..tasks.mapresults import MapResults
from ..tasks.terms import TaskSettings
from .initializers import Initializer

if TYPE_CHECKING:
    from ..session.functions import Definition

GRACE: Final = 5.0
"""Seconds for which calls that were stopped are waited for."""

Row = tuple[Any, ...]


class Client(Protocol):
    """The part of :class:`~ipmpi.client.TaskClient` that is needed."""

    def call(
        self,
        f: Callable[..., Any],
        args: Row,
        kwargs: dict[str, Any],
        settings: TaskSettings,
        depend: Callable[[dict[str, Any]], bool] | None = None,
    ) -> TaskFuture:
        """Call a function on an engine."""

    def define(self, function: Callable[..., Any]) -> Definition:
        """Pickle a function."""

    def stream(
        self,
        definition: Definition,
        rows: Iterable[Row],
        settings: TaskSettings,
        depend: Callable[[dict[str, Any]], bool] | None = None,
        ordered: bool = True,
    ) -> MapResults:
        """Submit a call for each row of arguments."""

    @property
    def engines(self) -> list[int]:
        """The engines that are there, without asking."""

    def get_ids(self) -> list[int]:
        """The engines that are there now."""

    def close(self) -> None:
        """Close the link."""


class InFlightCalls:
    """Makes calls for one owner, and knows those that have not ended. May be used from any thread.

    Args:
        client: where the calls go.
        refusal: makes the exception for calls that come too late.
        own: whether to close the client in the end.
        initializer: called before the functions.
    """

    def __init__(
        self,
        client: Client,
        refusal: Callable[[], Exception],
        own: bool = False,
        initializer: Initializer | None = None,
    ) -> None:
        self.client = client
        self._initializer = Initializer(None) if initializer is None else initializer
        self._refusal = refusal
        self._own = own
        self._lock = threading.RLock()
        self._closed = False
        self._stopped = False
        self._open: dict[concurrent.futures.Future[Any], TaskFuture | MapResults] = {}

    @property
    def closed(self) -> bool:
        """Whether new calls are refused."""
        return self._closed

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    def call(
        self, options: dict[str, Any], function: Callable[..., Any], args: Row, kwargs: dict[str, Any]
    ) -> TaskFuture:
        """Call a function. Its keyword arguments may have any names."""
        with self._lock:
            self._check()
            return self._call(options, function, args, kwargs)

    def call_late(self, options: dict[str, Any], function: Callable[..., Any], args: Row) -> TaskFuture:
        """A call that belongs to what was begun before the owner was closed."""
        with self._lock:
            if self._stopped:
                raise self._refusal()
            return self._call(options, function, args, {})

    def _call(
        self, options: dict[str, Any], function: Callable[..., Any], args: Row, kwargs: dict[str, Any]
    ) -> TaskFuture:
        known = OfThisProgram(self._initializer.before(function))
        future = self.client.call(known, args, kwargs, settings_of(options), options.get("depend"))
        self._keep(future, future)
        return future

    def stream(
        self, options: dict[str, Any], function: Callable[..., Any], rows: Iterable[Row], ordered: bool = True
    ) -> MapResults:
        """Call a function for each row of arguments, of which all are taken at once."""
        self._check()
        # User code makes the rows. It takes as long as it likes, and may call something here.
        columns = list(rows)
        with self._lock:
            self._check()
            definition = self.client.define(OfThisProgram(self._initializer.before(function)))
            results = self.client.stream(definition, columns, settings_of(options), options.get("depend"), ordered)
            self._keep(results.ended, results)
            return results

    def _check(self) -> None:
        if self._closed:
            raise self._refusal()

    def _keep(self, ended: concurrent.futures.Future[Any], what: TaskFuture | MapResults) -> None:
        self._open[ended] = what
        ended.add_done_callback(self._drop)

    def _drop(self, ended: concurrent.futures.Future[Any]) -> None:
        self._open.pop(ended, None)

    # --- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Refuse further calls."""
        with self._lock:
            self._closed = True

    def cancel(self) -> None:
        """Take back all calls that have not started."""
        self._take_back(running=False)

    def stop(self) -> None:
        """Refuse further calls, take back those that have not started, and interrupt those that run."""
        with self._lock:
            self._closed = self._stopped = True
        self._take_back(running=True)

    def _take_back(self, running: bool) -> None:
        calls = []
        for what in list(self._open.values()):
            if isinstance(what, MapResults):
                what.cancel(running)
            else:
                calls.append(what)
        cancel_all(calls, running)

    def wait(self) -> None:
        """Wait until all calls have ended; for those that were stopped at most :data:`GRACE` seconds."""
        deadline = time.monotonic() + GRACE
        while self._open:
            left = deadline - time.monotonic() if self._stopped else None
            if left is not None and left <= 0:
                return
            check_waiting()
            concurrent.futures.wait(list(self._open), left)

    def leave(self, wait: bool) -> None:
        """Close the client, if it is the owner's own, when all calls have ended; ``wait`` for that here."""
        if wait:
            self.wait()
        if self._own:
            self._own = False
            if wait:
                self.client.close()
            else:
                # Not a daemon: what was begun is brought to its end before Python ends.
                threading.Thread(target=self._close_in_the_end, name="ipmpi-close").start()

    def _close_in_the_end(self) -> None:
        self.wait()
        self.client.close()


def next_result(results: MapResults, timeout: float | None, late: Callable[[], Exception]) -> Any:
    """The next result, waited for; raises what ``late`` makes if it does not come in time.

    Raises:
        StopIteration: there was no other item.
        TaskAborted: (a CancelledError) it was taken back.
        Exception: what the function raised.
    """
    items = len(results)
    try:
        return results.next(timeout)
    except concurrent.futures.TimeoutError:
        if len(results) < items:  # the function itself raised that
            raise
        raise late() from None


def chunked(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """A function of many rows of arguments, which calls ``function`` for each."""

    # Made in here so that it travels by value: engines need not import the client.
    def call_each(*rows: Row) -> list[Any]:
        return [function(*row) for row in rows]

    return call_each


def chunks(rows: Iterable[Row], size: int) -> Iterator[tuple[Row, ...]]:
    """So many rows each."""
    remaining = iter(rows)
    while chunk := tuple(islice(remaining, size)):
        yield chunk
