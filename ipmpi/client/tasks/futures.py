"""Futures of tasks: what ``tc.submit`` returns, and waiting for many of them."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections import defaultdict
from collections.abc import Generator, Iterable
from concurrent.futures import CancelledError, as_completed, wait
from typing import Any

from ...errors import KernelError, ResultNotCompleted, TaskAborted, text_of
from ...serialize import stays_here
from ..session.given import shown, waiting_time
from ..session.progress import Progress
from ..session.results import UNOPENED, arrival, runs_event_loop, snapshot, wait_until_done
from ..session.waiting import SessionFuture
from .payloads import Payload, failure_of, story_of, value_of
from .submitter import TaskSubmitter
from .taskgroup import TaskRef

__all__ = ["CancelledError", "TaskFuture", "as_completed", "cancel_all", "gather", "wait"]


class TaskFuture(SessionFuture):
    """The result of a task to come: a :class:`concurrent.futures.Future`, which coroutines may also ``await``.

    Attributes:
        engine: the engine on which the task has ended; None before, and where it ended on none.
    """

    def __init__(self, submitter: TaskSubmitter, label: str) -> None:
        super().__init__()
        self._submitter = submitter
        self.label = label
        self.engine: int | None = None
        self.ref: TaskRef | None = None
        self._withdrawn = self._is_cancelling = False
        # What the session's thread leaves here is opened by the first who asks.
        self._unopened: Payload | None = None
        self._failed = False
        self._value: Any = None
        self._error: BaseException | None = None

    __reduce_ex__ = stays_here(
        "its result comes to this process. Give it to submit() as an argument by itself, where it stands for its "
        "result, or send its result()"
    )

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<TaskFuture of {self.label}: {state}>"

    # --- the user's side -------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> Any:
        """What the task's function returned, waited for.

        Raises:
            ResultNotCompleted: (a TimeoutError) ``timeout`` seconds were not enough; the task goes on.
            CancelledError: the task was cancelled.
            DependencyError: a task that this one waits for has failed, or was cancelled.
            EngineLost, TaskTimeout, TaskRejectError, ConnectionError: it could not be run; the text says why.
            Exception: what the function raised. A RemoteExit stands for a SystemExit or the like, a RuntimeError
                for a StopIteration; they have it as their cause.
        """
        error = self.exception(timeout)
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del self  # the traceback holds this frame, and this would hold the traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What :meth:`result` would raise, waited for; None if that is nothing. Raises CancelledError."""
        try:
            super().exception(timeout)
        except concurrent.futures.TimeoutError:
            raise ResultNotCompleted(
                f"{self!r} has no result after {timeout:g} s. It goes on: ask again"
            ) from None
        if self._unopened is not None:
            self._open()
        return self._error

    def cancel(self, running: bool = False, grace: float = 5.0) -> bool:
        """Take the task back if it has not started; asks the controller, and waits for its answer.

        Args:
            running: stop it also if it runs, by KeyboardInterrupt, and wait for its end.
            grace: seconds to wait for that. If it still runs then, its result is dropped, and it is cancelled.

        Returns:
            Whether the task is cancelled now. In a callback of a future, and in a thread in which asyncio runs,
            nothing is waited for: there the task is cancelled if that is possible, and the answer may still be
            False.
        """
        patience = waiting_time(grace)
        with self._condition:
            if self.done():
                return self.cancelled()
            ref = self.ref
            self._withdrawn = self._withdrawn or ref is None
        if ref is None:
            self._become_cancelled()  # it waits for other tasks, here
            return True
        answer = self._submitter.abort(ref.group, [ref.number], "interrupt" if running else "cancel")
        if may_wait(self._submitter):
            with contextlib.suppress(KernelError):  # the session has ended, and so has the task
                answer.result()
            if running and not wait_until_done(self, patience):
                with contextlib.suppress(KernelError):
                    self._submitter.abort(ref.group, [ref.number], "drop").result()
        return self.cancelled()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._arrival().__await__()

    async def _arrival(self) -> Any:
        await arrival(self)
        return self.result()

    # --- what depends on it ----------------------------------------------------------------------------------

    def reference(self) -> TaskRef | None:
        """See :class:`~ipmpi.client.tasks.dependencies.Parent`."""
        return self.ref

    def trouble(self) -> str | None:
        """See :class:`~ipmpi.client.tasks.dependencies.Parent`."""
        if self.cancelled():
            return "was cancelled"
        error, payload = self._error, self._unopened
        if error is not None:
            return f"failed: {type(error).__name__}: {text_of(error)}"
        return f"failed: {story_of(payload)}" if self._failed and payload is not None else None

    # --- the submitter's side, in the session's thread -------------------------------------------------------

    def arrived(self, engine: int, ok: bool, payload: Payload) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultHandler`."""
        self.engine = engine
        if ok:
            self._submitter.succeeded += 1
            if payload:
                self._unopened = payload
            self.set_result(None)
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
            # One that waits here may have been cancelled meanwhile, in another thread.
            self._error = error
            self.set_exception(error)

    def place(self, submit: Any) -> None:
        """Take the reference that ``submit()`` gives, unless the task was cancelled before."""
        with self._condition:
            if not self._withdrawn:
                self.ref = submit()

    def _become_cancelled(self) -> None:
        with self._condition:  # two threads may cancel what waits here
            first, self._is_cancelling = not self._is_cancelling, True
        if first and super().cancel():
            self.set_running_or_notify_cancel()  # that is what tells those who wait for several futures

    def _open(self) -> None:
        payload = self._unopened
        if payload is None:
            return
        value: Any = None
        error: BaseException | None = None
        if self._failed:
            error = failure_of(payload if isinstance(payload, bytes) else b"".join(payload), self.engine or 0)
        else:
            try:
                value = value_of(payload)
            except Exception as unreadable:  # a class that cannot be imported here, say
                error = unreadable
        with self._condition:
            if self._unopened is not None:  # somebody else may have been faster: all get the same object
                self._value, self._error = value, error
                self._unopened = None

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        return snapshot(self)


def may_wait(submitter: TaskSubmitter) -> bool:
    """Whether an answer of the controller may be waited for in this thread."""
    return not submitter.is_own_thread() and not runs_event_loop()


def gather(futures: Iterable[TaskFuture], progress: bool | None = None) -> list[Any]:
    """The results of all these futures, in their order.

    Args:
        futures: of tasks.
        progress: show a bar; None: if this is a terminal or notebook, and takes more than a second.

    Raises:
        Exception: what the first of them that failed raised. The others go on.
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
    """Cancel those that have not started, with one question for many; how many are cancelled now.

    Args:
        futures: of tasks.
        running: interrupt those that run, too. Their end is not waited for.
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
