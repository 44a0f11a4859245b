"""A task client with preset options: what ``tc.options(...)`` returns."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, overload

from ..session.functions import label_of
from ..session.waiting import T
from .cachedcalls import plain
from .calloptions import checked_options, settings_of
from .futures import TaskFuture
from .mapresults import MapResults
from .submission import Tasks
from .taskmap import columns_of
from .tasktypes import Condition
from .terms import USUAL, TaskSettings

PARENTS = frozenset({"after", "follow"})
"""Options that refer to other tasks."""

_OWN = PARENTS | {"cache"}
"""Options that calls of executors and pools do not have."""


class TaskCalls(Protocol):
    """The part of :class:`~ipmpi.client.tasks.task.TaskClient` that a view needs."""

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
        """Submit ``f(*args, **kwargs)``."""

    def map_cached(
        self,
        func: Callable[..., Any],
        sequences: Sequence[Iterable[Any]],
        settings: TaskSettings,
        depend: Condition | None = None,
        progress: bool | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Submit the calls of which no result is kept, and wait for all results."""

    def call_each(
        self,
        f: Callable[..., Any],
        iterables: Sequence[Iterable[Any]],
        settings: TaskSettings,
        depend: Condition | None = None,
        ordered: bool = True,
    ) -> MapResults:
        """Submit a call for each item of the iterables."""


class TaskView:
    """Submits calls with preset options; all keyword arguments of :meth:`submit` are passed to the function.

    ``tc.options(timeout=5).submit(f, timeout=3)`` calls ``f(timeout=3)``, which may run for 5 seconds. It is
    immutable, and may be used from any thread.
    """

    def __init__(self, client: TaskCalls, options: dict[str, Any]) -> None:
        self._client = client
        self._parents = {name: value for name, value in options.items() if name in PARENTS}
        self._cache = bool(options.get("cache", False))
        self._options = checked_options({n: value for n, value in options.items() if n not in _OWN})
        self._settings = settings_of(self._options)

    def __repr__(self) -> str:
        given = self._given()
        return f"<TaskView: {', '.join(f'{name}={value!r}' for name, value in given.items()) or 'no options'}>"

    def options(self, **options: Any) -> TaskView:
        """Return a view with these options in addition; see :meth:`TaskClient.options`."""
        return TaskView(self._client, {**self._given(), **options})

    def _given(self) -> dict[str, Any]:
        return {**self._options, **self._parents, **({"cache": True} if self._cache else {})}

    def submit(self, f: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Call ``f(*args, **kwargs)`` on an engine, as :meth:`TaskClient.submit`; returns at once."""
        depend = self._options.get("depend")
        return self._client.call(f, args, kwargs, self._settings, depend, **self._parents, cache=self._cache)

    def imap(self, f: Callable[..., T], /, *iterables: Iterable[Any], ordered: bool = True) -> MapResults[T]:
        """As :meth:`TaskClient.imap`, with the options of this view.

        Raises:
            TypeError: ``after`` or ``follow`` is among the options: they apply to :meth:`submit` only. Or
                ``cache`` is, which applies to :meth:`submit` and :meth:`map`.
        """
        if self._cache:
            raise TypeError("cache=True is an option of submit and map; imap does not look for results of before")
        if self._parents:
            raise TypeError("after and follow are options of submit; the tasks of a map wait for no others")
        return self._client.call_each(f, iterables, self._settings, self._options.get("depend"), ordered)

    @overload
    def map(
        self,
        func: Callable[..., T],
        *sequences: Iterable[Any],
        progress: bool | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[T]: ...
    @overload
    def map(
        self,
        func: Callable[..., T],
        *sequences: Iterable[Any],
        progress: bool | None = None,
        return_exceptions: bool,
    ) -> list[T | BaseException]: ...
    def map(
        self,
        func: Callable[..., Any],
        *sequences: Iterable[Any],
        progress: bool | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """As :meth:`TaskClient.map`, with the options of this view."""
        if (self._cache or plain(func)[1]) and not self._parents:
            settings, depend = self._settings, self._options.get("depend")
            return self._client.map_cached(func, sequences, settings, depend, progress, return_exceptions)
        return self.imap(func, *columns_of(sequences)).collect(progress, return_exceptions)


def check_meaning(
    function: Callable[..., Any],
    positional: int,
    settings: TaskSettings,
    depend: Condition | None,
    after: Tasks | None,
    follow: TaskFuture | int | None,
    cache: bool,
) -> None:
    """Raise TypeError if an option might have been meant for the function.

    Args:
        function: the function to call.
        positional: how many positional arguments it gets, not counting the communicator of a gang task.
        settings: some of the options.
        depend: another option, None if not given, and so are the two that follow.
        after: see there.
        follow: see there.
        cache: another one, False if not given.
    """
    if settings is USUAL and depend is None and after is None and follow is None and not cache:
        return
    others = {"depend": depend, "after": after, "follow": follow, "cache": cache or None}
    given = [*settings.given(), *(name for name, value in others.items() if value is not None)]
    if not given:
        return
    own = _keywords(function, positional + (settings.ranks != 1))
    for name in given:
        if name in own:
            raise TypeError(
                f"{label_of(function)} has a parameter {name!r} of its own, so {name}= may mean two things here: "
                f"tc.options({name}=...).submit(f, ...) sets the option, and "
                f"tc.options().submit(f, ..., {name}=...) gives it to the function"
            )


def _keywords(function: Callable[..., Any], positional: int) -> tuple[str, ...]:
    """Return the names of the parameters that can only be, or are, passed by keyword."""
    if type(function) is types.FunctionType and not function.__dict__:  # takes a tenth of the time
        code = function.__code__
        end = code.co_argcount
        begin = min(end, max(positional, code.co_posonlyargcount))
        return (*code.co_varnames[begin:end], *code.co_varnames[end : end + code.co_kwonlyargcount])
    if type(function) is types.BuiltinFunctionType and isinstance(function.__self__, types.ModuleType):
        return _keywords_of_builtin(function, positional)
    return _keywords_by_signature(function, positional)


def _keywords_by_signature(function: Callable[..., Any], positional: int) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some callables written in C have no signature
        return ()
    named = [p.name for p in parameters[positional:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    return (*named, *(p.name for p in parameters if p.kind is p.KEYWORD_ONLY))


_keywords_of_builtin = functools.lru_cache(maxsize=256)(_keywords_by_signature)
"""Their signatures are parsed from text, which is slow."""
