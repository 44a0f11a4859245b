"""Records of the tasks that have ids: their attempts and results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ...errors import DependencyError, EngineLost, TaskAborted, TaskRejectError, TaskTimeout, text_of
from ..session.calltimes import CallTimes
from ..session.waiting import SessionFuture
from .dependencies import Dependencies
from .payloads import Payload, describe_failure, failure_of, value_of
from .submitter import TaskSubmitter
from .taskgroup import TaskRef
from .taskresult import TaskResult
from .tasktypes import BaseTask, StringTask

_FAILURES: Final = (EngineLost, TaskTimeout, TaskRejectError)
"""Errors of the controller that count as failures of the task: its recovery task runs."""


class Attempt:
    """A task ready to be submitted. It was pickled in run(), so that errors are raised there."""

    def __init__(self, task: BaseTask, submitter: TaskSubmitter, needs: Dependencies) -> None:
        self.task = task
        self.needs = needs
        self.terms = task.terms(submitter.define)
        self.payload: Payload = task.payload()
        self.ref: TaskRef | None = None


class _End(NamedTuple):
    """The answer of an engine."""

    engine: int
    ok: bool
    payload: Payload


class TaskRecord:
    """The state of one task id: its current attempt, the recovery tasks that remain, and its result.

    ``ended`` is completed once, when the task has a result or cannot get one. The lock guards against concurrent
    changes by the session's thread and users' threads.
    """

    def __init__(self, taskid: int, attempts: list[Attempt], submitter: TaskSubmitter) -> None:
        self.taskid = taskid
        self.label = f"task {taskid}"
        self.task = attempts[0].task
        self.aborted = False
        # Reentrant, because an attempt that cannot be submitted ends at once, inside start().
        self.lock = threading.RLock()
        self.ended = SessionFuture()
        self._submitter = submitter
        self._waiting = attempts
        self._current = attempts[0]
        self._end: _End | None = None
        self._error: BaseException | None = None
        self._result: tuple[bool, Any] | None = None
        self._times = CallTimes()

    def start(self) -> None:
        """Submit the next attempt, once the tasks that it depends on allow."""
        with self.lock:
            self._current = attempt = self._waiting.pop(0)
        if attempt.needs:
            attempt.needs.when_ready(self._submitter, lambda: self._submit(attempt), self.undone)
        else:
            self._submit(attempt)

    def _submit(self, attempt: Attempt) -> None:
        terms = attempt.terms(*(attempt.needs.references() if attempt.needs else ((), None)))
        with self.lock:
            if self.ended.done():
                return
            payload, attempt.payload = attempt.payload, b""
            attempt.ref = self._submitter.submit_one(terms, payload, self)

    # --- its end, in the session's thread ---------------------------------------------------------------------

    def arrived(self, engine: int, ok: bool, payload: Payload) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultHandler`."""
        if ok or not self._recovers():
            self._finish(None, _End(engine, ok, payload))

    def undone(self, error: BaseException) -> None:
        """See :class:`~ipmpi.client.tasks.resulthandlers.ResultHandler`."""
        if isinstance(error, TaskAborted):
            error = TaskAborted(f"task {self.taskid} was aborted")
        if not isinstance(error, _FAILURES) or not self._recovers():
            self._finish(error, None)

    def _recovers(self) -> bool:
        """After a failed attempt, start the recovery task; return False if the failure is final."""
        with self.lock:
            if self.ended.done():
                return True
            if not self._waiting:
                return False
            if self.aborted:
                self._finish(TaskAborted(f"task {self.taskid} was aborted before its recovery task"), None)
                return True
            try:
                self.start()
            except Exception as refused:  # raised where the result is retrieved
                self._finish(refused, None)
            return True

    def _finish(self, error: BaseException | None, end: _End | None) -> None:
        with self.lock:
            if self.ended.done():
                return
            self._waiting.clear()
            self._error, self._end = error, end
            self._times.complete()
            self.ended.set_result(None)

    def abort(self) -> None:
        """End the task here; what its engine sends later is ignored."""
        self._finish(TaskAborted(f"task {self.taskid} was aborted"), None)

    # --- its outcome -----------------------------------------------------------------------------------------

    @property
    def ref(self) -> TaskRef | None:
        """The current or last attempt; None while it waits in the client."""
        return self._current.ref

    def was_aborted(self) -> bool:
        """Return whether the task was aborted."""
        return isinstance(self._error, TaskAborted)

    def succeeded(self) -> bool:
        """Return whether a task that has ended has a result."""
        return self._end is not None and self._end.ok

    def result(self) -> Any:
        """Return the result of a task that has ended, the same object on every call, or raise its exception."""
        with self.lock:
            if self._result is None:
                self._result = self._make_result()
                if self.succeeded() and self._end is not None:
                    self._end = self._end._replace(payload=b"")  # unpickled, and no longer needed
        is_value, value = self._result
        if is_value:
            return value
        raise value

    def _make_result(self) -> tuple[bool, Any]:
        task, end, failure = self._current.task, self._end, self._error
        opener = self._submitter.opener
        value: Any = None
        if end is None:
            if not isinstance(task, StringTask) or not isinstance(failure, (*_FAILURES, DependencyError)):
                return False, failure
        elif not end.ok:
            payload = end.payload
            failure = failure_of(payload if isinstance(payload, bytes) else b"".join(payload), end.engine, opener)
        else:
            try:
                value = task.process_result(value_of(end.payload, opener, end.engine))
            except Exception as unreadable:  # for instance a class that cannot be imported here
                failure = unreadable
        if isinstance(task, StringTask):
            engine = -1 if end is None else end.engine
            return True, TaskResult(self.taskid, engine, value or {}, failure, self._times)
        return (True, value) if failure is None else (False, failure)

    # --- dependent tasks; see dependencies.Parent ------------------------------------------------------------

    def done(self) -> bool:
        """Return whether the task has ended."""
        return self.ended.done()

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call ``fn`` with one argument when it has ended."""
        self.ended.add_done_callback(fn)

    def reference(self) -> TaskRef | None:
        """Return the current attempt; None if a recovery task might replace it."""
        with self.lock:
            return None if self._waiting else self._current.ref

    def trouble(self) -> str | None:
        """Return how it failed, as a predicate of its name; None if it succeeded."""
        end, error = self._end, self._error
        if end is not None:
            return None if end.ok else f"failed: {describe_failure(end.payload)}"
        if error is None or isinstance(error, TaskAborted):
            return "was aborted"
        return f"failed: {type(error).__name__}: {text_of(error)}"
