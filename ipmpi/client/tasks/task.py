"""The task farm as a person uses it: :class:`TaskClient`.

The controller gives each task to whichever engine is free first; this package only says what is to be run and
shows what came of it. Tasks of :meth:`TaskClient.run` have ids and keep them through retries, which the
controller does, and through their recovery tasks, which are submitted from here. Those of
:meth:`TaskClient.submit` are futures.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...protocol import messages
from ...protocol.packed import unpack
from ...transport.ssh.ssh import SshSession
from ..session import given
from ..session.progress import Progress
from ..session.results import wait_until_done
from ..session.session import Session
from ..session.waiting import check_waiting
from .caller import TaskCaller
from .futures import TaskFuture, gather
from .mapresults import MapResults
from .submission import Tasks, named, needs_of, submit_later
from .taskids import several, task_id, task_ids
from .taskmap import TaskMapper, TaskParallelFunction
from .taskrecords import Attempt, TaskRecord
from .taskresult import TaskResult
from .tasktypes import BaseTask, Condition, MapTask, StringTask
from .taskview import TaskView, check_meaning
from .terms import TaskSettings

if TYPE_CHECKING:
    from ..pools.executor import Executor
    from ..pools.pool import Pool

__all__ = ["BaseTask", "MapTask", "StringTask", "TaskClient", "TaskResult"]


class TaskClient(TaskCaller):
    """Farm tasks over the engines of a controller, each to the engine that is free first.

    It works on the same engines as a :class:`~ipmpi.client.MultiEngineClient`, and at the same time. All methods
    may be called from any thread, but in a callback none that waits. One that is no longer referenced is closed.

    Args:
        furl_or_file: a furl, or the path of a file with one; empty for ``ipcontroller-tc.furl`` in the
            security folder.
        name: a cluster by its name, instead of a furl, as for :class:`~ipmpi.client.MultiEngineClient`.
        session: an open session to use instead.
        ssh, proxy: ways to reach the controller, as for :class:`~ipmpi.client.MultiEngineClient`.
    """

    block = True
    """Kept from the original; each method has a ``block`` of its own."""

    def __init__(
        self,
        furl_or_file: str | os.PathLike[str] = "",
        *,
        name: str = "",
        session: Session | None = None,
        ssh: str | SshSession | None = None,
        proxy: str | None = None,
    ) -> None:
        super().__init__(furl_or_file, name=name, session=session, ssh=ssh, proxy=proxy)
        self._lock = threading.Lock()
        self._entries: dict[int, TaskRecord] = {}
        self._next_taskid = 0

    def __enter__(self) -> TaskClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- tasks with ids ----------------------------------------------------------------------------------

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
            IndexError: it comes after a task id that no task has.
        """
        if not isinstance(task, BaseTask):
            raise AssertionError("task must be a Task object!")  # noqa: TRY004 - as the original
        if block:
            check_waiting()
        attempts = [self._attempt(each) for each in task.chain()]
        with self._lock:
            taskid = self._next_taskid
            self._next_taskid += 1
        entry = TaskRecord(taskid, attempts, self._submitter)
        entry.start()
        with self._lock:
            self._entries[taskid] = entry
        return self.get_task_result(taskid, block=True) if block else taskid

    def _attempt(self, task: BaseTask) -> Attempt:
        task.check()
        return Attempt(task, self._submitter, needs_of(self._entry, task.after, task.follow))

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
        check_waiting()
        entry = self._entry(taskid, "No task #{}")
        with entry.lock:
            if entry.aborted:
                raise IndexError("Task Already Aborted")
            if entry.ended.done():
                raise IndexError("Task Already Completed")
            entry.aborted = True
            ref = entry.ref
        if ref is not None:
            try:
                taken = self._submitter.abort(ref.group, [ref.number], "drop").result()
            except BaseException:
                entry.aborted = False
                raise
            # A task that failed meanwhile, and would have been followed by its recovery task, is aborted by now.
            if not taken and not entry.was_aborted():
                entry.aborted = False
                raise IndexError("Task Already Completed")
        entry.abort()

    def barrier(self, taskids: Tasks, progress: bool | None = None) -> None:
        """Wait until these tasks have ended, whether well or badly.

        Args:
            taskids: ids of :meth:`run`, or futures of :meth:`submit`; or one of these.
            progress: show a bar; None: if this is a terminal or notebook, and takes more than a second.

        Raises:
            IndexError: there is no such task; nothing was waited for.
        """
        tasks = named(taskids, self._entry, "task ID not registered: {}")
        with Progress(len(tasks), progress) as bar:
            for task in tasks:
                ended = task.ended if isinstance(task, TaskRecord) else task
                while not wait_until_done(ended, bar.interval):
                    bar.update(sum(each.done() for each in tasks))

    def queue_status(self, verbose: bool = False) -> dict[str, Any]:
        """Count this client's tasks: ``scheduled``, ``pending`` (running), ``succeeded`` and ``failed``.

        Aborted tasks count as failed; cleared ones are in no count.

        Args:
            verbose: give sorted lists of task ids instead of counts. Tasks of :meth:`submit`, :meth:`map` and
                :meth:`imap` have no ids, and are in no list.
        """
        status = self._submitter.request(messages.TaskStatus).result()
        running = {(group, index) for group, indices in status["running"] for index in unpack(indices)}
        lists: dict[str, list[int]] = {"scheduled": [], "pending": [], "succeeded": [], "failed": []}
        with self._lock:
            entries = sorted(self._entries.items())
        sent = 0
        for taskid, entry in entries:
            if entry.ended.done():
                lists["succeeded" if entry.succeeded() else "failed"].append(taskid)
            else:
                sent += entry.ref is not None
                lists["pending" if entry.ref in running else "scheduled"].append(taskid)
        if verbose:
            return dict(lists)
        counts = {name: len(ids) for name, ids in lists.items()}
        others = max(0, self._submitter.open_tasks() - sent)  # those without ids
        pending = min(others, len(running) - counts["pending"])
        counts["pending"] += pending
        counts["scheduled"] += others - pending + len(self._submitter.held)
        counts["succeeded"] += self._submitter.succeeded
        counts["failed"] += self._submitter.failed
        return dict(counts)

    def clear(self, taskids: int | Iterable[int] | None = None) -> int:
        """Forget the results of tasks that have ended: of these, or of all.

        Returns:
            How many were forgotten.

        Raises:
            KeyError: some of the ids are of no task that has ended; the others were cleared all the same.
        """
        named = None if taskids is None else task_ids(taskids)
        with self._lock:
            ended = {taskid for taskid, entry in self._entries.items() if entry.ended.done()}
            wanted = ended if named is None else named
            for taskid in wanted & ended:
                del self._entries[taskid]
        if taskids is None:
            self._submitter.succeeded = self._submitter.failed = 0
        missing = sorted(wanted - ended)
        if missing:
            cleared = len(wanted & ended)
            raise KeyError(f"Cleared {cleared} results, but no tasks found for ids: {several(missing)}")
        return len(wanted)

    def spin(self) -> None:
        """Have engines asked again that refused a task of this client, for conditions of more than properties.

        The controller needs no push to look for work, and asks again by itself when an engine's properties change.
        """
        self._submitter.request(messages.Recheck).result()

    # --- futures -----------------------------------------------------------------------------------------

    def submit(
        self,
        f: Callable[..., Any],
        /,
        *args: Any,
        after: Tasks | None = None,
        follow: TaskFuture | int | None = None,
        priority: int = 0,
        timeout: float | None = None,
        expected: float | None = None,
        retries: int = 0,
        depend: Condition | None = None,
        ranks: int = 1,
        same_node: bool = False,
        **kwargs: Any,
    ) -> TaskFuture:
        """Call ``f(*args, **kwargs)`` on an engine; returns at once.

        Args that are futures of tasks stand for their results: the call waits for these tasks, without a thread.

        Args:
            f: a function, lambda or other callable.
            *args: its arguments.
            after: tasks that have to succeed before, futures or ids; or one of these.
            follow: a task on whose engine to run, after it.
            priority: as for :class:`~ipmpi.client.MapTask`, and so are the arguments that follow.
            timeout: see there.
            expected: see there.
            retries: see there.
            depend: see there.
            ranks: see there.
            same_node: see there.
            **kwargs: its keyword arguments.

        Raises:
            SerializationError: something cannot be sent; the message says what.
            TypeError, ValueError: an option is wrong, or ``f`` has a parameter of its name: see :meth:`options`.
        """
        settings = TaskSettings(retries, priority, timeout, expected, ranks, same_node)
        check_meaning(f, len(args), settings, depend=depend, after=after, follow=follow)
        return self.call(f, args, kwargs, settings, depend, after, follow)

    def options(self, **options: Any) -> TaskView:
        """This client with options for its calls; keyword arguments of its ``submit`` are all the function's.

        Args:
            **options: those of :meth:`submit`.
        """
        return TaskView(self, options)

    def call(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settings: TaskSettings,
        depend: Condition | None = None,
        after: Tasks | None = None,
        follow: TaskFuture | int | None = None,
    ) -> TaskFuture:
        """Submit ``f(*args, **kwargs)``: what :meth:`submit` and :meth:`options` are made of."""
        if after is None and follow is None:
            return super().call(f, args, kwargs, settings, depend)
        if not callable(f):
            raise TypeError("a task function must be a FunctionType")
        values = [each for each in (*args, *kwargs.values()) if isinstance(each, TaskFuture)]
        needs = needs_of(self._entry, after, follow, values)
        return submit_later(self._submitter, f, args, kwargs, settings, depend, needs)

    def imap(
        self,
        f: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        timeout: float | None = None,
        retries: int = 0,
        priority: int = 0,
        expected: float | None = None,
        depend: Condition | None = None,
        ranks: int = 1,
        same_node: bool = False,
    ) -> MapResults:
        """Call ``f`` on the items of the iterables, up to the end of the shortest, one task per item.

        All is submitted when this returns. There is no future for each item, so a million of them is no burden.

        Args:
            f: a function, lambda or other callable.
            *iterables: one for each of its arguments.
            ordered: give the results in the order of the items; else as they come.
            timeout: seconds that each call may take. (To wait for a result for so long only, there is
                :meth:`MapResults.next`.)
            retries: as for :class:`~ipmpi.client.MapTask`, and so are the arguments that follow.
            priority: see there.
            expected: see there.
            depend: see there.
            ranks: see there.
            same_node: see there.

        Returns:
            An iterator of the results; where a call failed, it raises what that raised. When it is dropped or
            closed, what has not started is not run.
        """
        settings = TaskSettings(retries, priority, timeout, expected, ranks, same_node)
        return self.call_each(f, iterables, settings, depend, ordered)

    def call_each(
        self,
        f: Callable[..., Any],
        iterables: Sequence[Iterable[Any]],
        settings: TaskSettings,
        depend: Condition | None = None,
        ordered: bool = True,
    ) -> MapResults:
        """Submit a call for each item of the iterables: what :meth:`imap` and :meth:`options` are made of."""
        if not callable(f):
            raise TypeError("a task function must be a FunctionType")
        if not iterables:
            raise TypeError("imap() needs a function and at least one iterable")
        return self.stream(self._submitter.define(f), zip(*iterables, strict=False), settings, depend, ordered)

    def gather(self, futures: Iterable[TaskFuture], progress: bool | None = None) -> list[Any]:
        """The results of futures, in their order; see :func:`ipmpi.client.tasks.futures.gather`."""
        return gather(futures, progress)

    # --- for programs that know other farms --------------------------------------------------------------

    def executor(self, **options: Any) -> Executor:
        """The engines as an executor of ``concurrent.futures``; this client stays open when it is shut down.

        Args:
            **options: for all its calls: ``priority``, ``timeout``, ``expected``, ``retries``, ``depend``,
                ``ranks`` and ``same_node``, as in :meth:`submit`.
        """
        from ..pools.executor import Executor

        return Executor(client=self, **options)

    def pool(self, **options: Any) -> Pool:
        """The engines with the methods of a ``multiprocessing.Pool``; this client stays open when it ends.

        Args:
            **options: see :meth:`executor`.
        """
        from ..pools.pool import Pool

        return Pool(client=self, **options)

    # --- many tasks --------------------------------------------------------------------------------------

    def map(self, func: Callable[..., Any], *sequences: Iterable[Any], progress: bool | None = None) -> Any:
        """Call ``func`` on the items of the sequences, one task per item, and wait.

        Args:
            func: a function, lambda or other callable.
            *sequences: of equal length, one for each of its arguments.
            progress: show a bar; None: if this is a terminal or notebook, and takes more than a second.

        Returns:
            The list of results, in the order of the items.

        Raises:
            Exception: what the first item that failed raised, as that exception. Items that have not started then
                are not run.
            ValueError: the sequences differ in length.
        """
        return self.mapper().map(func, *sequences, progress=progress)

    def mapper(
        self,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Condition | None = None,
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
        depend: Condition | None = None,
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

    # --- which tasks -------------------------------------------------------------------------------------

    def _entry(self, taskid: int, unknown: str) -> TaskRecord:
        number = task_id(taskid)
        with self._lock:
            try:
                return self._entries[number]
            except KeyError:
                raise IndexError(unknown.format(given.shown(number))) from None
