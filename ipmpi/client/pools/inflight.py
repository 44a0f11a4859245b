"""The calls of an executor or a pool that have not ended."""

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
"""Seconds to wait for calls that were stopped."""

Row = tuple[Any, ...]


class Client(Protocol):
    """The part of :class:`~ipmpi.client.TaskClient` that executors and pools use."""

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
        """The ids of the engines, without a request."""

    def get_ids(self) -> list[int]:
        """Return the ids of the registered engines."""

    def close(self) -> None:
        """Close the link."""


def _settings(options: dict[str, Any]) -> TaskSettings:
    """Return the settings of calls: unless they have a name, they end with the program that waits for them."""
    settings = settings_of(options)
    return settings if settings.name or settings.detach is not None else settings._replace(detach=False)


class InFlightCalls:
    """Submits calls for one owner, and tracks those that have not ended. May be used from any thread.

    Args:
        client: the client to submit with.
        refusal: makes the exception for calls after the end.
        own: whether to close the client at the end.
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
        """Submit a call of an iteration that began before the owner was closed."""
        with self._lock:
            if self._stopped:
                raise self._refusal()
            return self._call(options, function, args, {})

    def _call(
        self, options: dict[str, Any], function: Callable[..., Any], args: Row, kwargs: dict[str, Any]
    ) -> TaskFuture:
        known = OfThisProgram(self._initializer.before(function))
        future = self.client.call(known, args, kwargs, _settings(options), options.get("depend"))
        self._keep(future, future)
        return future

    def stream(
        self, options: dict[str, Any], function: Callable[..., Any], rows: Iterable[Row], ordered: bool = True
    ) -> MapResults:
        """Call a function for each row of arguments; all rows are read before this returns."""
        self._check()
        # The rows are made by user code, which may be slow and may call methods of this object.
        columns = list(rows)
        with self._lock:
            self._check()
            definition = self.client.define(OfThisProgram(self._initializer.before(function)))
            results = self.client.stream(definition, columns, _settings(options), options.get("depend"), ordered)
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
        """Cancel all calls that have not started."""
        self._take_back(running=False)

    def stop(self) -> None:
        """Refuse further calls, cancel those that have not started, and interrupt those that run."""
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
        """Wait until all calls have ended; at most :data:`GRACE` seconds after :meth:`stop`."""
        deadline = time.monotonic() + GRACE
        while self._open:
            left = deadline - time.monotonic() if self._stopped else None
            if left is not None and left <= 0:
                return
            check_waiting()
            concurrent.futures.wait(list(self._open), left)

    def leave(self, wait: bool) -> None:
        """When all calls have ended, close the client if the owner made it; ``wait``: block until then."""
        if wait:
            self.wait()
        if self._own:
            self._own = False
            if wait:
                self.client.close()
            else:
                # Not a daemon: the calls are completed before Python exits.
                threading.Thread(target=self._close_in_the_end, name="ipmpi-close").start()

    def _close_in_the_end(self) -> None:
        self.wait()
        self.client.close()


def next_result(results: MapResults, timeout: float | None, late: Callable[[], Exception]) -> Any:
    """Wait for the next result; raises what ``late`` returns if it does not arrive in time.

    Raises:
        StopIteration: there are no more items.
        TaskAborted: (a CancelledError) it was cancelled.
        Exception: the exception of the function.
    """
    items = len(results)
    try:
        return results.next(timeout)
    except concurrent.futures.TimeoutError:
        if len(results) < items:  # raised by the function
            raise
        raise late() from None


def chunked(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Return a function of many rows of arguments that calls ``function`` for each."""

    # A nested function is pickled by value: engines need not import the client.
    def call_each(*rows: Row) -> list[Any]:
        return [function(*row) for row in rows]

    return call_each


def chunks(rows: Iterable[Row], size: int) -> Iterator[tuple[Row, ...]]:
    """Split into tuples of ``size`` rows."""
    remaining = iter(rows)
    while chunk := tuple(islice(remaining, size)):
        yield chunk
