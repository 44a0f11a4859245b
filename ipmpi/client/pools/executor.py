"""A ``concurrent.futures`` executor that runs calls on engines."""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ...errors import ResultNotCompleted
from ..session import given
from ..session.given import waiting_time
from ..session.waiting import T
from ..tasks.caller import TaskCaller
from ..tasks.calloptions import checked_options
from ..tasks.futures import TaskFuture, cancel_all
from ..tasks.mapresults import MapResults
from .inflight import Client, InFlightCalls, Row, chunked, chunks, next_result
from .initializers import Initializer


class Executor(concurrent.futures.Executor):
    """A :class:`concurrent.futures.Executor` that runs calls on engines.

    Programs written for Python's executors need a different import only::

        from ipmpi.client.pools import Executor as ProcessPoolExecutor

    Differences: functions may be lambdas and closures; the future of one call may be an argument of another, which
    then gets its result; calls that have not ended when Python exits are lost, unless :meth:`shutdown` was called.

    Thread-safety: all methods may be called from any thread.

    Args:
        max_workers: ignored, for compatibility. The number of calls that run at once is the number of engines.
        client: the :class:`~ipmpi.client.TaskClient` to use, which is left open. By default the executor connects
            to the default cluster, and :meth:`shutdown` closes that connection.
        initializer: a function that is called on each engine before the first call of each function there. If it
            raises, the call fails with its exception.
        initargs: its positional arguments.
        **options: options of all calls: ``priority``, ``timeout``, ``expected``, ``retries``, ``depend``,
            ``ranks`` and ``same_node``, as for :meth:`TaskClient.submit`.

    Raises:
        TypeError, ValueError: an option is unknown or wrong.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        client: Client | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        **options: Any,
    ) -> None:
        if max_workers is not None and given.integer(max_workers, "max_workers") <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._options = checked_options(options)
        before = Initializer(initializer, initargs)
        refusal = functools.partial(RuntimeError, "cannot schedule new futures after shutdown")
        self._underway = InFlightCalls(TaskCaller() if client is None else client, refusal, client is None, before)

    def __repr__(self) -> str:
        given_options = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"<Executor on {self._underway.client!r}{': ' * bool(given_options)}{given_options}>"

    def options(self, **options: Any) -> Executor:
        """Return an executor with other options for its calls; shutting down one shuts down both.

        Args:
            **options: see :class:`Executor`; the others keep their values.
        """
        other = copy.copy(self)
        other._options = checked_options({**self._options, **options})
        return other

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Call ``fn(*args, **kwargs)`` on the first free engine; returns at once.

        All keyword arguments are passed to the function; options are set by :meth:`options`.

        Returns:
            A :class:`~ipmpi.client.TaskFuture` of the return value.

        Raises:
            RuntimeError: the executor was shut down.
            SerializationError: the function or an argument cannot be pickled; the message names it.
        """
        return self._underway.call(self._options, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` on the items of the iterables; stops at the end of the shortest.

        Without ``buffersize``, all calls are submitted before this returns. If one fails, or the iterator is
        closed, those that have not started are cancelled.

        Args:
            fn: a function, lambda or other callable.
            *iterables: one for each positional parameter of ``fn``.
            timeout: seconds from now in which all results must arrive; None for no limit.
            chunksize: number of calls that form one task; if one of them fails, all do. It is rarely needed, since
                short calls are sent in batches anyway.
            buffersize: how many calls (or chunks) may be submitted ahead of the result that is taken next.

        Returns:
            An iterator over the results, in the order of the items. It raises the exception of a call that failed,
            and TimeoutError after ``timeout`` seconds.

        Raises:
            TypeError, ValueError: an argument is invalid.
            RuntimeError: the executor was shut down.
        """
        timeout, chunksize = waiting_time(timeout), given.integer(chunksize, "chunksize")
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            buffersize = given.integer(buffersize, "buffersize must be None, or")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        call: Callable[..., Any] = fn
        rows: Iterator[Row] = zip(*iterables, strict=False)
        if chunksize > 1:
            rows, call = chunks(rows, chunksize), chunked(fn)
        if buffersize is None:
            results = _in_order(self._underway.stream(self._options, call, rows), deadline)
        else:
            waiting = deque(self.submit(call, *row) for _, row in zip(range(buffersize), rows, strict=False))
            results = self._buffered(call, rows, waiting, deadline)
        return results if chunksize == 1 else _flat(results)

    def _buffered(
        self, fn: Callable[..., Any], rows: Iterator[Row], waiting: deque[TaskFuture], deadline: float | None
    ) -> Iterator[Any]:
        try:
            while waiting:
                for row in rows:
                    waiting.append(self.submit(fn, *row))
                    break
                yield _result(waiting.popleft(), deadline)
        finally:
            cancel_all(waiting)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further calls. It can be called repeatedly.

        Args:
            wait: whether to wait until all calls have ended. They are completed in either case.
            cancel_futures: cancel the calls that have not started.
        """
        self._underway.close()
        if cancel_futures:
            self._underway.cancel()
        self._underway.leave(wait)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _too_late() -> Exception:
    return ResultNotCompleted("the results did not come in time; calls that had not started are not run")


def _result(future: TaskFuture, deadline: float | None) -> Any:
    try:
        return future.result(_left(deadline))
    finally:
        future.cancel()
        del future  # an exception's traceback would hold it


def _in_order(results: MapResults, deadline: float | None) -> Iterator[Any]:
    try:
        for _ in range(len(results)):
            yield next_result(results, _left(deadline), _too_late)
    finally:
        results.cancel()


def _flat(results: Iterator[list[Any]]) -> Iterator[Any]:
    for chunk in results:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
