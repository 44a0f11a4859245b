"""Futures of tasks, as ``tc.submit`` returns them, and functions for many of them."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, as_completed, wait
from typing import Any, Generic

from ...errors import ClientError, KernelError, ResultNotCompleted, TaskAborted, text_of
from ...serialize import stays_here
from ..session.awaiting import arrival, runs_event_loop, snapshot
from ..session.calltimes import CallTimes, TimedFuture
from ..session.given import shown, waiting_time
from ..session.progress import Progress
from ..session.results import UNOPENED, wait_until_done
from ..session.waiting import T
from .metadata import Status, metadata
from .payloads import Payload, describe_failure, failure_of, value_of
from .submitter import TaskSubmitter
from .taskgroup import TaskRef

__all__ = ["CancelledError", "TaskFuture", "as_completed", "cancel_all", "gather", "wait"]


class TaskFuture(TimedFuture, Generic[T]):
    """The future result of a task: a :class:`concurrent.futures.Future`, which coroutines can also ``await``.

    Its type parameter is the type of the result.

    Thread-safety: all methods may be called from any thread, but those that wait raise
    :class:`~ipmpi.errors.ClientError` in a done-callback of a future.

    Attributes:
        engine: the id of the engine on which the task ended; None before that, and if it ended on no engine.
        label: the name of the task in status displays and messages.
        keep: called with the pickled result of a successful task, in the session's thread; None for nothing.
    """

    # What most have until their task ends is no attribute of each: programs have a hundred thousand of them.
    engine: int | None = None
    ref: TaskRef | None = None
    keep: Callable[[Payload], object] | None = None
    _call: tuple[Any, ...] | None = None
    _withdrawn = _is_cancelling = False
    # The session's thread stores the pickled result; the first thread that asks for it unpickles it.
    _unopened: Payload | None = None
    _failed = False
    _value: Any = None
    _error: BaseException | None = None

    def __init__(self, submitter: TaskSubmitter, label: str) -> None:
        super().__init__(CallTimes())
        self._submitter = submitter
        self.label = label

    __reduce_ex__ = stays_here(
        "its result comes to this process. Give it to submit() as an argument by itself, where it stands for its "
        "result, or send its result()"
    )

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<TaskFuture of {self.label}: {state}>"

    # --- for users -------------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T:
        """Wait for the task, and return the return value of its function.

        Args:
            timeout: seconds to wait at most; None for no limit.

        Raises:
            ResultNotCompleted: (a TimeoutError) the task did not end within ``timeout`` seconds; it continues.
            CancelledError: the task was cancelled.
            DependencyError: a task that this one waits for failed or was cancelled.
            EngineLost, TaskTimeout, TaskRejectError, ConnectionError: the task could not be completed; the message
                says why.
            Exception: the exception of the function. SystemExit and KeyboardInterrupt are replaced by RemoteExit,
                StopIteration by RuntimeError; the original is the cause of the replacement.
        """
        error = self.exception(timeout)
        if error is None:
            value: T = self._value
            return value
        try:
            raise error
        finally:
            del self  # the traceback holds this frame, and this would hold the traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the task; return the exception that :meth:`result` would raise, or None.

        Args:
            timeout: seconds to wait at most; None for no limit.

        Raises:
            ResultNotCompleted: (a TimeoutError) the task did not end within ``timeout`` seconds; it continues.
            CancelledError: the task was cancelled.
        """
        try:
            super().exception(timeout)
        except concurrent.futures.TimeoutError:
            raise ResultNotCompleted(
                f"{self!r} has no result after {timeout:g} s. It continues: ask again"
            ) from None
        if self._unopened is not None:
            self._open()
        return self._error

    def cancel(self, running: bool = False, grace: float = 5.0) -> bool:
        """Cancel the task if it has not started; waits for the controller's reply.

        Args:
            running: also interrupt the task if it is running, by KeyboardInterrupt, and wait for it to end.
            grace: seconds to wait for that. If it is still running then, its result is dropped, and it counts as
                cancelled.

        Returns:
            Whether the task is cancelled now. In a done-callback of a future, and in a thread that runs asyncio,
            this method does not wait: the task will be cancelled if possible, and the return value may still be
            False.
        """
        patience = waiting_time(grace)
        with self._condition:
            if self.done():
                return self.cancelled()
            ref = self.ref
            self._withdrawn = self._withdrawn or ref is None
        if ref is None:
            self._become_cancelled()  # it was not submitted yet: it waits for other tasks
            return True
        answer = self._submitter.abort(ref.group, [ref.number], "interrupt" if running else "cancel")
        if may_wait(self._submitter):
            with contextlib.suppress(KernelError):  # the session has ended, and so has the task
                answer.result()
            if running and not wait_until_done(self, patience):
                with contextlib.suppress(KernelError):
                    self._submitter.abort(ref.group, [ref.number], "drop").result()
        return self.cancelled()

    @property
    def progress(self) -> int:
        """1 if the task has ended, else 0."""
        return int(self.done())

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the task, without waiting.

        The keys: ``'engine_id'``, the engine on which it ended; ``'submitted'`` and ``'completed'``, datetimes by
        the clock of this machine; ``'duration'``, the seconds between them; ``'status'``, which is ``'ok'``,
        ``'error'`` or ``'cancelled'``. What is not known yet is None.
        """
        return metadata(self._times, self.engine, self._status())

    def _status(self) -> Status | None:
        if not self.done():
            return None
        failed = self._failed or self._error is not None
        return "cancelled" if self.cancelled() else "error" if failed else "ok"

    def __await__(self) -> Generator[Any, None, T]:
        return self._arrival().__await__()

    async def _arrival(self) -> T:
        await arrival(self)
        return self.result()

    # --- submitting it again ----------------------------------------------------------------------------------

    def remember(self, call: tuple[Any, ...]) -> None:
        """Keep what was submitted, until the task has succeeded: arguments may be large."""
        self._call = call
        if self._status() == "ok":  # its result came before this
            self._call = None

    def submitted_call(self) -> tuple[Any, ...]:
        """Return what was submitted; raises ClientError if that is not kept."""
        call = self._call
        if call is None:
            raise ClientError(
                f"{self!r} cannot be submitted again: the arguments of a task are kept until it has succeeded. "
                "Call submit() with its function and arguments"
            )
        return call

    # --- dependent tasks ------------------------------------------------------------------------------------

    def reference(self) -> TaskRef | None:
        """See :class:`~ipmpi.client.tasks.dependencies.Parent`."""
        # The controller knows a resumed task as one of another client.
        return None if self.ref is not None and self.ref.group < 0 else self.ref

    def trouble(self) -> str | None:
        """See :class:`~ipmpi.client.tasks.dependencies.Parent`."""
        if self.cancelled():
            return "was cancelled"
        error, payload = self._error, self._unopened
        if error is not None:
            return f"failed: {type(error).__name__}: {text_of(error)}"
        return f"failed: {describe_failure(payload)}" if self._failed and payload is not None else None

    # --- the submitter's side, in the session's thread -------------------------------------------------------

    def arrived(self, engine: int, ok: bool, payload: Payload) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultHandler`."""
        self.engine = engine
        self._times.complete()
        if ok:
            self._submitter.succeeded += 1
            if self.keep is not None:
                self.keep(payload)
            if payload:
                self._unopened = payload
            self.set_result(None)
            self._call = None
        else:
            self._submitter.failed += 1
            self._unopened, self._failed = payload, True
            self.set_exception(UNOPENED)

    def undone(self, error: BaseException) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultHandler`."""
        self._submitter.failed += 1
        if isinstance(error, TaskAborted):
            self._become_cancelled()
            return
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            # Another thread may have cancelled it meanwhile.
            self._error = error
            self._times.complete()
            self.set_exception(error)

    def found(self, value: Any) -> None:
        """Complete it with the result of an equal call of before; no task is submitted."""
        self._value = value
        self._times.complete()
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # it may have been cancelled meanwhile
            self.set_result(None)

    def place(self, submit: Any) -> None:
        """Submit the task and store its reference, unless it was cancelled before."""
        with self._condition:
            if not self._withdrawn:
                self.ref = submit()

    def _become_cancelled(self) -> None:
        with self._condition:  # two threads may cancel it at the same time
            first, self._is_cancelling = not self._is_cancelling, True
        self._times.complete()
        if first and super().cancel():
            self.set_running_or_notify_cancel()  # this wakes concurrent.futures.wait and as_completed

    def _open(self) -> None:
        payload = self._unopened
        if payload is None:
            return
        opener = self._submitter.opener
        value: Any = None
        error: BaseException | None = None
        if self._failed:
            error = failure_of(
                payload if isinstance(payload, bytes) else b"".join(payload), self.engine or 0, opener
            )
        else:
            try:
                value = value_of(payload, opener, self.engine)
            except Exception as unreadable:  # for instance a class that cannot be imported here
                error = unreadable
        with self.brief:
            if self._unopened is not None:  # another thread may have been faster: all get the same object
                self._value, self._error = value, error
                self._unopened = None

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        return snapshot(self)


def may_wait(submitter: TaskSubmitter) -> bool:
    """Return whether this thread may wait for a reply of the controller."""
    return not submitter.is_own_thread() and not runs_event_loop()


def gather(futures: Iterable[TaskFuture[T]], progress: bool | None = None) -> list[T]:
    """Wait for futures and return their results, in the order of the futures.

    Args:
        futures: futures of tasks.
        progress: show a progress bar; None: only on a terminal or in a notebook, after one second.

    Raises:
        Exception: the exception of the first future, in this order, that failed. The other tasks continue.
        TypeError: an item is not a future.
    """
    waited = list(futures)
    for future in waited:
        if not isinstance(future, concurrent.futures.Future):
            raise TypeError(f"futures of tasks expected, as submit() returns them: {shown(future)}")
    with Progress(len(waited), progress) as bar:
        if bar.interval is not None:
            for future in waited:
                while not future.done() and not wait_until_done(future, bar.interval):
                    bar.update(sum(each.done() for each in waited))
        return [future.result() for future in waited]


def cancel_all(futures: Iterable[TaskFuture], running: bool = False) -> int:
    """Cancel the tasks that have not started, with few requests.

    Args:
        futures: futures of tasks.
        running: also interrupt running tasks, without waiting for them to end.

    Returns:
        How many are cancelled now.
    """
    placed: defaultdict[int, list[int]] = defaultdict(list)
    asked = []
    cancelled = 0
    how = "interrupt" if running else "cancel"
    for future in futures:
        ref = future.ref
        if ref is None or future.done():
            cancelled += not future.done() and future.cancel()
        else:
            placed[ref.group].append(ref.number)
            asked.append(future)
    answers = (
        [asked[0]._submitter.abort(group, indices, how) for group, indices in placed.items()] if asked else []
    )
    if not asked or not may_wait(asked[0]._submitter):
        return cancelled
    for answer in answers:
        with contextlib.suppress(KernelError):
            answer.result()
    return cancelled + sum(future.cancelled() for future in asked)
