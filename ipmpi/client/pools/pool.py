"""The engines with the methods of a ``multiprocessing.Pool``."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import multiprocessing
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, NoReturn

from ...errors import ResultNotCompleted
from ..session import given
from ..session.given import waiting_time
from ..session.results import wait_until_done
from ..session.waiting import SessionFuture, check_process, check_waiting, forks
from ..tasks.caller import TaskCaller
from ..tasks.calloptions import checked_options
from ..tasks.futures import TaskFuture
from ..tasks.mapresults import MapResults
from .inflight import (
    GRACE,
    Client,
    InFlightCalls,
    Row,
    chunked,
    chunks,
    next_result,
)
from .initializers import Initializer

AHEAD: Final = 10_000
"""Calls under way of an iterable without a length, before its next item is taken."""


class PoolTimeout(ResultNotCompleted, multiprocessing.TimeoutError):
    """The result of a pool's call is not there yet: what ``multiprocessing`` raises, and a ``TimeoutError``."""


Callback = Callable[[Any], object]
Ended = concurrent.futures.Future[Any]


class Pool:
    """Runs calls on the engines; for programs and libraries that want a ``multiprocessing.Pool``.

    Such as SciPy's ``workers=pool.map`` and emcee's ``pool=pool``. Functions are sent with their code. When the
    ``with`` statement ends, calls that have not ended are stopped, as with the original: :meth:`close` and
    :meth:`join` it if they shall end.

    Args:
        processes: accepted, since the original has it. As many calls run at once as there are engines.
        initializer: called on each engine before the first call of each function there. What it raises, the call
            raises.
        initargs: its arguments.
        client: the :class:`~ipmpi.client.TaskClient` to use, which stays open. Without it there is one of its own,
            from the security folder, closed by :meth:`join` and at the end of the ``with`` statement.
        **options: for all calls: ``priority``, ``timeout``, ``expected``, ``retries``, ``depend``, ``ranks`` and
            ``same_node``, as in ``TaskClient.submit``.

    Raises:
        TypeError, ValueError: an option is unknown or wrong.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        client: Client | None = None,
        **options: Any,
    ) -> None:
        if processes is not None and given.integer(processes, "processes") < 1:
            raise ValueError("Number of processes must be at least 1")
        self._options = checked_options(options)
        before = Initializer(initializer, initargs)
        refusal = functools.partial(ValueError, "Pool not running")
        self._underway = InFlightCalls(TaskCaller() if client is None else client, refusal, client is None, before)
        self._lock = threading.Lock()
        self._callbacks: concurrent.futures.ThreadPoolExecutor | None = None
        self._called: set[concurrent.futures.Future[None]] = set()
        self._feeders: list[_Feeder] = []

    @property
    def size(self) -> int:
        """How many calls run at once: the number of engines, as the controller told last; nothing is asked."""
        return len(self._underway.client.engines)

    # --- one call --------------------------------------------------------------------------------------------

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func(*args, **kwds)`` on an engine, and wait for its result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """Call ``func(*args, **kwds)`` on an engine; returns at once.

        Args:
            func: a function, lambda or other callable.
            args: its arguments.
            kwds: its keyword arguments.
            callback: called with the result, in a thread that all callbacks of the pool share.
            error_callback: called with the exception instead.
        """
        named = {} if kwds is None else dict(kwds)
        for name in named:
            if not isinstance(name, str):
                raise TypeError(f"the names in kwds must be strs: {given.shown(name)}")
        future = self._underway.call(self._options, func, tuple(args), named)
        return self._async_result(future, future.result, callback, error_callback)

    # --- many calls ------------------------------------------------------------------------------------------

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Call ``func`` on each item, and wait for the list of results.

        Args:
            func: a function, lambda or other callable.
            iterable: the items.
            chunksize: items that go to an engine as one. It is seldom needed: short calls go together anyway.

        Raises:
            Exception: what the first item that failed raised. Items that have not started then are not run.
        """
        return self._wait_for_all(func, zip(iterable, strict=False), chunksize)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """As :meth:`map`, but each item is a tuple of arguments."""
        return self._wait_for_all(func, map(tuple, iterable), chunksize)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """As :meth:`map`, but returns at once. For the callbacks see :meth:`apply_async`; they are called once."""
        return self._begin_all(func, zip(iterable, strict=False), chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """As :meth:`starmap`, but returns at once. For the callbacks see :meth:`map_async`."""
        return self._begin_all(func, map(tuple, iterable), chunksize, callback, error_callback)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1) -> IMapIterator:
        """As :meth:`map`, but returns an iterator at once, which gives each result in its turn.

        An iterable without a length, such as a generator, is read in a thread, ahead of the results.
        """
        return self._iterate(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """As :meth:`imap`, but the results come in any order, as they are there."""
        return self._iterate(func, iterable, chunksize, ordered=False)

    def _stream(
        self, func: Callable[..., Any], rows: Iterable[Row], chunksize: int | None, ordered: bool = True
    ) -> MapResults:
        if chunksize is not None:
            chunksize = given.integer(chunksize, "chunksize")
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        if chunksize is not None and chunksize > 1:
            return self._underway.stream(self._options, chunked(func), chunks(rows, chunksize), ordered)
        return self._underway.stream(self._options, func, rows, ordered)

    def _wait_for_all(self, func: Callable[..., Any], rows: Iterable[Row], chunksize: int | None) -> list[Any]:
        return _collected(self._stream(func, rows, chunksize), chunksize)

    def _begin_all(
        self,
        func: Callable[..., Any],
        rows: Iterable[Row],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult:
        results = self._stream(func, rows, chunksize)
        take = _Once(lambda: _collected(results, chunksize))
        return self._async_result(results.ended, take, callback, error_callback)

    def _iterate(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, ordered: bool
    ) -> IMapIterator:
        given.function(func, "func")
        chunksize = given.integer(chunksize, "chunksize")
        rows: Iterable[Row] = zip(iterable, strict=False)
        is_chunked = chunksize > 1
        if hasattr(iterable, "__len__") or chunksize < 1:
            results = self._stream(func, rows, chunksize, ordered)
            return IMapIterator(lambda timeout: next_result(results, timeout, _too_late), is_chunked)
        if self._underway.closed:
            raise ValueError("Pool not running")
        if is_chunked:
            func, rows = chunked(func), chunks(rows, chunksize)
        feeder = _Feeder(lambda row: self._underway.call_late(self._options, func, row), rows, ordered)
        with self._lock:
            self._feeders = [each for each in self._feeders if each.is_alive()] + [feeder]
        feeder.start()
        return IMapIterator(feeder.next, is_chunked)

    # --- callbacks -------------------------------------------------------------------------------------------

    def _async_result(
        self,
        ended: Ended,
        take: Callable[[], Any],
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult:
        if callback is None and error_callback is None:
            return AsyncResult(ended, take)
        with self._lock:
            if self._callbacks is None:
                self._callbacks = concurrent.futures.ThreadPoolExecutor(1, "ipmpi-pool")
            callbacks = self._callbacks
        called = SessionFuture()
        self._called.add(called)
        called.add_done_callback(self._called.discard)

        def call() -> None:
            try:
                _tell(take, callback, error_callback)
            finally:
                called.set_result(None)

        def hand_over(_: Ended) -> None:
            try:
                callbacks.submit(call)
            except RuntimeError:  # Python ends, and starts no threads any more
                called.set_result(None)

        ended.add_done_callback(hand_over)
        return AsyncResult(called, take)

    # --- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no further calls."""
        self._underway.close()

    def terminate(self) -> None:
        """Take no further calls, drop those that have not started, and interrupt those that run."""
        self._underway.stop()

    def join(self) -> None:
        """Wait until all calls have ended and their callbacks were called; after :meth:`close`.

        After :meth:`terminate`, calls that do not let themselves be interrupted are waited for 5 seconds.
        """
        if not self._underway.closed:
            raise ValueError("Pool is still running")
        for feeder in self._feeders:
            feeder.join(GRACE if self._underway.stopped else None)
        self._underway.wait()
        check_waiting()
        concurrent.futures.wait(list(self._called), GRACE if self._underway.stopped else None)
        self._underway.leave(wait=True)

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __enter__(self) -> Pool:
        if self._underway.closed:
            raise ValueError("Pool not running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()
        self._underway.leave(wait=False)


class AsyncResult:
    """The result to come of :meth:`Pool.apply_async` and :meth:`Pool.map_async`."""

    def __init__(self, ended: Ended, take: Callable[[], Any]) -> None:
        self._ended = ended
        self._take = take

    def get(self, timeout: float | None = None) -> Any:
        """The result, waited for.

        Raises:
            PoolTimeout: (a multiprocessing.TimeoutError) ``timeout`` seconds were not enough; the calls go on.
            CancelledError: the pool was terminated before.
            Exception: what the function raised.
        """
        if not wait_until_done(self._ended, timeout):
            raise _too_late()
        return self._take()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is here, at most ``timeout`` seconds."""
        wait_until_done(self._ended, timeout)

    def ready(self) -> bool:
        """Whether the result is here."""
        return self._ended.done()

    def successful(self) -> bool:
        """Whether there is a result and no exception; ValueError if neither is here yet."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return _outcome(self._take)[1] is None


class IMapIterator(Iterator[Any]):
    """The results of :meth:`Pool.imap`. Where a call failed, it raises that; those after it can still be had."""

    def __init__(self, take: Callable[[float | None], Any], is_chunked: bool) -> None:
        self._take = take
        self._is_chunked = is_chunked
        self._chunk: deque[Any] = deque()

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result, waited for.

        Raises:
            StopIteration: there was no other item.
            PoolTimeout: (a multiprocessing.TimeoutError) ``timeout`` seconds were not enough; ask again.
            Exception: what the function raised for this item, or for its chunk.
        """
        if not self._is_chunked:
            return self._take(timeout)
        while not self._chunk:
            self._chunk.extend(self._take(timeout))
        return self._chunk.popleft()


class _Feeder(threading.Thread):
    """Submits the items of an iterable that may take its time, and gives the results."""

    def __init__(self, submit: Callable[[Row], TaskFuture], rows: Iterable[Row], ordered: bool) -> None:
        super().__init__(name="ipmpi-imap", daemon=True)
        self._submit = submit
        self._rows = rows
        self._ordered = ordered
        self._room = threading.Semaphore(AHEAD)
        self._came: queue.SimpleQueue[Ended | tuple[int, BaseException | None]] = queue.SimpleQueue()
        self._next: Ended | None = None
        self._left: int | None = None
        self._taken = 0
        self._error: BaseException | None = None
        self._born = forks()

    def run(self) -> None:
        number, error = 0, None
        try:
            for row in self._rows:
                self._room.acquire()
                future = self._submit(row)
                number += 1
                future.add_done_callback(lambda _: self._room.release())
                if self._ordered:
                    self._came.put(future)
                else:
                    future.add_done_callback(self._came.put)
        except BaseException as raised:
            # The user's iterable, or the pool was terminated: it is raised when its turn comes.
            error = raised
        self._came.put((number, error))

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
                raise _too_late() from None
            if isinstance(came, tuple):
                self._left, self._error = came
            else:
                self._next = came
        if not wait_until_done(self._next, _remaining(deadline)):
            raise _too_late()
        future, self._next = self._next, None
        self._taken += 1
        return future.result()


class _Once:
    """A computation whose outcome is kept for all who ask."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute = compute
        self._lock = threading.Lock()
        self._outcome: tuple[Any, BaseException | None] | None = None

    def __call__(self) -> Any:
        with self._lock:
            if self._outcome is None:
                self._outcome = _outcome(self._compute)
        value, error = self._outcome
        if error is not None:
            raise error
        return value


def _outcome(take: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return take(), None
    except Exception as error:
        return None, error


def _tell(take: Callable[[], Any], callback: Callback | None, error_callback: Callback | None) -> None:
    value, error = _outcome(take)
    if isinstance(error, concurrent.futures.CancelledError):
        return  # the pool was terminated, and nobody is told any more
    try:
        if error is None and callback is not None:
            callback(value)
        elif error is not None and error_callback is not None:
            error_callback(error)
    except Exception:
        logging.getLogger(__name__).exception("a callback of a pool raised")


def _collected(results: MapResults, chunksize: int | None) -> list[Any]:
    values = results.collect(progress=False)
    return [value for chunk in values for value in chunk] if chunksize is not None and chunksize > 1 else values


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _too_late() -> Exception:
    return PoolTimeout("the result did not come in time; ask again")
