"""One task per item of some sequences: what ``tc.map``, ``tc.mapper`` and ``tc.parallel`` use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..session import given
from ..session.functions import Definition
from .mapresults import MapResults
from .tasktypes import BaseTask, Condition, Define, MapTask
from .terms import MakeTerms, TaskSettings, call_terms


class MapCaller(Protocol):
    """The part of :class:`~ipmpi.client.tasks.task.TaskClient` that mapping needs."""

    def run(self, task: BaseTask) -> int:
        """Submit a task; returns its id."""

    def get_task_result(self, taskid: int, block: bool = False) -> Any:
        """Return the result of a task."""

    def define(self, function: Callable[..., Any]) -> Definition:
        """Pickle a function."""

    def stream(
        self,
        definition: Definition,
        rows: Iterable[tuple[Any, ...]],
        settings: TaskSettings,
        depend: Condition | None = None,
        ordered: bool = True,
    ) -> MapResults:
        """Submit a call for each row of arguments."""


class _ItemTask(MapTask):
    """A :class:`MapTask` whose function was pickled before."""

    definition: Definition

    def terms(self, define: Define) -> MakeTerms:
        """See :meth:`BaseTask.terms`."""
        depend = None if self.depend is None else define(self.depend)
        return functools.partial(call_terms, self.definition, self.settings(), True, depend)


class TaskMapper:
    """Maps functions over sequences, one task per item; created by :meth:`TaskClient.mapper`.

    Attributes:
        task_client: the client that runs the tasks.
        clear_before: option of each task, as are ``clear_after``, ``retries``, ``recovery_task`` and ``depend``.
        block: whether :meth:`map` waits for the results.
    """

    def __init__(
        self,
        task_client: MapCaller,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Condition | None = None,
        block: bool = True,
    ) -> None:
        self.task_client = task_client
        self.clear_before = clear_before
        self.clear_after = clear_after
        self.retries = retries
        self.recovery_task = recovery_task
        self.depend = depend
        self.block = block
        self._settings()
        if depend is not None:
            given.function(depend, "depend")
        if recovery_task is not None and not isinstance(recovery_task, BaseTask):
            raise TypeError(f"a recovery_task must be a Task object: {given.shown(recovery_task)}")

    def _settings(self) -> TaskSettings:
        return TaskSettings(
            self.retries, clear_before=bool(self.clear_before), clear_after=bool(self.clear_after)
        ).checked()

    def map(
        self,
        func: Callable[..., Any],
        *sequences: Iterable[Any],
        progress: bool | None = None,
        return_exceptions: bool = False,
        name: str = "",
    ) -> list[Any]:
        """Call ``func`` on each item of the sequences.

        Args:
            func: a function, lambda or other callable.
            *sequences: one for each positional parameter of ``func``, of equal length.
            progress: show a progress bar; None: only on a terminal or in a notebook, after one second.
            return_exceptions: whether exceptions of calls that failed take the places of their results.
            name: as for :meth:`TaskClient.submit`; only with ``block=True`` and without a ``recovery_task``.

        Returns:
            The list of results, in the order of the items. If :attr:`block` is False, the list of task ids.

        Raises:
            ValueError: the sequences differ in length.
            Exception: with ``block=True``, the exception of the first item that failed, unless
                ``return_exceptions`` is set. Tasks that have not
                started are cancelled then, unless there is a ``recovery_task``.
        """
        if not sequences:
            raise TypeError("map() needs a function and at least one sequence")
        columns = columns_of(sequences)
        if not callable(func):
            raise TypeError("a task function must be a FunctionType or another callable")
        definition = self.task_client.define(func)
        rows = zip(*columns, strict=True)
        if self.block and self.recovery_task is None:
            settings = self._settings()._replace(name=name)
            results = self.task_client.stream(definition, rows, settings, self.depend)
            return results.collect(progress, return_exceptions)
        if name != "":
            raise ValueError("name= is for mappers that wait for their results, and have no recovery_task")
        taskids = [self.task_client.run(self._task(func, definition, item)) for item in rows]
        if not self.block:
            return taskids
        return [self._result(taskid, return_exceptions) for taskid in taskids]

    def _result(self, taskid: int, return_exceptions: bool) -> Any:
        try:
            return self.task_client.get_task_result(taskid, block=True)
        except Exception as error:
            if not return_exceptions:
                raise
            return error

    def _task(self, func: Callable[..., Any], definition: Definition, item: tuple[Any, ...]) -> MapTask:
        options = (self.clear_before, self.clear_after, self.retries, self.recovery_task, self.depend)
        task = _ItemTask(func, item, None, *options)
        task.definition = definition
        return task


def columns_of(sequences: Iterable[Iterable[Any]]) -> list[list[Any]]:
    """Return the sequences as lists; raises ValueError if they differ in length."""
    columns = [list(sequence) for sequence in sequences]
    if len({len(column) for column in columns}) > 1:
        raise ValueError("all sequences must have equal length")
    return columns


class TaskParallelFunction:
    """A function that is mapped over its arguments as tasks; created by :meth:`TaskClient.parallel`."""

    def __init__(self, func: Callable[..., Any], mapper: TaskMapper) -> None:
        functools.update_wrapper(self, func)
        self.func = func
        self.mapper = mapper

    def __call__(self, *sequences: Iterable[Any]) -> list[Any]:
        """Call the function on each item of the sequences; see :meth:`TaskMapper.map`."""
        return self.mapper.map(self.func, *sequences)
