"""The task farm as a person uses it (layer L4): :class:`TaskClient`.

The controller gives each task to whichever engine is free first; this module only says what is to be run and
shows what came of it. A task keeps its id through retries, which the controller does, and through its
recovery task, which is submitted from here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from .. import serialize
from ..errors import EngineLost, TaskAborted
from ..protocol import messages
from ..protocol.operations import Failed, Operation
from .failures import rebuild_exception
from .results import wait_until_done
from .session import Session, TaskEnd, connect
from .taskmap import TaskMapper, TaskParallelFunction
from .taskresult import TaskResult
from .tasktypes import BaseTask, MapTask, StringTask

__all__ = ["BaseTask", "MapTask", "StringTask", "TaskClient", "TaskResult"]


class _Attempt:
    """A task, ready to be submitted: serialised when the user called run(), so that a bad one raises there."""

    def __init__(self, task: BaseTask) -> None:
        task.check()
        self.task = task
        self.operation: Operation = task.operation()
        self.body: list[serialize.Buffer] = task.body()
        self.label = task.label()
        self.retries = task.retries


class _Entry:
    """One task id: the attempt under way, those that may follow it, and in the end the result.

    ``ended`` resolves once, to the attempt that ended it and its :class:`TaskEnd`, or raises what kept the task
    from having one. Changes happen under ``lock``: the session's thread and the user's meet here.
    """

    def __init__(self, taskid: int, attempts: list[_Attempt]) -> None:
        self.taskid = taskid
        self.waiting = attempts
        self.current: _Attempt
        self.handle = -1
        self.aborted = False
        # Reentrant, because a future that is done already calls back at once, inside submit_next().
        self.lock = threading.RLock()
        self.ended: Future[tuple[_Attempt, TaskEnd]] = Future()
        self._result: tuple[bool, Any] | None = None

    def submit_next(self, session: Session) -> None:
        """Give the next attempt to the controller; call it with the lock held, or before others know the entry."""
        self.current = attempt = self.waiting.pop(0)
        handle = session.task(attempt.operation, attempt.body, attempt.label, attempt.retries)
        attempt.body = []
        self.handle = handle.id
        handle.future.add_done_callback(lambda future: self._attempt_ended(attempt, future, session))

    def _attempt_ended(self, attempt: _Attempt, future: Future[TaskEnd], session: Session) -> None:
        error = TaskAborted("the task was cancelled") if future.cancelled() else future.exception()
        failed = isinstance(error, EngineLost) or (error is None and not future.result().ok)
        with self.lock:
            if self.ended.done():
                return
            if failed and self.waiting and self.aborted:
                error = TaskAborted(f"task {self.taskid} was aborted before its recovery task")
            elif failed and self.waiting:
                try:
                    self.submit_next(session)
                except Exception as refused:  # shown to whoever asks for the result: no one is here to catch it
                    error = refused
                else:
                    return
            self.waiting.clear()
            self._finish(error, None if error else (attempt, future.result()))

    def _finish(self, error: BaseException | None, end: tuple[_Attempt, TaskEnd] | None) -> None:
        with self.lock:
            if self.ended.done():
                return
            if error is not None:
                self.ended.set_exception(error)
            elif end is not None:
                self.ended.set_result(end)

    def abort(self) -> None:
        """End the task here, whatever its engine says later."""
        self._finish(TaskAborted(f"task {self.taskid} was aborted"), None)

    def has_ended_with(self, kind: type[BaseException]) -> bool:
        """Whether the task has ended without an engine's answer, for this reason."""
        return self.ended.done() and isinstance(self.ended.exception(), kind)

    def succeeded(self) -> bool:
        """Whether a task that has ended has a result."""
        return self.ended.exception() is None and self.ended.result()[1].ok

    def result(self) -> Any:
        """The user's result of a task that has ended, or raise; the same object on every call."""
        if self._result is None:
            self._result = self._make_result()
        is_value, value = self._result
        if is_value:
            return value
        raise value

    def _make_result(self) -> tuple[bool, Any]:
        error = self.ended.exception()
        if error is not None:
            if isinstance(error, EngineLost) and isinstance(self.current.task, StringTask):
                return True, TaskResult(self.taskid, -1, {}, error)
            return False, error
        attempt, end = self.ended.result()
        failure: BaseException | None = None
        value: Any = None
        if isinstance(end.outcome, Failed):
            failure = rebuild_exception(end.outcome, end.body, end.engine, "run")
        else:
            try:
                value = attempt.task.process_result(end.outcome, end.body)
            except Exception as unreadable:  # a class that is not importable here, say
                failure = unreadable
        if isinstance(attempt.task, StringTask):
            return True, TaskResult(self.taskid, end.engine, value or {}, failure, end.submitted, end.completed)
        return (True, value) if failure is None else (False, failure)


class TaskClient:
    """Farm tasks over the engines of a controller, each to the engine that is free first.

    It works on the same engines as a :class:`~ipmpi.client.MultiEngineClient`, and at the same time.

    Args:
        furl_or_file: a furl, or the path of a file with one; empty for ``ipcontroller-tc.furl`` in the
            security folder.
        session: an open session to use instead.
    """

    block = True
    """Kept from the original; each method has a ``block`` of its own."""

    def __init__(self, furl_or_file: str = "", *, session: Session | None = None) -> None:
        self._session: Session = connect(furl_or_file, role="tc") if session is None else session
        self._lock = threading.Lock()
        self._entries: dict[int, _Entry] = {}
        self._next_taskid = 0

    def __enter__(self) -> TaskClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the link to the controller; what is still open of this client's tasks is lost to it."""
        self._session.close()

    # --- single tasks ------------------------------------------------------------------------------------

    def run(self, task: BaseTask, block: bool = False) -> Any:
        """Submit a task.

        Args:
            task: a :class:`StringTask` or :class:`MapTask`.
            block: wait for its end, and return what :meth:`get_task_result` would.

        Returns:
            The task id, an int; with ``block`` the result.

        Raises:
            SerializationError: something in it cannot be sent; the message says what.
            TypeError: an attribute of the task is of the wrong type.
            ClientError: the task asks for what this release cannot do.
        """
        if not isinstance(task, BaseTask):
            raise AssertionError("task must be a Task object!")  # noqa: TRY004 - as the original
        attempts = [_Attempt(each) for each in task.chain()]
        with self._lock:
            taskid = self._next_taskid
            self._next_taskid += 1
        entry = _Entry(taskid, attempts)
        with entry.lock:  # the task may end before submit_next() has noted its handle
            entry.submit_next(self._session)
        with self._lock:
            self._entries[taskid] = entry
        return self.get_task_result(taskid, block=True) if block else taskid

    def get_task_result(self, taskid: int, block: bool = False) -> Any:
        """Look up what became of a task.

        Args:
            taskid: the id that :meth:`run` gave.
            block: wait until the task has ended.

        Returns:
            None if it has not ended. For a :class:`StringTask` a :class:`TaskResult`, also where the task failed.
            For a :class:`MapTask` what its function returned.

        Raises:
            IndexError: there is no such task, or it was cleared.
            TaskAborted: the task was aborted.
            Exception: what the function of a :class:`MapTask` raised, as that exception.
        """
        entry = self._entry(taskid, "task ID not registered: {}")
        if block:
            wait_until_done(entry.ended)
        return entry.result() if entry.ended.done() else None

    def abort(self, taskid: int) -> None:
        """Take a task back; returns at once.

        A task that waits is never run. One that is running goes on to its end, and what it gives is dropped.
        Either way its result is :class:`~ipmpi.errors.TaskAborted` from now on, and a recovery task is not run.

        Raises:
            IndexError: the task has ended, was aborted before, or never was.
        """
        entry = self._entry(taskid, "No task #{}")
        with entry.lock:
            if entry.aborted:
                raise IndexError("Task Already Aborted")
            if entry.ended.done():
                raise IndexError("Task Already Completed")
            entry.aborted = True
            handle = entry.handle
        try:
            answer = self._session.request(lambda i: messages.AbortTask(i, handle)).result()
        except BaseException:
            entry.aborted = False
            raise
        # A task that failed meanwhile, and would have been followed by its recovery task, is aborted by now.
        if answer == "done" and not entry.has_ended_with(TaskAborted):
            entry.aborted = False
            raise IndexError("Task Already Completed")
        entry.abort()

    def barrier(self, taskids: int | Iterable[int]) -> None:
        """Wait until these tasks have ended, whether well or badly.

        Raises:
            IndexError: there is no such task; nothing was waited for.
        """
        ids = [taskids] if isinstance(taskids, int) else list(taskids)
        entries = [self._entry(taskid, "task ID not registered: {}") for taskid in ids]
        for entry in entries:
            wait_until_done(entry.ended)

    def queue_status(self, verbose: bool = False) -> dict[str, Any]:
        """Count this client's tasks: ``scheduled``, ``pending`` (running), ``succeeded`` and ``failed``.

        Aborted tasks count as failed; cleared ones are in no count.

        Args:
            verbose: give sorted lists of task ids instead of counts.
        """
        status = self._session.request(messages.TaskStatus).result()
        running = set(status["pending"])
        lists: dict[str, list[int]] = {"scheduled": [], "pending": [], "succeeded": [], "failed": []}
        with self._lock:
            entries = sorted(self._entries.items())
        for taskid, entry in entries:
            if entry.ended.done():
                lists["succeeded" if entry.succeeded() else "failed"].append(taskid)
            else:
                lists["pending" if entry.handle in running else "scheduled"].append(taskid)
        return dict(lists) if verbose else {name: len(ids) for name, ids in lists.items()}

    def clear(self, taskids: int | Iterable[int] | None = None) -> int:
        """Forget the results of tasks that have ended: of these, or of all.

        Returns:
            How many were forgotten.

        Raises:
            KeyError: some of the ids are of no task that has ended; the others were cleared all the same.
        """
        with self._lock:
            ended = {taskid for taskid, entry in self._entries.items() if entry.ended.done()}
            wanted = ended if taskids is None else {taskids} if isinstance(taskids, int) else set(taskids)
            for taskid in wanted & ended:
                del self._entries[taskid]
        missing = sorted(wanted - ended)
        if missing:
            names = ", ".join(map(str, missing))
            raise KeyError(f"Cleared {len(wanted & ended)} results, but no tasks found for ids: {names}")
        return len(wanted)

    def spin(self) -> None:
        """Do nothing: the controller needs no push to look for work. Kept so that old scripts run."""

    # --- many tasks ------------------------------------------------------------------------------------

    def map(self, func: Callable[..., Any], *sequences: Iterable[Any]) -> Any:
        """Call ``func`` on the items of the sequences, one task per item, and wait.

        Returns:
            The list of results, in the order of the items.

        Raises:
            Exception: what the first item that failed raised, as that exception.
            ValueError: the sequences differ in length.
        """
        return self.mapper().map(func, *sequences)

    def mapper(
        self,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Callable[[dict[str, Any]], bool] | None = None,
        block: bool = True,
    ) -> TaskMapper:
        """Return an object with a ``map`` method; its tasks get these options (see :class:`MapTask`).

        Args:
            clear_before: for each task, and so are the arguments that follow, up to ``block``.
            clear_after: see there.
            retries: see there.
            recovery_task: see there.
            depend: see there.
            block: whether ``map`` waits for the results; if not, it returns the list of task ids.
        """
        return TaskMapper(self, clear_before, clear_after, retries, recovery_task, depend, block)

    def parallel(
        self,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Callable[[dict[str, Any]], bool] | None = None,
        block: bool = True,
    ) -> Callable[[Callable[..., Any]], TaskParallelFunction]:
        """Return a decorator: the decorated function maps itself over sequences; arguments of :meth:`mapper`.

        Args:
            clear_before: see :meth:`mapper`, and so for the arguments that follow.
            clear_after: see there.
            retries: see there.
            recovery_task: see there.
            depend: see there.
            block: see there.
        """
        mapper = self.mapper(clear_before, clear_after, retries, recovery_task, depend, block)
        return lambda func: TaskParallelFunction(func, mapper)

    def _entry(self, taskid: int, unknown: str) -> _Entry:
        if isinstance(taskid, bool) or not isinstance(taskid, int):
            raise TypeError(f"an integer task id expected: {taskid!r}")
        with self._lock:
            try:
                return self._entries[taskid]
            except KeyError:
                raise IndexError(unknown.format(taskid)) from None
