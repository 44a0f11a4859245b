"""Single calls on their way to the submitter: now, or when the tasks that they wait for have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..session.functions import Definition
from .dependencies import Dependencies, Parent
from .futures import TaskFuture
from .payloads import Payload, packed, packed_arguments
from .submitter import TaskSubmitter
from .taskids import check_follow, listed
from .terms import TaskSettings, call_terms

if TYPE_CHECKING:
    from .taskrecords import TaskRecord


Tasks = TaskFuture | int | Iterable[TaskFuture | int]
"""Tasks as users name them: by their futures, or by their ids."""

Find = Callable[[int, str], "TaskRecord"]
"""The task with an id; or IndexError, with a text that has a place for the id."""


def named(tasks: Tasks | None, find: Find, unknown: str) -> list[TaskFuture | TaskRecord]:
    """The tasks that somebody names.

    Raises:
        IndexError: with the text ``unknown``: there is no such task.
        TypeError: it is nothing that names tasks.
    """
    return [task if isinstance(task, TaskFuture) else find(task, unknown) for task in listed(tasks)]


def needs_of(
    find: Find, after: Tasks | None, follow: TaskFuture | int | None, values: Sequence[TaskFuture] = ()
) -> Dependencies:
    """What a task waits for.

    Raises:
        IndexError: there is no such task.
        TypeError: ``follow`` names several.
    """
    parents: Sequence[Parent] = named(after, find, "there is no task {} to come after")
    check_follow(follow)
    followed: Sequence[Parent] = named(follow, find, "there is no task {} to follow")
    return Dependencies(parents, followed[0] if followed else None, values)


def futures_given(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[TaskFuture]:
    """The arguments of a call that are futures; TypeError if it is a call of no function."""
    if not callable(function):
        raise TypeError("a task function must be a FunctionType")
    return [each for each in (*args, *kwargs.values()) if isinstance(each, TaskFuture)]


def submit_call(
    submitter: TaskSubmitter,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    settings: TaskSettings,
    depend: Callable[[dict[str, Any]], bool] | None,
) -> TaskFuture:
    """Submit a call that waits for nothing."""
    definition = submitter.define(function)
    condition = None if depend is None else submitter.define(depend)
    terms = call_terms(definition, settings, not kwargs, condition)
    payload = _payload(definition, args, kwargs)
    future = TaskFuture(submitter, definition.label)
    future.ref = submitter.submit_one(terms, payload, future)
    return future


def submit_later(
    submitter: TaskSubmitter,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    settings: TaskSettings,
    depend: Callable[[dict[str, Any]], bool] | None,
    needs: Dependencies,
) -> TaskFuture:
    """Submit a call that waits for other tasks; futures in ``args`` and ``kwargs`` stand for their results."""
    settings = settings.checked()
    definition = submitter.define(function)
    condition = None if depend is None else submitter.define(depend)
    future = TaskFuture(submitter, definition.label)

    def start() -> None:
        given, named = tuple(map(_settled, args)), {name: _settled(value) for name, value in kwargs.items()}
        payload = _payload(definition, given, named)
        terms = call_terms(definition, settings, not named, condition, *needs.references())
        future.place(lambda: submitter.submit_one(terms, payload, future))
        submitter.held.discard(future)

    submitter.held.add(future)
    future.add_done_callback(submitter.held.discard)
    try:
        needs.when_ready(submitter, start, future.undone)
    except BaseException:
        submitter.held.discard(future)
        raise
    return future


def _payload(definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Payload:
    if not kwargs:
        return packed_arguments(args, definition.label)
    return packed((args, kwargs), f"the arguments of {definition.label}")


def _settled(value: Any) -> Any:
    return value.result(timeout=0) if isinstance(value, TaskFuture) else value
