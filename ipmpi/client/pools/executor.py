"""The engines as an executor of ``concurrent.futures``."""

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
from ..tasks.caller import TaskCaller
from ..tasks.calloptions import checked_options
from ..tasks.futures import TaskFuture, cancel_all
from ..tasks.mapresults import MapResults
from .inflight import Client, InFlightCalls, Row, chunked, chunks, next_result
from .initializers import Initializer


class Executor(concurrent.futures.Executor):
    """Runs calls on the engines, and behaves as Python's own executors do.

    So a program written for these needs another import only::

        from ipmpi.client.pools import Executor as ProcessPoolExecutor

    What differs: functions are sent with their code, so lambdas are welcome; a call's result may be an argument of
    the next, by its future; and what has not ended when Python ends is lost, unless :meth:`shutdown` was called.

    Args:
        max_workers: accepted, since other executors have it. As many calls run at once as there are engines.
        client: the :class:`~ipmpi.client.TaskClient` to use, which stays open. Without it there is one of its own,
            from the security folder, closed by :meth:`shutdown`.
        initializer: called on each engine before the first call of each function there. What it raises, the call
            raises.
        initargs: its arguments.
        **options: for all calls: ``priority``, ``timeout``, ``expected``, ``retries``, ``depend``, ``ranks`` and
            ``same_node``, as in ``TaskClient.submit``.

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
        """This executor with other options for its calls; they are shut down together.

        Args:
            **options: see :class:`Executor`; those that are not given stay as they are.
        """
        other = copy.copy(self)
        other._options = checked_options({**self._options, **options})
        return other

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskFuture:
        """Call ``fn(*args, **kwargs)`` on an engine; returns at once.

        All keyword arguments are the function's, also those that ``TaskClient.submit`` would take as options.

        Raises:
            RuntimeError: the executor was shut down.
            SerializationError: something cannot be sent; the message says what.
        """
        return self._underway.call(self._options, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Call ``fn`` on the items of the iterables, up to the end of the shortest.

        All calls are submitted before this returns, except with ``buffersize``. If one fails, or the iterator is
        closed, those that have not started are not run.

        Args:
            fn: a function, lambda or other callable.
            *iterables: one for each of its arguments.
            timeout: seconds from now until the last result has to be there.
            chunksize: calls that go to an engine as one; if one of these fails, so do all. It is seldom needed:
                short calls go together anyway.
            buffersize: how many calls (with ``chunksize``: chunks) are submitted whose results nobody took yet.

        Returns:
            An iterator of the results, in the order of the items. It raises what a call raised, and TimeoutError.
        """
        timeout, chunksize = waiting_time(timeout), given.integer(chunksize, "chunksize")
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            buffersize = given.integer(buffersize, "buffersize must be None, or")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        rows: Iterator[Row] = zip(*iterables, strict=False)
        if chunksize > 1:
            rows, fn = chunks(rows, chunksize), chunked(fn)
        if buffersize is None:
            results = _in_order(self._underway.stream(self._options, fn, rows), deadline)
        else:
            waiting = deque(self.submit(fn, *row) for _, row in zip(range(buffersize), rows, strict=False))
            results = self._buffered(fn, rows, waiting, deadline)
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
        """Take no further calls. May be called again.

        Args:
            wait: until all calls have ended. Without it they end all the same.
            cancel_futures: take back those that have not started.
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
