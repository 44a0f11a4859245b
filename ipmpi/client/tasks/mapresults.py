"""The results of a function that was mapped over many items: one object, instead of a future per item."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Final, Literal, Protocol, overload

from ...errors import KernelError, ResultNotCompleted
from ...limits import TASKS_PER_MESSAGE
from ...protocol.packed import count, unpack
from ...serialize import stays_here
from ..session.awaiting import arrival
from ..session.calltimes import CallTimes
from ..session.given import waiting_time
from ..session.progress import Progress
from ..session.waiting import SessionFuture, T
from .futures import may_wait
from .payloads import Payload, failure_of, packed_rows, value_of
from .resulthandlers import ResultBatch
from .submitter import TaskSubmitter
from .taskgroup import SubmittedGroup, SubmitTerms

_MISSING: Final = object()

FIRST: Final = 64
"""Items in the first group. Later groups are larger: engines start early, and messages are few."""

AT_ONCE: Final = 4096
"""A thread that waits for all results is woken up once per this many."""


class _Failure:
    """The exception of an item, in place of its result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Keep(Protocol):
    """Keeps results of tasks that have succeeded; called in the session's thread, before anybody opens them."""

    def batch(self, batch: ResultBatch) -> None:
        """Results have come."""

    def large(self, number: int, payload: Payload) -> None:
        """A large result has come."""


class MapResults(Iterator[T], AsyncIterator[T]):
    """An iterator over the results of mapped tasks, which :meth:`TaskClient.imap` returns.

    Its type parameter is the type of one result. For an item that failed, iteration raises the exception of its
    function; the iteration can be continued after that. ``async for`` lets other coroutines run meanwhile.

    Leaving a loop early should close it: by :meth:`close`, a ``with`` statement, or dropping the last reference.
    This cancels tasks that have not started.

    Thread-safety: one thread at a time may iterate. :meth:`close` and :meth:`cancel` may be called from any
    thread.

    Attributes:
        ended: a :class:`concurrent.futures.Future` without a value; done when all tasks have ended.
    """

    def __init__(self, submitter: TaskSubmitter, ordered: bool = True, keep: Keep | None = None) -> None:
        self._submitter = submitter
        self._ordered = ordered
        self._groups: list[int] = []
        self._values: list[Any] = []
        self._position = 0
        self._opened = 0
        self._failures = 0
        self._in_turn: deque[int] = deque()
        self._closed = False
        self._lasting = False
        # Shared by two threads without a lock: each is changed by one of them only, or atomically.
        self._inbox: deque[ResultBatch | tuple[Sequence[int], _Failure | int, Payload]] = deque()
        self._arrived = 0
        self._wanted = 1
        self._urgent = False
        self._broken: KernelError | None = None
        self._wake = threading.Event()
        self._news: concurrent.futures.Future[None] | None = None
        self._fed = False
        self._times = CallTimes()
        self.ended = SessionFuture()
        self.relay = _Relay(self, submitter, keep)

    __reduce_ex__ = stays_here("its results come to this process. Send list(...) of it")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be shutting down, or __init__ failed
            self.close()

    def feed(self, terms: SubmitTerms, rows: Iterable[tuple[Any, ...]], label: str) -> None:
        """Submit one task per row of arguments. If one cannot be sent, those before it are cancelled.

        Tasks with a name go on when this is closed.
        """
        remaining = iter(rows)
        size = FIRST
        try:
            while chunk := list(islice(remaining, size)):
                payloads = packed_rows(chunk, label)
                base = self.extend(len(chunk))
                self._groups += self._submitter.submit_many(terms, payloads, self.relay, base)
                size = min(4 * size, TASKS_PER_MESSAGE)
        except BaseException:
            self.close()
            raise
        self._fed = True
        self._lasting = bool(terms.options.name)
        self._end_if_all_have()

    def extend(self, items: int) -> int:
        """Make room for so many more items; return the number of the first."""
        base = len(self._values)
        self._values += [_MISSING] * items
        return base

    def adopt(self, groups: Iterable[SubmittedGroup]) -> None:
        """These groups, which were submitted before, have all items; they go on when this is closed."""
        self._groups += [group.number for group in groups]
        self._fed = self._lasting = True
        self._end_if_all_have()

    # --- for users -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._values) - self._position

    @property
    def progress(self) -> int:
        """How many tasks have ended so far, successfully or not."""
        return self._arrived

    @property
    def elapsed(self) -> float:
        """Seconds since the tasks were submitted, until the last one ended."""
        return self._times.elapsed

    @property
    def wall_time(self) -> float | None:
        """Seconds from submission to the end of the last task; None if some have not ended."""
        return self._times.wall_time

    def __next__(self) -> T:
        try:
            return self.next()
        finally:
            del self  # as in next()

    def next(self, timeout: float | None = None) -> T:
        """Wait for the next result and return it.

        Args:
            timeout: seconds to wait at most; None for no limit.

        Raises:
            StopIteration: there are no more items, or it was closed.
            ResultNotCompleted: (a TimeoutError) no result came within ``timeout`` seconds; call again.
            Exception: the exception of the function for this item, as for :meth:`TaskFuture.result`.
        """
        timeout = waiting_time(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._is_over():
                raise StopIteration
            number, value = self._following()
            if value is not _MISSING:
                break
            left = None if deadline is None else deadline - time.monotonic()
            if not self._open_some(1, left) and left is not None and left <= 0:
                raise ResultNotCompleted(f"no result came in {timeout:g} s; the tasks continue")
        self._values[number] = None  # it may be large
        self._position += 1
        if not self._ordered:
            self._in_turn.popleft()
        if not isinstance(value, _Failure):
            result: T = value
            return result
        try:
            raise value.error
        finally:
            del value, self  # the traceback holds this frame, and this would keep the results from being dropped

    async def __anext__(self) -> T:
        while not self._is_over() and self._following()[1] is _MISSING:
            # Made before the look for arrivals, so that none is missed.
            news: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._news = news
            if not self._open_some(1, 0):
                await arrival(news)
        try:
            return self.next()
        except StopIteration:
            raise StopAsyncIteration from None

    def _is_over(self) -> bool:
        return self._position == len(self._values) or self._closed

    def _following(self) -> tuple[int, Any]:
        """Return the number of the next item, and its value if that is here."""
        number = self._position if self._ordered else self._in_turn[0] if self._in_turn else -1
        return number, _MISSING if number < 0 else self._values[number]

    @overload
    def collect(self, progress: bool | None = None, return_exceptions: Literal[False] = False) -> list[T]: ...
    @overload
    def collect(
        self, progress: bool | None = None, return_exceptions: bool = False
    ) -> list[T | BaseException]: ...
    def collect(self, progress: bool | None = None, return_exceptions: bool = False) -> list[Any]:
        """Wait for all results and return them, in the order of the items.

        Args:
            progress: show a progress bar; None: only on a terminal or in a notebook, after one second.
            return_exceptions: whether exceptions of calls that failed take the places of their results in the
                list.

        Raises:
            Exception: the exception of the first item, in this order, that failed, unless ``return_exceptions``
                is set. Tasks that have not started are cancelled then.
            ConnectionError: the connection to the controller ended.
        """
        total = len(self._values)
        try:
            with Progress(total, progress) as bar:
                while self._opened < total:
                    self._open_some(min(AT_ONCE, total - self._opened), bar.interval)
                    bar.update(self._opened)
                    if self._failures and not return_exceptions:
                        self._raise_first()
        except BaseException:
            self.close()
            raise
        if self._failures:
            return [value.error if isinstance(value, _Failure) else value for value in self._values]
        return self._values

    def _raise_first(self) -> None:
        """Raise the failure of an item, if all items before it have succeeded."""
        while self._position < len(self._values):
            value = self._values[self._position]
            if value is _MISSING:
                return
            if isinstance(value, _Failure):
                raise value.error
            self._position += 1

    def close(self) -> None:
        """Drop the remaining results: tasks that have not started are cancelled, running ones continue.

        Tasks that were submitted with a name go on, and can be resumed.
        """
        if self._closed:
            return
        self._closed = True
        self._notify()
        if self._arrived < len(self._values) and not self._lasting:
            for group in self._groups:
                self._submitter.abort(group, None, "cancel")

    def cancel(self, running: bool = False) -> None:
        """Cancel the tasks that have not started; iteration raises TaskAborted for them.

        Waits for the controller's reply, except in a done-callback of a future.

        Args:
            running: also interrupt running tasks, by KeyboardInterrupt, without waiting for them to end.
        """
        if self.ended.done():
            return
        how = "interrupt" if running else "cancel"
        answers = [self._submitter.abort(group, None, how) for group in self._groups]
        if may_wait(self._submitter):
            for answer in answers:
                with contextlib.suppress(KernelError):  # the session has ended, and so have the tasks
                    answer.result()

    def __enter__(self) -> MapResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_some(self, wanted: int, timeout: float | None) -> bool:
        """Wait for ``wanted`` results and unpickle all that have arrived; return False if none has."""
        if self._arrived < self._opened + wanted and self._broken is None:
            self.ended.check()
        self._wake.clear()
        self._wanted = self._opened + wanted
        if self._arrived < self._wanted and not self._urgent and self._broken is None:
            self._wake.wait(None if timeout is None else max(0.0, timeout))
        self._urgent = False
        if not self._inbox:
            if self._broken is not None:
                raise self._broken
            return False
        while self._inbox:
            arrival = self._inbox.popleft()
            if isinstance(arrival, ResultBatch):
                self._open_batch(arrival)
            else:
                numbers, what, payload = arrival
                for number in numbers:
                    self._store(number, what if isinstance(what, _Failure) else self._open(payload, what))
        return True

    def _store(self, number: int, value: Any) -> None:
        self._failures += isinstance(value, _Failure)
        self._values[number] = value
        self._opened += 1
        if not self._ordered:
            self._in_turn.append(number)

    def _open_batch(self, batch: ResultBatch) -> None:
        base, message, body = batch
        indices, lengths = unpack(message.indices), unpack(message.lengths)
        failed = set(unpack(message.failed)) if message.failed else ()
        opener, values = self._submitter.opener, self._values
        start = 0
        if failed or not self._ordered:
            for position, (index, length) in enumerate(zip(indices, lengths, strict=True)):
                payload = body[start : start + length]
                start += length
                is_failure = position in failed
                value = (
                    _Failure(failure_of(payload, message.engine, opener))
                    if is_failure
                    else self._open(payload, message.engine)
                )
                self._store(base + index, value)
            return
        loads = pickle.loads if opener.is_open else lambda payload: opener.loads([payload], message.engine)
        try:
            for index, length in zip(indices, lengths, strict=True):
                end = start + length
                values[base + index] = loads(body[start:end]) if length else None
                start = end
        except Exception:
            # One cannot be unpickled here: unpickle them one by one.
            start = 0
            for index, length in zip(indices, lengths, strict=True):
                self._store(base + index, self._open(body[start : start + length], message.engine))
                start += length
        else:
            self._opened += len(indices)

    def _open(self, payload: Payload, engine: int) -> Any:
        try:
            return value_of(payload, self._submitter.opener, engine)
        except Exception as unreadable:  # for instance a class that cannot be imported here
            return _Failure(unreadable)

    # --- the submitter's side, in the session's thread -------------------------------------------------------

    def batch_arrived(self, batch: ResultBatch) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultsHandler`."""
        self._inbox.append(batch)
        self._add(count(batch.message.indices), bool(batch.message.failed))

    def large_arrived(self, number: int, engine: int, payload: Payload) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultsHandler`."""
        self._inbox.append(([number], engine, payload))
        self._add(1, False)

    def batch_undone(self, numbers: Sequence[int], error: KernelError) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultsHandler`."""
        self._inbox.append((numbers, _Failure(error), b""))
        self._add(len(numbers), True)

    def batch_failed(self, error: KernelError) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultsHandler`."""
        self._broken = error
        self._notify()
        self._end_if_all_have()

    def _add(self, number: int, failed: bool) -> None:
        self._arrived += number
        self._end_if_all_have()
        if self._closed:
            self._inbox.clear()
            return
        self._urgent = self._urgent or failed
        if failed or self._arrived >= self._wanted:
            self._notify()

    def _notify(self) -> None:
        """Wake the thread or the coroutine that waits."""
        self._wake.set()
        news = self._news
        if news is not None:
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                news.set_result(None)

    def _end_if_all_have(self) -> None:
        """Called in both threads, each after its own change, so that the later call sees both changes."""
        if self._fed and (self._arrived >= len(self._values) or self._broken is not None):
            self._times.complete()
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self.ended.set_result(None)


class _Relay:
    """The submitter's handle on map results: it counts tasks, and passes results on while the object exists.

    The submitter keeps it until the last task has ended; with a strong reference, dropping the results would not
    close them.
    """

    def __init__(self, results: MapResults, submitter: TaskSubmitter, keep: Keep | None) -> None:
        self._results = weakref.ref(results)
        self._submitter = submitter
        self._keep = keep

    def batch_arrived(self, batch: ResultBatch) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultsHandler`."""
        failed = count(batch.message.failed)
        self._submitter.failed += failed
        self._submitter.succeeded += count(batch.message.indices) - failed
        if self._keep is not None:
            self._keep.batch(batch)
        results = self._results()
        if results is not None:
            results.batch_arrived(batch)

    def large_arrived(self, number: int, engine: int, payload: Payload) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultsHandler`."""
        self._submitter.succeeded += 1
        if self._keep is not None:
            self._keep.large(number, payload)
        results = self._results()
        if results is not None:
            results.large_arrived(number, engine, payload)

    def batch_undone(self, numbers: Sequence[int], error: KernelError) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultsHandler`."""
        self._submitter.failed += len(numbers)
        results = self._results()
        if results is not None:
            results.batch_undone(numbers, error)

    def batch_failed(self, error: KernelError) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultsHandler`."""
        results = self._results()
        if results is not None:
            results.batch_failed(error)
