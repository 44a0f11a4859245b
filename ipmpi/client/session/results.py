"""What calls return that did not wait: the PendingResult.

Nothing here depends on how replies arrive: a PendingResult waits for a future.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Collection, Generator, Iterable
from types import TracebackType
from typing import Any, Final, Generic, Literal, TypeVar, overload

from ...errors import AbortedPendingDeferredError, InvalidDeferredID, NotAPendingResult, ResultNotCompleted
from ...serialize import stays_here
from ..display.blocks import Output
from ..display.ranksets import RankSet
from ..display.render import MAX_LINES, Fold, GroupOutputs
from ..display.screens import renderer_here
from ..display.showing import groups_of, show
from .awaiting import arrival, snapshot
from .calltimes import TimedFuture
from .callwait import CallWait, Screen, Ways, wait_and_tell
from .commandoutput import CommandOutput
from .escalation import Escalation
from .failures import rebuild_exception as rebuild_exception
from .given import shown, waiting_time
from .outputstream import OutputStream
from .ownframes import raises_at_call
from .partial import Partial
from .resultlist import ResultList as ResultList, RunResults as RunResults
from .waiting import SessionFuture, T, check_waiting

D = TypeVar("D")

UNOPENED: Final = Exception("a failure that has not been retrieved yet")
"""Placeholder for an exception that is still pickled, for the standard library."""


def wait_until_done(future: concurrent.futures.Future[Any], timeout: float | None = None) -> bool:
    """Wait for a future without retrieving its result; return False after ``timeout`` seconds.

    Ctrl-C ends the wait only, not the work.

    Raises:
        ClientError: in a done-callback of a future, and in a forked process: the wait would never end.
        TypeError, ValueError: ``timeout`` is not a valid number.
    """
    timeout = waiting_time(timeout)
    if isinstance(future, SessionFuture):
        future.check()
    elif not future.done():
        check_waiting()
    return bool(concurrent.futures.wait([future], timeout).done) if timeout is not None else _wait(future)


def _wait(future: concurrent.futures.Future[Any]) -> bool:
    with contextlib.suppress(concurrent.futures.CancelledError):
        # The method of the base class: ours unpickle the result, which is not wanted yet.
        concurrent.futures.Future.exception(future)
    return True


class PendingResult(TimedFuture, Generic[T]):
    """The result of a call with ``block=False``; its type parameter is the type of that result.

    It is a :class:`concurrent.futures.Future`: :func:`concurrent.futures.wait`, ``as_completed`` and
    ``asyncio.wrap_future`` accept it, and a coroutine can ``await`` it. Sorting puts them in the order of their
    calls. Methods of clients create them.

    Thread-safety: all methods may be called from any thread, but those that wait raise
    :class:`~ipmpi.errors.ClientError` in a done-callback of a future.

    Attributes:
        client: the client or view whose method was called.
        result_id: a str of 40 characters that identifies the result in this process.
        called: whether the result was retrieved.
        raised: whether retrieving it raised an exception.
        callbacks: ``(function, args, kwargs)`` tuples, to be applied when the result is retrieved.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        client: Any,
        future: concurrent.futures.Future[Any],
        finish: Callable[[Any], Any],
        name: str = "",
        has_failed: Callable[[Any], bool] | None = None,
        partial: Partial | None = None,
        escalation: Escalation | None = None,
    ) -> None:
        """Represent ``finish(future.result())``, which is computed when it is first retrieved.

        Args:
            client: the client or view whose method was called.
            future: resolves to the replies.
            finish: converts the replies to the result, or raises.
            name: the name of the method.
            has_failed: whether ``finish`` will raise for these replies; used by waits for the first exception.
            partial: tracks the replies that have arrived.
            escalation: ends the call; None if it cannot be ended.
        """
        partial = Partial(future, name, None) if partial is None else partial
        super().__init__(partial.times)
        # A call that is cancelled still gets a result: the answers of its engines.
        self.set_running_or_notify_cancel()
        self.client = client
        self.result_id = f"{next(self._numbers):040d}"
        self.called = False
        self.raised = False
        self.callbacks: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self._finish: Callable[[Any], Any] | None = finish
        self._name = name
        self._has_failed = has_failed
        self._escalation = escalation
        self._partial = partial
        self._has_come = False
        self._answers: Any = None
        self._refusal: BaseException | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        # Callbacks are applied once, even if two threads retrieve the result. A callback may retrieve it, too.
        self._lock = threading.RLock()
        future.add_done_callback(self._arrived)

    __reduce_ex__ = stays_here("its result comes to this process. Send the value of its r")

    def __repr__(self) -> str:
        state = "retrieved" if self.called else "done" if self.done() else "not done yet"
        return f"<PendingResult of {self._name or 'a call'}: {state}>"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, PendingResult):
            return NotImplemented
        return self.result_id < other.result_id

    def done(self) -> bool:
        """Return whether the result has arrived, so that retrieving it does not wait."""
        # Without the base's lock: its holder may be waiting for callbacks, which may call this.
        return self._has_come

    def cancel(self) -> bool:
        """Interrupt this call, and no other; returns at once.

        Engines on which it is still queued will not run it. KeyboardInterrupt is raised where it runs. The result
        then has the failures of these engines. A line names engines that do not react within three seconds, what
        they are in, and what would end that.

        Returns:
            Whether engines were told; False if the call has ended, or is a request that no engine runs.
        """
        if self.done() or self._escalation is None:
            return False
        self._escalation.cancel()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the result without retrieving it.

        Args:
            timeout: seconds to wait at most; None for no limit.

        Returns:
            Whether the result has arrived. Failures on engines are not raised here.
        """
        timeout = waiting_time(timeout)
        if self.done():
            return True
        return wait_and_tell(self, self._partial) if timeout is None else wait_until_done(self, timeout)

    def watch(self, screen: Screen, again: str, ways: Ways) -> None:
        """Wait for the result without retrieving it, and show progress and advice on ``screen``.

        Args:
            screen: where to show it.
            again: how to ask for the result after Ctrl-C, in words.
            ways: how this wait differs from the settings of the client.

        Raises:
            WaitInterrupted: Ctrl-C ended the wait.
        """
        if not self.done():
            self.check()
            CallWait(self, self._partial, screen, again, ways).run()

    @property
    def groups(self) -> dict[RankSet, Output]:
        """Equal outputs so far once, by the engines that have them; see :attr:`ResultList.groups`."""
        return groups_of(self._by_engine())

    @property
    def stdout(self) -> list[str]:
        """What each engine has printed so far on standard output, in the order of the targets."""
        return [output.stdout for output in self._by_engine().values()]

    @property
    def stderr(self) -> list[str]:
        """What each engine has printed so far on standard error, in the order of the targets."""
        return [output.stderr for output in self._by_engine().values()]

    @property
    def values(self) -> list[str | None]:
        """The text of the value of each engine's last expression; None where there is none, or not yet."""
        return [output.value for output in self._by_engine().values()]

    def output_stream(self) -> OutputStream:
        """Return an iterator over output as it comes, until the call has ended; for ``for`` and ``async for``."""
        return OutputStream(self, self.outputs)

    def display(
        self,
        fold: Fold = "exact",
        *,
        group_outputs: GroupOutputs = "type",
        max_lines: int | None = MAX_LINES,
        printed: bool = True,
        ranks: Collection[int] | None = None,
        stream: Any = None,
    ) -> None:
        """Wait for the result and show its output, folded; see :meth:`ResultList.display` for the options.

        Raises:
            CompositeError: the call failed on at least one engine. What was printed is shown first.
            TypeError: ``stream`` has no ``write``.
            ValueError: ``fold``, ``group_outputs`` or ``max_lines`` is not possible.
        """
        renderer_here(stream, fold, group_outputs, max_lines)  # refuses before the wait
        error = self.exception()
        show(
            self._by_engine(), fold=fold, group_outputs=group_outputs, max_lines=max_lines, printed=printed,
            ranks=ranks, stream=stream,
        )  # fmt: skip
        if error is not None:
            self.get_result()

    def _by_engine(self) -> dict[int, Output]:
        """What each engine has printed and shown so far, in the order of the targets."""
        if self.done():
            self.exception()  # which takes the values from the replies
        results = getattr(self._error, "results", self._value)
        if isinstance(results, ResultList) and results:
            return results.outputs
        printed: dict[int, Output] = {engine: Output() for engine in self._partial.order}
        for each in self.outputs:
            printed.update(each.by_engine())
        return printed

    @property
    def outputs(self) -> list[CommandOutput]:
        """Return what the engines print and display while they run this call, one object per command of it."""
        return self._partial.outputs

    @property
    def done_ids(self) -> list[int]:
        """Return the ids of the engines that have replied so far, ascending.

        Empty for requests that the controller itself answers.
        """
        return self._partial.done_ids

    @property
    def progress(self) -> int:
        """How many engines have replied so far; 0 for requests that the controller itself answers."""
        return len(self._partial.done_ids)

    @property
    def failures(self) -> dict[int, BaseException]:
        """Return the exceptions of the engines that have failed so far, by engine id; raises none of them."""
        return self._partial.failures

    @overload
    def get_result(
        self, default: object = None, block: Literal[True] = True, *, timeout: float | None = None
    ) -> T: ...
    @overload
    def get_result(self, default: D, block: bool = True, *, timeout: float | None = None) -> T | D: ...
    @overload
    def get_result(
        self, default: None = None, block: bool = True, *, timeout: float | None = None
    ) -> T | None: ...
    @raises_at_call
    def get_result(self, default: Any = None, block: bool = True, *, timeout: float | None = None) -> Any:
        """Return the result; later calls return, or raise, the same object again.

        Args:
            default: returned with ``block=False`` if the result has not arrived.
            block: whether to wait. Ctrl-C does what :attr:`MultiEngineClient.on_interrupt` says.
            timeout: seconds to wait at most; None for no limit. With a limit, Ctrl-C leaves the command running.

        Raises:
            CompositeError: the call failed on at least one engine.
            ResultNotCompleted: the result did not arrive within ``timeout`` seconds; call again later.
            WaitInterrupted: Ctrl-C ended the wait.
            InvalidDeferredID: the result was flushed.
        """
        if not block and not self.done():
            return default
        error = self.exception(timeout)
        if error is None:
            return self._value
        try:
            # Restore the traceback: every retrieval would add its own lines to it.
            raise error.with_traceback(self._traceback)
        finally:
            del error, self  # the traceback holds this frame, and this would hold the traceback

    @raises_at_call
    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it, as :meth:`get_result`."""
        return self.get_result(timeout=timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the result; return the exception that :meth:`get_result` would raise, or None.

        Raises:
            ResultNotCompleted: the result did not arrive within ``timeout`` seconds.
        """
        if not self.wait(timeout):
            raise ResultNotCompleted(
                f"{self!r} has no result after {timeout:g} s{self._partial.still_running}. It continues: ask "
                "again, or see queue_status()"
            )
        with self._lock:
            if not self.called:
                self._retrieve()
            return self._error

    @property
    @raises_at_call
    def r(self) -> T:
        """The result: waits for it, as :meth:`get_result` with ``block=True``."""
        return self.get_result(block=True)

    def add_callback(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Apply ``result = f(result, *args, **kwargs)`` when the result is retrieved, once.

        Callbacks are applied in the order in which they were added; one that is added after the retrieval is
        applied at once. They are not applied if the call failed. To be notified when the result arrives, use
        ``add_done_callback(f)``.

        Raises:
            TypeError: ``f`` is not callable.
        """
        if not callable(f):
            raise TypeError(f"a callback must be callable: {f!r}")
        with self._lock:
            if not self.called:
                self.callbacks.append((f, args, kwargs))
            elif not self.raised:
                self._apply(lambda: f(self._value, *args, **kwargs))

    def _arrived(self, future: concurrent.futures.Future[Any]) -> None:
        """Store the replies; called in the session's thread."""
        refusal: BaseException | None = None
        answers: Any = None
        try:
            answers = future.result()
        except Exception as error:  # also CancelledError
            refusal = error
        with self._lock:
            if self._has_come:
                return  # it was flushed
            # The future is not kept: it refers to this object, and the cycle would keep the replies alive.
            self._answers, self._refusal, self._has_come = answers, refusal, True
            self._partial.times.complete()
            failed = refusal is not None or (self._has_failed is not None and self._has_failed(answers))
        self._announce(failed)

    def _announce(self, failed: bool) -> None:
        """Wake waiting threads and run done-callbacks."""
        if failed:
            self.set_exception(UNOPENED)
        else:
            self.set_result(None)

    def _retrieve(self) -> None:
        finish, answers, refusal = self._finish, self._answers, self._refusal
        if finish is None:
            return

        def chain() -> Any:
            if refusal is not None:
                raise refusal
            result = finish(answers)
            for f, args, kwargs in self.callbacks:
                result = f(result, *args, **kwargs)
            return result

        self._apply(chain)
        # The pickled replies are no longer needed.
        self._finish = self._answers = self._refusal = None

    def _apply(self, compute: Callable[[], Any]) -> None:
        try:
            self._value = compute()
        except Exception as error:
            self._value, self._error, self._traceback, self.raised = None, error, error.__traceback__, True
        self.called = True

    def _forget(self) -> None:
        with self._lock:
            if self.called:
                return
            waits, self._has_come = not self._has_come, True
            text = f"the pending result {self.result_id} ({self._name}) was flushed"
            error = AbortedPendingDeferredError(f"{text} before it came") if waits else InvalidDeferredID(text)
            self._error = error
            self._finish = self._answers = self._refusal = None
            self.called = self.raised = True
        if waits:
            self._announce(failed=True)

    async def _arrival(self) -> T:
        if not self.done():
            await arrival(self)
        return self.get_result()

    def __await__(self) -> Generator[Any, None, T]:
        return self._arrival().__await__()

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        return snapshot(self)


class PendingResults:
    """The unretrieved results of one client, by id; holds weak references, so that dropped ones disappear."""

    def __init__(self) -> None:
        self._pending: weakref.WeakValueDictionary[str, PendingResult[Any]] = weakref.WeakValueDictionary()

    def add(self, pending: PendingResult[Any]) -> PendingResult[Any]:
        """Add one, and return it."""
        self._pending[pending.result_id] = pending
        return pending

    def get(self, result_id: str) -> PendingResult[Any]:
        """Return the one with this id; raises InvalidDeferredID if there is none."""
        pending = self._pending.get(result_id) if isinstance(result_id, str) else None
        if pending is None or pending.called:
            raise InvalidDeferredID(f"no result is pending under the id {shown(result_id)}")
        return pending

    def flush(self) -> None:
        """Discard all of them: retrieving one raises InvalidDeferredID from now on."""
        for pending in list(self._pending.values()):
            pending._forget()
        self._pending.clear()


def barrier(pending_results: PendingResult[Any] | Iterable[PendingResult[Any]]) -> None:
    """Wait for all of these results. Failures are not raised here, but when a result is retrieved.

    Raises:
        NotAPendingResult: an item is not a PendingResult.
        InvalidDeferredID: one was flushed.
    """
    given = [pending_results] if isinstance(pending_results, PendingResult) else list(pending_results)
    for item in given:
        if not isinstance(item, PendingResult):
            raise NotAPendingResult(
                f"barrier waits for PendingResult objects (of calls with block=False), not {item!r}"
            )
    for pending in sorted(given):
        try:
            pending.get_result(block=True)
        except InvalidDeferredID:
            raise
        except Exception:
            continue
