"""The kinds of tasks: :class:`StringTask` and :class:`MapTask`.

A task object is a description without state: it can be run any number of times. Its attributes have the names of
the constructor's arguments, and may be changed; they are checked again when the task is run.
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
"""A function of a copy of an engine's properties that returns whether the task may run there."""

Define = Callable[[Callable[..., Any]], Definition]


class BaseTask(ABC):
    """Base of all tasks.

    Thread-safety: a task object may be run by several threads, as long as none changes it.

    Args:
        clear_before: clear the engine's namespace before the task runs.
        clear_after: clear the engine's namespace after the task has run.
        retries: how often the task is run again after it raised. The loss of an engine does not count as a try.
        recovery_task: the task to run instead, with the same task id, when this one has failed finally. It has its
            own retries, and may have a recovery task itself.
        depend: a function that takes a copy of an engine's properties, a dict, and returns whether the task may
            run there. A task that no engine accepts within 30 seconds fails with
            :class:`~ipmpi.errors.TaskTimeout`.
        priority: tasks with a larger priority start first; any int.
        timeout: seconds that the task may run. Then it is interrupted and fails with
            :class:`~ipmpi.errors.TaskTimeout`.
        expected: your estimate of the run time in seconds. It allows the task to fill gaps before gang tasks, and
            keeps it off engines whose job ends earlier.
        after: tasks that must succeed first: a task id or future, or an iterable of these.
        follow: a task, by id or future; this one runs after it and on the same engine.

    Raises:
        TypeError, ValueError: an argument is invalid.
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
        """Return the request for the engines; ``define`` pickles the functions that it refers to."""

    @abstractmethod
    def payload(self) -> Payload:
        """Return the pickled data of this task; raises :class:`~ipmpi.errors.SerializationError`."""

    @abstractmethod
    def label(self) -> str:
        """Return the name of the task in status displays and messages."""

    def process_result(self, value: Any) -> Any:
        """Convert the value that the engine sent to the user's result."""
        return value

    def settings(self) -> TaskSettings:
        """Return the options of the task."""
        return TaskSettings(
            self.retries,
            self.priority,
            self.timeout,
            self.expected,
            clear_before=bool(self.clear_before),
            clear_after=bool(self.clear_after),
        )

    def check(self) -> None:
        """Raise :class:`TypeError` or :class:`ValueError` if an attribute is invalid."""
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
            ClientError: the chain contains a task twice.
        """
        seen: set[int] = set()
        task: BaseTask | None = self
        while task is not None:
            if id(task) in seen:
                raise ClientError("the recovery tasks form a loop: the last one needs recovery_task=None")
            seen.add(id(task))
            yield task
            task = task.recovery_task


class StringTask(BaseTask):
    """Python source code that runs in the namespace of an engine.

    Its result is a :class:`~ipmpi.client.tasks.taskresult.TaskResult`.

    Args:
        expression: the source code, one or more statements.
        pull: a name, or a list or tuple of names, whose values are the results.
        push: a dict of names and values, assigned in the namespace first.
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
        """Return a dict of the pulled names and values."""
        return {} if value is None else dict(value)


class MapTask(BaseTask):
    """A function call; its result is the return value of the function, or its exception is raised.

    Args:
        function: a function, lambda or other callable. It is sent by value if engines might be unable to import
            it.
        args: a list or tuple of its positional arguments.
        kwargs: a dict of its keyword arguments.
        clear_before: as for :class:`BaseTask`, and so are the arguments that follow.
        clear_after: see there.
        retries: see there.
        recovery_task: see there.
        depend: see there.
        ranks: how many engines of one set call the function together. With more than one, each calls
            ``function(comm, *args, **kwargs)``, where ``comm`` is their MPI communicator; the result is the return
            value of rank 0 of ``comm``.
        same_node: whether these engines must be on one node.
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
            raise TypeError("a task function must be a FunctionType or another callable")
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
