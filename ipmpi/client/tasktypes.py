"""What can be farmed: :class:`StringTask` and :class:`MapTask` (layer L4).

A task is a description. It holds no state of a run, so one task may be run any number of times. All of its
attributes may be given to the constructor or set afterwards; they are checked when the task is run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import serialize
from ..errors import ClientError
from ..limits import LABEL
from ..protocol.operations import Nothing, Operation, Outcome, RunMapTask, RunStringTask


def _value(body: Sequence[serialize.Buffer]) -> Any:
    # Arrays use the memory of the body's buffers; the user's own must be writable.
    stream, *buffers = body
    return serialize.loads([stream, *(bytearray(b) if memoryview(b).readonly else b for b in buffers)])


class BaseTask(ABC):
    """What every kind of task has in common.

    Args:
        clear_before: empty the engine's namespace before the task runs.
        clear_after: empty the engine's namespace after the task has run.
        retries: how often the task is tried again after it raised. Losing an engine uses up no retry.
        recovery_task: the task to run instead, under the same task id, when this one has failed for good.
            It has retries, and may have a recovery task, of its own.
        depend: not available in this release; running a task that has it raises
            :class:`~ipmpi.errors.ClientError`.
    """

    def __init__(
        self,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        self.clear_before = clear_before
        self.clear_after = clear_after
        self.retries = retries
        self.recovery_task = recovery_task
        self.depend = depend

    @abstractmethod
    def operation(self) -> Operation:
        """What the engine is asked to do."""

    @abstractmethod
    def body(self) -> list[serialize.Buffer]:
        """What travels with the operation; raises :class:`~ipmpi.errors.SerializationError`."""

    @abstractmethod
    def label(self) -> str:
        """How status displays and error messages call the task."""

    @abstractmethod
    def process_result(self, outcome: Outcome, body: Sequence[serialize.Buffer]) -> Any:
        """The user's result, from the answer of an engine on which the task succeeded."""

    def check(self) -> None:
        """Raise :class:`TypeError` or :class:`~ipmpi.errors.ClientError` if the task cannot be run."""
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise TypeError(f"a task's retries must be an int, 0 or more: {self.retries!r}")
        if self.depend is not None:
            raise ClientError(
                "depend= is not available in this release: a task runs on whichever engine is free first. Let the "
                "task itself raise TaskRejectError and give it retries, or use a MultiEngineClient with targets="
            )
        if self.recovery_task is not None and not isinstance(self.recovery_task, BaseTask):
            raise TypeError(f"a recovery_task must be a Task object: {self.recovery_task!r}")

    def chain(self) -> Iterator[BaseTask]:
        """Yield this task, its recovery task, the recovery task of that one, and so on.

        Raises:
            ClientError: the chain comes back to a task that it had before.
        """
        seen: set[int] = set()
        task: BaseTask | None = self
        while task is not None:
            if id(task) in seen:
                raise ClientError("the recovery tasks form a loop; the last one needs recovery_task=None")
            seen.add(id(task))
            yield task
            task = task.recovery_task


class StringTask(BaseTask):
    """Source text to run in an engine's namespace; its result is a :class:`~ipmpi.client.taskresult.TaskResult`.

    Args:
        expression: the source text, of any number of lines.
        pull: the name, or the sequence of names, to bring back.
        push: names and values to put into the namespace first.
        clear_before: as for :class:`BaseTask`, and so are the arguments that follow.
        clear_after: see there.
        retries: see there.
        recovery_task: see there.
        depend: see there.
    """

    def __init__(
        self,
        expression: str,
        pull: str | Sequence[str] | None = None,
        push: dict[str, Any] | None = None,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        super().__init__(clear_before, clear_after, retries, recovery_task, depend)
        self.expression = expression
        self.pull = pull
        self.push = push
        self.check()

    def __repr__(self) -> str:
        return f"StringTask({self.expression!r})"

    def check(self) -> None:
        """Raise :class:`TypeError` if an attribute is of the wrong type."""
        super().check()
        if not isinstance(self.expression, str):
            raise TypeError("a task expression must be a string")
        if self.push is not None and not isinstance(self.push, dict):
            raise TypeError("push must be a dict")
        self._pulled()

    def _pulled(self) -> list[str]:
        if self.pull is None:
            return []
        names = [self.pull] if isinstance(self.pull, str) else self.pull
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise TypeError("pull must be str or a sequence of strs")
        return list(names)

    def operation(self) -> RunStringTask:
        """See :meth:`BaseTask.operation`."""
        return RunStringTask(self.expression, self._pulled(), self.clear_before, self.clear_after)

    def body(self) -> list[serialize.Buffer]:
        """See :meth:`BaseTask.body`."""
        return serialize.dumps(self.push or {}, what="push of a StringTask")

    def label(self) -> str:
        """See :meth:`BaseTask.label`."""
        return self.expression.strip()[:LABEL]

    def process_result(self, outcome: Outcome, body: Sequence[serialize.Buffer]) -> dict[str, Any]:
        """Return the pulled names and their values."""
        if isinstance(outcome, Nothing):
            return {}
        return dict(_value(body))


class MapTask(BaseTask):
    """A function to call on an engine; its result is what the function returned, or raises what it raised.

    Args:
        function: a function, lambda or other callable; it is sent by value where the engine cannot import it.
        args: list or tuple of its positional arguments.
        kwargs: dict of its keyword arguments.
        clear_before: as for :class:`BaseTask`, and so are the arguments that follow.
        clear_after: see there.
        retries: see there.
        recovery_task: see there.
        depend: see there.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        super().__init__(clear_before, clear_after, retries, recovery_task, depend)
        self.function = function
        self.args: Sequence[Any] = () if args is None else args
        self.kwargs: dict[str, Any] = {} if kwargs is None else kwargs
        self.check()

    def __repr__(self) -> str:
        return f"MapTask({self.label()})"

    def check(self) -> None:
        """Raise :class:`TypeError` if an attribute is of the wrong type."""
        super().check()
        if not callable(self.function):
            raise TypeError("a task function must be a FunctionType")
        if not isinstance(self.args, (list, tuple)):
            raise TypeError("a task args must be a list or tuple")
        if not isinstance(self.kwargs, dict):
            raise TypeError("a task kwargs must be a dict")

    def operation(self) -> RunMapTask:
        """See :meth:`BaseTask.operation`."""
        return RunMapTask(self.clear_before, self.clear_after)

    def body(self) -> list[serialize.Buffer]:
        """See :meth:`BaseTask.body`."""
        what = f"function or arguments of the task {self.label()}"
        return serialize.dumps((self.function, tuple(self.args), self.kwargs), what=what)

    def label(self) -> str:
        """See :meth:`BaseTask.label`."""
        return str(getattr(self.function, "__qualname__", type(self.function).__name__))[:LABEL]

    def process_result(self, outcome: Outcome, body: Sequence[serialize.Buffer]) -> Any:
        """Return what the function returned."""
        return None if isinstance(outcome, Nothing) else _value(body)
