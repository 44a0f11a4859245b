"""Submitting single calls: at once, or when the tasks that they depend on have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..session.functions import Definition
from .cachedcalls import CachedCall
from .dependencies import Dependencies, Parent
from .futures import TaskFuture
from .payloads import Payload, packed, packed_arguments
from .submitter import TaskSubmitter
from .taskids import check_follow, listed
from .terms import TaskSettings, call_terms

if TYPE_CHECKING:
    from .taskrecords import TaskRecord


Tasks = TaskFuture | int | Iterable[TaskFuture | int]
"""One or several tasks, given by future or id."""

Find = Callable[[int, str], "TaskRecord"]
"""Returns the task with an id, or raises IndexError with this text, which has a ``{}`` for the id."""


def named(tasks: Tasks | None, find: Find, unknown: str) -> list[TaskFuture | TaskRecord]:
    """Return the tasks that were given.

    Raises:
        IndexError: with the text ``unknown``: there is no such task.
        TypeError: an item is neither a future nor an id.
    """
    return [task if isinstance(task, TaskFuture) else find(task, unknown) for task in listed(tasks)]


def dependencies_of(
    find: Find, after: Tasks | None, follow: TaskFuture | int | None, values: Sequence[TaskFuture] = ()
) -> Dependencies:
    """Return what a task waits for.

    Raises:
        IndexError: there is no such task.
        TypeError: ``follow`` names several.
    """
    parents: Sequence[Parent] = named(after, find, "there is no task {} to run after")
    check_follow(follow)
    followed: Sequence[Parent] = named(follow, find, "there is no task {} to follow")
    return Dependencies(parents, followed[0] if followed else None, values)


def futures_in(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[TaskFuture]:
    """Return the arguments that are futures; raises TypeError if ``function`` is not callable."""
    if not callable(function):
        raise TypeError("a task function must be a FunctionType or another callable")
    return [each for each in (*args, *kwargs.values()) if isinstance(each, TaskFuture)]


def submit_call(
    submitter: TaskSubmitter,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    settings: TaskSettings,
    depend: Callable[[dict[str, Any]], bool] | None,
    cached: CachedCall | None = None,
) -> TaskFuture:
    """Submit a call that depends on no other task, unless an equal one was made before."""
    definition = submitter.define(function)
    condition = None if depend is None else submitter.define(depend)
    terms = call_terms(definition, settings, not kwargs, condition)
    future = TaskFuture(submitter, definition.label)
    if cached is not None and cached.look(future, args, kwargs):
        return future
    payload = _payload(definition, args, kwargs)
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
    cached: CachedCall | None = None,
) -> TaskFuture:
    """Submit a call once the tasks it depends on allow; futures among its arguments become their results.

    If an equal call was made before, nothing is waited for but these arguments.
    """
    settings = settings.checked()
    definition = submitter.define(function)
    condition = None if depend is None else submitter.define(depend)
    future = TaskFuture(submitter, definition.label)

    is_known = not futures_in(function, args, kwargs)
    if cached is not None and is_known and cached.look(future, args, kwargs):
        return future

    def start() -> None:
        given, named = tuple(map(_resolved, args)), {name: _resolved(value) for name, value in kwargs.items()}
        # Again, since arguments may have changed until now, when they are pickled.
        if cached is not None and cached.look(future, given, named, again=is_known):
            submitter.held.discard(future)
            return
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


def _resolved(value: Any) -> Any:
    return value.result(timeout=0) if isinstance(value, TaskFuture) else value
