"""One task per item of some sequences (layer L4): what ``tc.map``, ``tc.mapper`` and ``tc.parallel`` use."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .. import serialize
from .tasktypes import BaseTask, MapTask


class TaskRunner(Protocol):
    """The part of :class:`~ipmpi.client.task.TaskClient` that mapping needs."""

    def run(self, task: BaseTask, block: bool = False) -> Any:
        """Submit a task; returns its id, or with ``block`` its result."""

    def get_task_result(self, taskid: int, block: bool = False) -> Any:
        """Return the result of a task."""


class SharedFunction:
    """A function that was pickled once, to travel with many tasks.

    Pickling a function by value takes a hundred times as long as copying the pickle. An instance pickles as a
    call that gives the function, so that an engine never sees this class.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._segments = serialize.dumps(function, what=f"function {function!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        stream, *buffers = self._segments
        return serialize.loads, ([bytes(stream), *map(pickle.PickleBuffer, buffers)],)


class _ItemTask(MapTask):
    """A :class:`MapTask` whose function was pickled before."""

    shared: SharedFunction

    def body(self) -> list[serialize.Buffer]:
        """See :meth:`BaseTask.body`."""
        return serialize.dumps((self.shared, tuple(self.args), self.kwargs), what=f"arguments of {self.label()}")


class TaskMapper:
    """Map functions over sequences, one task per item; made by ``TaskClient.mapper``.

    Attributes:
        task_client: where the tasks go.
        clear_before: option of each task; so are ``clear_after``, ``retries``, ``recovery_task``, ``depend``.
        block: whether :meth:`map` waits.
    """

    def __init__(
        self,
        task_client: TaskRunner,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Callable[[dict[str, Any]], bool] | None = None,
        block: bool = True,
    ) -> None:
        self.task_client = task_client
        self.clear_before = clear_before
        self.clear_after = clear_after
        self.retries = retries
        self.recovery_task = recovery_task
        self.depend = depend
        self.block = block

    def map(self, func: Callable[..., Any], *sequences: Iterable[Any]) -> list[Any]:
        """Call ``func`` on each item; returns the results in order, or without ``block`` the task ids.

        Raises:
            ValueError: the sequences differ in length.
            Exception: what the first item that failed raised (with ``block``).
        """
        if not sequences:
            raise TypeError("map() needs a function and at least one sequence")
        columns = [list(sequence) for sequence in sequences]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("all sequences must have equal length")
        if not callable(func):
            raise TypeError("a task function must be a FunctionType")
        shared = SharedFunction(func)
        taskids = [self.task_client.run(self._task(func, shared, item)) for item in zip(*columns, strict=True)]
        if not self.block:
            return taskids
        return [self.task_client.get_task_result(taskid, block=True) for taskid in taskids]

    def _task(self, func: Callable[..., Any], shared: SharedFunction, item: tuple[Any, ...]) -> MapTask:
        options = (self.clear_before, self.clear_after, self.retries, self.recovery_task, self.depend)
        task = _ItemTask(func, item, None, *options)
        task.shared = shared
        return task


class TaskParallelFunction:
    """A function that maps itself over sequences as tasks; made by ``TaskClient.parallel``."""

    def __init__(self, func: Callable[..., Any], mapper: TaskMapper) -> None:
        functools.update_wrapper(self, func)
        self.func = func
        self.mapper = mapper

    def __call__(self, *sequences: Iterable[Any]) -> list[Any]:
        """Call the function on each item of the sequences; see :meth:`TaskMapper.map`."""
        return self.mapper.map(self.func, *sequences)
