"""A process pool with the interface of ``multiprocessing.Pool`` that runs calls on engines."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, NoReturn

from ..session import given
from ..session.results import wait_until_done
from ..session.waiting import SessionFuture, T, check_waiting
from ..tasks.caller import TaskCaller
from ..tasks.calloptions import checked_options
from ..tasks.mapresults import MapResults
from .feeder import AHEAD, Ended, Feeder, too_late
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

Callback = Callable[[Any], object]


class Pool:
    """A pool like :class:`multiprocessing.pool.Pool` that runs calls on engines.

    It is for programs and libraries that use such a pool: SciPy's ``workers=pool.map``, emcee's ``pool=pool``.
    Functions may be lambdas and closures. As with ``multiprocessing``, the end of the ``with`` statement stops
    calls that have not ended; to complete them, call :meth:`close` and :meth:`join` first.

    Thread-safety: all methods may be called from any thread, those that wait not in a callback.

    Args:
        processes: ignored, for compatibility. The number of calls that run at once is the number of engines.
        initializer: a function that is called on each engine before the first call of each function there. If it
            raises, the call fails with its exception.
        initargs: its positional arguments.
        client: the :class:`~ipmpi.client.TaskClient` to use, which is left open. By default the pool connects to
            the default cluster, and :meth:`join` or the end of the ``with`` statement closes that connection.
        **options: options of all calls: ``priority``, ``timeout``, ``expected``, ``retries``, ``depend``,
            ``ranks`` and ``same_node``, as for :meth:`TaskClient.submit`.

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
        self._feeders: list[Feeder] = []

    @property
    def size(self) -> int:
        """How many calls run at once: the number of engines, from the last update of the controller."""
        return len(self._underway.client.engines)

    # --- one call --------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., T], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> T:
        """Call ``func(*args, **kwds)`` on an engine and return its result; raises its exception."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[T]:
        """Call ``func(*args, **kwds)`` on an engine; returns at once.

        Args:
            func: a function, lambda or other callable.
            args: its positional arguments.
            kwds: its keyword arguments.
            callback: called with the result, in a thread that all callbacks of the pool share.
            error_callback: called with the exception if the call fails.

        Raises:
            ValueError: the pool was closed.
            SerializationError: the function or an argument cannot be pickled.
        """
        named = {} if kwds is None else dict(kwds)
        for name in named:
            if not isinstance(name, str):
                raise TypeError(f"the names in kwds must be strs: {given.shown(name)}")
        future = self._underway.call(self._options, func, tuple(args), named)
        return self._async_result(future, future.result, callback, error_callback)

    # --- many calls ------------------------------------------------------------------------------------------

    def map(self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int | None = None) -> list[T]:
        """Call ``func`` on each item; wait for the results and return them as a list, in the order of the items.

        Args:
            func: a function, lambda or other callable.
            iterable: the items.
            chunksize: number of items that form one task. It is rarely needed, since short calls are sent in
                batches anyway.

        Raises:
            Exception: the exception of the first item that failed. Calls that have not started are cancelled then.
            ValueError: the pool was closed, or ``chunksize`` is less than 1.
        """
        return self._wait_for_all(func, zip(iterable, strict=False), chunksize)

    def starmap(
        self, func: Callable[..., T], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[T]:
        """As :meth:`map`, but each item is a tuple of arguments."""
        return self._wait_for_all(func, map(tuple, iterable), chunksize)

    def map_async(
        self,
        func: Callable[[Any], T],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[T]]:
        """As :meth:`map`, but returns at once. The callbacks are called once; see :meth:`apply_async`."""
        return self._begin_all(func, zip(iterable, strict=False), chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[T]]:
        """As :meth:`starmap`, but returns at once. The callbacks are called once; see :meth:`apply_async`."""
        return self._begin_all(func, map(tuple, iterable), chunksize, callback, error_callback)

    def imap(
        self,
        func: Callable[[Any], T],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        max_outstanding: int | None = None,
    ) -> IMapIterator[T]:
        """As :meth:`map`, but returns an iterator over the results at once, in the order of the items.

        An iterable without a length, such as a generator, is read by a thread, ahead of the results.

        Args:
            func: a function, lambda or other callable.
            iterable: the items.
            chunksize: number of items that form one task.
            max_outstanding: how many calls (or chunks) may be submitted ahead of the results that are taken, for
                endless iterables and large results. No more items are read then when the iterator is dropped.

        Raises:
            ValueError: the pool was closed, or a number is less than 1.
        """
        return self._iterate(func, iterable, chunksize, max_outstanding, ordered=True)

    def imap_unordered(
        self,
        func: Callable[[Any], T],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        max_outstanding: int | None = None,
    ) -> IMapIterator[T]:
        """As :meth:`imap`, but the results come in the order of completion."""
        return self._iterate(func, iterable, chunksize, max_outstanding, ordered=False)

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
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        max_outstanding: int | None,
        ordered: bool,
    ) -> IMapIterator:
        given.function(func, "func")
        chunksize = given.integer(chunksize, "chunksize")
        if max_outstanding is not None:
            max_outstanding = given.integer(max_outstanding, "max_outstanding must be None, or")
            if max_outstanding < 1:
                raise ValueError(f"max_outstanding must be None or 1+, not {max_outstanding}")
        rows: Iterable[Row] = zip(iterable, strict=False)
        is_chunked = chunksize > 1
        if (hasattr(iterable, "__len__") and max_outstanding is None) or chunksize < 1:
            results = self._stream(func, rows, chunksize, ordered)
            return IMapIterator(lambda timeout: next_result(results, timeout, too_late), is_chunked)
        if self._underway.closed:
            raise ValueError("Pool not running")
        if is_chunked:
            func, rows = chunked(func), chunks(rows, chunksize)
        feeder = Feeder(
            lambda row: self._underway.call_late(self._options, func, row),
            rows,
            ordered,
            max_outstanding or AHEAD,
            until_taken=max_outstanding is not None,
        )
        with self._lock:
            self._feeders = [each for each in self._feeders if each.is_alive()] + [feeder]
        feeder.start()
        iterator: IMapIterator = IMapIterator(feeder.next, is_chunked)
        if max_outstanding is not None:
            weakref.finalize(iterator, feeder.stop).atexit = False
        return iterator

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
            except RuntimeError:  # the interpreter is shutting down and starts no threads
                called.set_result(None)

        ended.add_done_callback(hand_over)
        return AsyncResult(called, take)

    # --- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Refuse further calls."""
        self._underway.close()

    def terminate(self) -> None:
        """Refuse further calls, cancel those that have not started, and interrupt those that are running."""
        for feeder in self._feeders:
            feeder.stop(ValueError("Pool not running"))
        self._underway.stop()

    def join(self) -> None:
        """Wait until all calls have ended and their callbacks have returned.

        After :meth:`terminate`, it waits at most 5 seconds for calls that do not react to the interrupt.

        Raises:
            ValueError: neither :meth:`close` nor :meth:`terminate` was called.
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


class AsyncResult(Generic[T]):
    """The future result of :meth:`Pool.apply_async` or :meth:`Pool.map_async`; may be used from any thread."""

    def __init__(self, ended: Ended, take: Callable[[], Any]) -> None:
        self._ended = ended
        self._take = take

    def get(self, timeout: float | None = None) -> T:
        """Wait for the result and return it.

        Args:
            timeout: seconds to wait at most; None for no limit.

        Raises:
            PoolTimeout: (a multiprocessing.TimeoutError) it did not arrive in ``timeout`` seconds; the calls
                continue.
            CancelledError: the pool was terminated.
            Exception: the exception of the function.
        """
        if not wait_until_done(self._ended, timeout):
            raise too_late()
        value: T = self._take()
        return value

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result has arrived, at most ``timeout`` seconds."""
        wait_until_done(self._ended, timeout)

    def ready(self) -> bool:
        """Return whether the result has arrived."""
        return self._ended.done()

    def successful(self) -> bool:
        """Return whether the call succeeded; raises ValueError if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return _outcome(self._take)[1] is None


class IMapIterator(Iterator[T]):
    """An iterator over results of :meth:`Pool.imap`, for one thread at a time.

    For a call that failed it raises the exception of the call; the iteration can be continued after that.
    """

    def __init__(self, take: Callable[[float | None], Any], is_chunked: bool) -> None:
        self._take = take
        self._is_chunked = is_chunked
        self._chunk: deque[Any] = deque()

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout: float | None = None) -> T:
        """Wait for the next result and return it.

        Args:
            timeout: seconds to wait at most; None for no limit.

        Raises:
            StopIteration: there are no more items.
            PoolTimeout: (a multiprocessing.TimeoutError) no result came in ``timeout`` seconds; call again.
            Exception: the exception of the function for this item, or for an item of its chunk.
        """
        value: T
        if not self._is_chunked:
            value = self._take(timeout)
            return value
        while not self._chunk:
            self._chunk.extend(self._take(timeout))
        value = self._chunk.popleft()
        return value


class _Once:
    """A computation that runs once; its outcome is cached."""

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
        return  # the pool was terminated: no callback is called
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
