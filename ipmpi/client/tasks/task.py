"""The task farm's client, :class:`TaskClient`: tasks of ``run`` have ids, those of ``submit`` are futures."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

from ...protocol import messages
from ...protocol.packed import unpack
from ...transport.ssh.ssh import SshSession
from ..session import given
from ..session.functions import OfThisProgram
from ..session.opening import Unpickle
from ..session.progress import Progress
from ..session.results import wait_until_done
from ..session.session import Session
from ..session.waiting import T, check_waiting
from .cachedcalls import CACHE_BYTES, CacheOfClient, plain
from .farminterfaces import FarmInterfaces
from .futures import TaskFuture
from .resuming import Resuming
from .submission import Tasks, dependencies_of, futures_in, named, submit_later
from .taskids import several, task_id, task_ids
from .taskmap import TaskMapper, TaskParallelFunction
from .taskrecords import Attempt, TaskRecord
from .taskresult import TaskResult
from .tasktypes import BaseTask, Condition, MapTask, StringTask
from .taskview import TaskView, check_meaning
from .terms import TaskSettings, settings_for

__all__ = ["BaseTask", "MapTask", "StringTask", "TaskClient", "TaskResult"]


class TaskClient(FarmInterfaces):
    """A client that runs tasks on the engines of a controller, each on the first engine that is free.

    A :class:`~ipmpi.client.MultiEngineClient` can use the same engines at the same time. Use it in a ``with``
    statement, or call :meth:`close`; it is closed automatically when it is not referenced any more.

    Thread-safety: all methods may be called from any thread. In a done-callback of a future, those that wait raise
    :class:`~ipmpi.errors.ClientError`. A forked process must create a client of its own.

    Args:
        furl_or_file: a furl, or the path of a file that contains one. The default is ``ipcontroller-tc.furl`` of
            the newest unnamed cluster on this machine.
        name: the name of a cluster, instead of a furl, as for :class:`~ipmpi.client.MultiEngineClient`.
        session: an open session to use instead of a new connection.
        ssh, proxy: how to reach the controller, as for :class:`~ipmpi.client.MultiEngineClient`.
        detach: whether its tasks go on when the client has vanished: killed, crashed, or cut off for too long.
            Those with a name go on also when it is closed. :meth:`resume` finds them.
        unpickle, allow: which pickles of engines are opened, as there.
        cache_folder: where results of calls with ``cache=True`` are; None: in IPython's folder, for all clusters.
        cache_bytes: the size that they may have together. Those that were not used for the longest time leave.

    Raises:
        ValueError, FurlError, ConnectionError, SecurityError: as :class:`~ipmpi.client.MultiEngineClient`.
    """

    block = True
    """Kept for compatibility with ``IPython.kernel``; the methods have a ``block`` parameter instead."""

    def __init__(
        self,
        furl_or_file: str | os.PathLike[str] = "",
        *,
        name: str = "",
        session: Session | None = None,
        ssh: str | SshSession | None = None,
        proxy: str | None = None,
        unpickle: Unpickle = "all",
        allow: Iterable[object] = (),
        cache_folder: str | os.PathLike[str] | None = None,
        cache_bytes: int = CACHE_BYTES,
        detach: bool = True,
    ) -> None:
        how = {"name": name, "ssh": ssh, "proxy": proxy, "unpickle": unpickle, "allow": allow}
        super().__init__(CacheOfClient(cache_folder, cache_bytes), furl_or_file, session, how)
        if not detach:
            self._submitter.end_with_client()
        self._resuming = Resuming(self._submitter)
        self._lock = threading.Lock()
        self._records: dict[int, TaskRecord] = {}
        self._next_taskid = 0

    def __enter__(self) -> TaskClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- tasks with ids ----------------------------------------------------------------------------------

    @overload
    def run(self, task: BaseTask, block: Literal[False] = False) -> int: ...
    @overload
    def run(self, task: StringTask, block: Literal[True]) -> TaskResult: ...
    @overload
    def run(self, task: BaseTask, block: bool) -> Any: ...
    def run(self, task: BaseTask, block: bool = False) -> Any:
        """Submit a task.

        Args:
            task: a :class:`StringTask` or :class:`MapTask`.
            block: whether to wait for the task to end.

        Returns:
            The task id, an int; with ``block=True`` what :meth:`get_task_result` returns.

        Raises:
            SerializationError: a part of it cannot be pickled; the message names it.
            TypeError: an attribute is of the wrong type. (AssertionError: ``task`` is not a task at all.)
            IndexError: it depends on a task id that does not exist.
        """
        if not isinstance(task, BaseTask):
            raise AssertionError("task must be a Task object!")  # noqa: TRY004 - as the original
        if block:
            check_waiting()
        attempts = [self._attempt(each) for each in task.chain()]
        with self._lock:
            taskid = self._next_taskid
            self._next_taskid += 1
        record = TaskRecord(taskid, attempts, self._submitter)
        record.start()
        with self._lock:
            self._records[taskid] = record
        return self.get_task_result(taskid, block=True) if block else taskid

    def _attempt(self, task: BaseTask) -> Attempt:
        task.check()
        return Attempt(task, self._submitter, dependencies_of(self._record, task.after, task.follow))

    def get_task_result(self, taskid: int, block: bool = False) -> Any:
        """Return the result of a task.

        Args:
            taskid: the id that :meth:`run` returned.
            block: whether to wait for the task to end.

        Returns:
            None if the task has not ended. For a :class:`StringTask` a :class:`TaskResult`, also if the task
            failed. For a :class:`MapTask` the return value of its function.

        Raises:
            IndexError: no task has this id, or it was cleared.
            TaskAborted: the task was aborted.
            Exception: the exception of the function of a :class:`MapTask`.
        """
        record = self._record(taskid, "task ID not registered: {}")
        if block:
            wait_until_done(record.ended)
        return record.result() if record.ended.done() else None

    def abort(self, taskid: int) -> None:
        """Abort a task: its result becomes :class:`~ipmpi.errors.TaskAborted`, and its recovery task is not run.

        A task that has not started is removed from the queue. One that is running continues, and its result is
        dropped; this method does not wait for that.

        Args:
            taskid: the id that :meth:`run` returned.

        Raises:
            IndexError: the task has ended, was aborted already, or does not exist.
        """
        check_waiting()
        record = self._record(taskid, "No task #{}")
        with record.lock:
            if record.aborted:
                raise IndexError("Task Already Aborted")
            if record.ended.done():
                raise IndexError("Task Already Completed")
            record.aborted = True
            ref = record.ref
        if ref is not None:
            try:
                taken = self._submitter.abort(ref.group, [ref.number], "drop").result()
            except BaseException:
                record.aborted = False
                raise
            # A task that failed meanwhile, and would have been followed by its recovery task, is aborted by now.
            if not taken and not record.was_aborted():
                record.aborted = False
                raise IndexError("Task Already Completed")
        record.abort()

    def barrier(self, taskids: Tasks, progress: bool | None = None) -> None:
        """Wait until these tasks have ended, successfully or not.

        Args:
            taskids: an id of :meth:`run` or a future of :meth:`submit`, or an iterable of these.
            progress: show a progress bar; None: only on a terminal or in a notebook, after one second.

        Raises:
            IndexError: a task does not exist; nothing is waited for then.
        """
        tasks = named(taskids, self._record, "task ID not registered: {}")
        with Progress(len(tasks), progress) as bar:
            for task in tasks:
                ended = task.ended if isinstance(task, TaskRecord) else task
                while not wait_until_done(ended, bar.interval):
                    bar.update(sum(each.done() for each in tasks))

    def queue_status(self, verbose: bool = False) -> dict[str, Any]:
        """Count this client's tasks by state.

        Args:
            verbose: whether to return task ids instead of counts. Tasks of :meth:`submit`, :meth:`map` and
                :meth:`imap` have no ids, and are not listed.

        Returns:
            A dict with the keys ``'scheduled'`` (waiting), ``'pending'`` (running), ``'succeeded'`` and
            ``'failed'``. Aborted tasks count as failed; cleared ones are not counted. The values are ints, or with
            ``verbose`` sorted lists of task ids.
        """
        status = self._submitter.request(messages.TaskStatus).result()
        running = {(group, index) for group, indices in status["running"] for index in unpack(indices)}
        lists: dict[str, list[int]] = {"scheduled": [], "pending": [], "succeeded": [], "failed": []}
        with self._lock:
            records = sorted(self._records.items())
        sent = 0
        for taskid, record in records:
            if record.ended.done():
                lists["succeeded" if record.succeeded() else "failed"].append(taskid)
            else:
                sent += record.ref is not None
                lists["pending" if record.ref in running else "scheduled"].append(taskid)
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
        """Forget the results of tasks that have ended.

        Args:
            taskids: a task id, or an iterable of them; None for all tasks that have ended.

        Returns:
            How many results were removed.

        Raises:
            KeyError: some ids are not of tasks that have ended; the results of the others were removed all the
                same.
        """
        named = None if taskids is None else task_ids(taskids)
        with self._lock:
            ended = {taskid for taskid, record in self._records.items() if record.ended.done()}
            wanted = ended if named is None else named
            for taskid in wanted & ended:
                del self._records[taskid]
        if taskids is None:
            self._submitter.succeeded = self._submitter.failed = 0
        missing = sorted(wanted - ended)
        if missing:
            cleared = len(wanted & ended)
            raise KeyError(f"Cleared {cleared} results, but no tasks found for ids: {several(missing)}")
        return len(wanted)

    def spin(self) -> None:
        """Have the controller offer tasks again to engines that refused them by ``depend``.

        Needed only for conditions that test more than the engine's properties, whose changes trigger it
        automatically.
        """
        self._submitter.request(messages.Recheck).result()

    # --- futures -----------------------------------------------------------------------------------------

    def submit(
        self,
        f: Callable[..., T],
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
        name: str = "",
        detach: bool | None = None,
        cache: bool = False,
        **kwargs: Any,
    ) -> TaskFuture[T]:
        """Call ``f(*args, **kwargs)`` on the first free engine; returns at once.

        Arguments that are themselves futures of tasks are replaced by their results: the call starts when these
        tasks have succeeded. No thread is used to wait for them.

        Args:
            f: a function, lambda or other callable.
            *args: its positional arguments.
            after: tasks that must succeed first: a future or task id, or an iterable of these.
            follow: a task, by future or id; the call runs after it and on the same engine.
            priority: as for :class:`MapTask`, and so are the arguments that follow.
            timeout: see there.
            expected: see there.
            retries: see there.
            depend: see there.
            ranks: see there.
            same_node: see there.
            name: under which :meth:`resume` finds it again, also in another process. Several may have the same.
            detach: whether the task goes on when this client is gone; None: as the client was asked.
            cache: whether the result of an equal call of before will do; see :doc:`/howto/cache`.
            **kwargs: its keyword arguments.

        Returns:
            A :class:`TaskFuture` of the return value.

        Raises:
            SerializationError: the function or an argument cannot be pickled; the message names it.
            TypeError, ValueError: an option is wrong, or also a parameter of ``f``: see :meth:`options`.
                Or, with ``cache``, nothing tells whether two such calls are equal; the message names the argument.
            IndexError: ``after`` or ``follow`` is a task id that does not exist.
        """
        settings = settings_for(retries, priority, timeout, expected, ranks, same_node, name, detach)
        check_meaning(f, len(args), settings, depend, after, follow, bool(cache))
        return self.call(f, args, kwargs, settings, depend, after, follow, bool(cache))

    def options(self, **options: Any) -> TaskView:
        """Return a view of this client that sets options of :meth:`submit` for all its calls.

        All keyword arguments of the view's ``submit`` are passed to the function.

        Args:
            **options: options of :meth:`submit`: ``priority``, ``timeout``, ``after``, and so on.

        Raises:
            TypeError, ValueError: an option is unknown or wrong.
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
        cache: bool = False,
    ) -> TaskFuture:
        """Submit ``f(*args, **kwargs)``; :meth:`submit` and views of :meth:`options` use this."""
        f, always = plain(f)
        cached = self._cached(f, settings) if cache or always else None
        what = f if cached is None else OfThisProgram(f)
        if after is None and follow is None:
            future = self._submit(what, args, kwargs, settings, depend, cached)
        else:
            needs = dependencies_of(self._record, after, follow, futures_in(f, args, kwargs))
            future = submit_later(self._submitter, what, args, kwargs, settings, depend, needs, cached)
        future.remember((f, args, kwargs, settings, depend, after, follow, cached is not None))
        return future

    @overload
    def resubmit(self, task: TaskFuture[T]) -> TaskFuture[T]: ...
    @overload
    def resubmit(self, task: int) -> int: ...
    def resubmit(self, task: TaskFuture[Any] | int) -> Any:
        """Submit a task again, with the same arguments and options; returns at once.

        Objects among the arguments that were changed meanwhile are sent as they are now. The first task is not
        affected; to stop it use :meth:`abort` or :meth:`TaskFuture.cancel`.

        Args:
            task: an id of :meth:`run`, or a future of :meth:`submit`.

        Returns:
            The id, or the future, of the new task.

        Raises:
            ClientError: the future has a result: the arguments of a task are kept until it has succeeded.
            IndexError: no task has this id, or it was cleared.
            TypeError: ``task`` is neither a future nor an id.
        """
        if isinstance(task, TaskFuture):
            return self.call(*task.submitted_call())
        return self.run(self._record(task, "task ID not registered: {}").task)

    # --- many tasks --------------------------------------------------------------------------------------

    @overload
    def map(
        self,
        func: Callable[..., T],
        *sequences: Iterable[Any],
        progress: bool | None = None,
        return_exceptions: Literal[False] = False,
        name: str = "",
        cache: bool = False,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        func: Callable[..., T],
        *sequences: Iterable[Any],
        progress: bool | None = None,
        return_exceptions: bool,
        name: str = "",
        cache: bool = False,
    ) -> list[T | BaseException]: ...
    def map(
        self,
        func: Callable[..., Any],
        *sequences: Iterable[Any],
        progress: bool | None = None,
        return_exceptions: bool = False,
        name: str = "",
        cache: bool = False,
    ) -> list[Any]:
        """Call ``func`` on the items of the sequences, one task per item, and wait for all results.

        Args:
            func: a function, lambda or other callable.
            *sequences: one for each positional parameter of ``func``, of equal length.
            progress: show a progress bar; None: only on a terminal or in a notebook, after one second.
            return_exceptions: whether the exception of a call that failed takes the place of its result in the
                list, so that all calls are made.
            name: as for :meth:`submit`. They go on when the wait ends early, by an exception or Ctrl-C.
            cache: as for :meth:`submit`.

        Returns:
            The list of results, in the order of the items.

        Raises:
            Exception: the exception of the first item, in this order, that failed, unless ``return_exceptions``
                is set. Tasks that have not started are cancelled then.
            ValueError: the sequences differ in length.
            TypeError: with ``cache``, as :meth:`submit`.
        """
        if cache or plain(func)[1]:
            return self.map_cached(func, sequences, TaskSettings(name=name), None, progress, return_exceptions)
        return self.mapper().map(
            func, *sequences, progress=progress, return_exceptions=return_exceptions, name=name
        )

    def mapper(
        self,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Condition | None = None,
        block: bool = True,
    ) -> TaskMapper:
        """Return an object whose ``map`` method creates tasks with these options.

        Args:
            clear_before: as for :class:`MapTask`, and so are the next four.
            clear_after: see there.
            retries: see there.
            recovery_task: see there.
            depend: see there.
            block: whether ``map`` waits and returns the results. Otherwise it returns the list of task ids.
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
        """Return a decorator: the decorated function, called with sequences, is mapped over them as tasks.

        Args:
            clear_before: as for :meth:`mapper`, and so are the arguments that follow.
            clear_after: see there.
            retries: see there.
            recovery_task: see there.
            depend: see there.
            block: see there.
        """
        mapper = self.mapper(clear_before, clear_after, retries, recovery_task, depend, block)
        return lambda func: TaskParallelFunction(func, mapper)

    # --- which tasks -------------------------------------------------------------------------------------

    def _record(self, taskid: int, unknown: str) -> TaskRecord:
        number = task_id(taskid)
        with self._lock:
            record = self._records.get(number)
        if record is None:
            raise IndexError(unknown.format(given.shown(number)))
        return record
