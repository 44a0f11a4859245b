"""What can be farmed: :class:`StringTask` and :class:`MapTask`.

A task is a description. It holds no state of a run, so one task may be run any number of times. All of its
attributes may be given to the constructor or set afterwards; they are checked when the task is run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import ClientError
from ...limits import LABEL
from ...protocol.operations import StringTaskOperation
from ..session import given
from ..session.functions import Definition, label_of
from .payloads import Payload, packed, packed_arguments
from .terms import MakeTerms, TaskSettings, call_terms, make_terms

if TYPE_CHECKING:
    from .futures import TaskFuture

Condition = Callable[[dict[str, Any]], bool]
"""Gets a copy of an engine's properties, and says whether the task may run there."""

Define = Callable[[Callable[..., Any]], Definition]


class BaseTask(ABC):
    """What every kind of task has in common.

    Args:
        clear_before: empty the engine's namespace before the task runs.
        clear_after: empty the engine's namespace after the task has run.
        retries: how often the task is tried again after it raised. Losing an engine uses up no retry.
        recovery_task: the task to run instead, under the same task id, when this one has failed for good.
            It has retries, and may have a recovery task, of its own.
        depend: a function that gets a copy of an engine's properties, and says whether the task may run there. A
            task that no engine accepts for 30 seconds ends with :class:`~ipmpi.errors.TaskTimeout`.
        priority: tasks with a larger one come first; any int.
        timeout: seconds that the task may run; then it is interrupted and ends with
            :class:`~ipmpi.errors.TaskTimeout`.
        expected: seconds that it will run, by your guess, which helps to fill gaps before tasks of several ranks;
            it is not begun on engines whose job ends before.
        after: tasks (ids of :meth:`TaskClient.run`, futures) that have to succeed before this one starts.
        follow: a task on whose engine this one is to run, after it.
    """

    def __init__(
        self,
        clear_before: bool = False,
        clear_after: bool = False,
        retries: int = 0,
        recovery_task: BaseTask | None = None,
        depend: Condition | None = None,
        *,
        priority: int = 0,
        timeout: float | None = None,
        expected: float | None = None,
        after: TaskFuture | int | Iterable[TaskFuture | int] | None = None,
        follow: TaskFuture | int | None = None,
    ) -> None:
        self.clear_before = clear_before
        self.clear_after = clear_after
        self.retries = retries
        self.recovery_task = recovery_task
        self.depend = depend
        self.priority = priority
        self.timeout = timeout
        self.expected = expected
        self.after = after
        self.follow = follow

    @abstractmethod
    def terms(self, define: Define) -> MakeTerms:
        """What engines are asked to do; ``define`` pickles the functions that are needed for it."""

    @abstractmethod
    def payload(self) -> Payload:
        """What travels for this task alone; raises :class:`~ipmpi.errors.SerializationError`."""

    @abstractmethod
    def label(self) -> str:
        """How status displays and error messages call the task."""

    def process_result(self, value: Any) -> Any:
        """The user's result, from what an engine sent when the task had succeeded there."""
        return value

    def settings(self) -> TaskSettings:
        """The options of the task."""
        return TaskSettings(
            self.retries,
            self.priority,
            self.timeout,
            self.expected,
            clear_before=bool(self.clear_before),
            clear_after=bool(self.clear_after),
        )

    def check(self) -> None:
        """Raise :class:`TypeError` or :class:`ValueError` if an attribute is wrong."""
        self.settings().checked()
        if self.depend is not None and not callable(self.depend):
            raise TypeError(
                f"a task's depend must be a function of an engine's properties: {given.shown(self.depend)}"
            )
        if self.recovery_task is not None and not isinstance(self.recovery_task, BaseTask):
            raise TypeError(f"a recovery_task must be a Task object: {given.shown(self.recovery_task)}")

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
    """Source text to run in an engine's namespace.

    Its result is a :class:`~ipmpi.client.tasks.taskresult.TaskResult`.

    Args:
        expression: the source text, of any number of lines.
        pull: the name, or the sequence of names, to bring back.
        push: names and values to put into the namespace first.
        clear_before: as for :class:`BaseTask`, and so are the arguments that follow.
        clear_after: see there.
        retries: see there.
        recovery_task: see there.
        depend: see there.
        **options: ``priority``, ``timeout``, ``expected``, ``after`` and ``follow``; see there.
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
        depend: Condition | None = None,
        **options: Any,
    ) -> None:
        super().__init__(clear_before, clear_after, retries, recovery_task, depend, **options)
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
        given.source(self.expression, "a task expression")
        if self.push is not None and not isinstance(self.push, dict):
            raise TypeError("push must be a dict")
        given.names(self.push or (), "a name to push")
        self._pulled()

    def _pulled(self) -> list[str]:
        if self.pull is None:
            return []
        names = [self.pull] if isinstance(self.pull, str) else self.pull
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise TypeError("pull must be str or a sequence of strs")
        return given.names(names, "a name to pull")

    def terms(self, define: Define) -> MakeTerms:
        """See :meth:`BaseTask.terms`."""
        depend = None if self.depend is None else define(self.depend)
        operation = StringTaskOperation(
            self.expression,
            self._pulled(),
            bool(self.clear_before),
            bool(self.clear_after),
            b"" if depend is None else depend.key,
        )
        return partial(make_terms, operation, self.label(), (), self.settings(), depend)

    def payload(self) -> Payload:
        """See :meth:`BaseTask.payload`."""
        return packed(self.push, "push of a StringTask") if self.push else b""

    def label(self) -> str:
        """See :meth:`BaseTask.label`."""
        return self.expression[: 10 * LABEL].strip()[:LABEL]

    def process_result(self, value: Any) -> dict[str, Any]:
        """Return the pulled names and their values."""
        return {} if value is None else dict(value)


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
        ranks: with more than one, so many engines of one set call the function together, each as
            ``function(comm, *args, **kwargs)`` with their MPI communicator; the result is what rank 0 of it
            returned.
        same_node: whether these engines have to be on one node.
        **options: ``priority``, ``timeout``, ``expected``, ``after`` and ``follow``; see :class:`BaseTask`.
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
        depend: Condition | None = None,
        *,
        ranks: int = 1,
        same_node: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(clear_before, clear_after, retries, recovery_task, depend, **options)
        self.function = function
        self.args: Sequence[Any] = () if args is None else args
        self.kwargs: dict[str, Any] = {} if kwargs is None else kwargs
        self.ranks = ranks
        self.same_node = same_node
        self.check()

    def __repr__(self) -> str:
        return f"MapTask({self.label()})"

    def settings(self) -> TaskSettings:
        """See :meth:`BaseTask.settings`."""
        return TaskSettings(
            self.retries,
            self.priority,
            self.timeout,
            self.expected,
            self.ranks,
            bool(self.same_node),
            bool(self.clear_before),
            bool(self.clear_after),
        )

    def check(self) -> None:
        """Raise :class:`TypeError` if an attribute is of the wrong type."""
        super().check()
        if not callable(self.function):
            raise TypeError("a task function must be a FunctionType")
        if not isinstance(self.args, (list, tuple)):
            raise TypeError("a task args must be a list or tuple")
        if not isinstance(self.kwargs, dict):
            raise TypeError("a task kwargs must be a dict")
        for name in self.kwargs:
            if not isinstance(name, str):
                raise TypeError(f"the names in a task's kwargs must be strs: {given.shown(name)}")

    def terms(self, define: Define) -> MakeTerms:
        """See :meth:`BaseTask.terms`."""
        depend = None if self.depend is None else define(self.depend)
        return partial(call_terms, define(self.function), self.settings(), not self.kwargs, depend)

    def payload(self) -> Payload:
        """See :meth:`BaseTask.payload`."""
        if not self.kwargs:
            return packed_arguments(tuple(self.args), self.label())
        return packed((tuple(self.args), self.kwargs), f"the arguments of {self.label()}")

    def label(self) -> str:
        """See :meth:`BaseTask.label`."""
        return label_of(self.function)
