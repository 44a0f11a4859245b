"""Calling functions as tasks: the common base of task clients, executors and pools."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ...transport.ssh.ssh import SshSession
from ..session.calls import of_this_process, registered
from ..session.connecting import close_when_unreferenced, connect
from ..session.enginecount import wait_for_engines
from ..session.functions import Definition
from ..session.opening import Unpickle, opener_of, restrict
from ..session.session import Session
from ..session.taskmessages import TaskReceiver
from .cachedcalls import CachedCall
from .dependencies import Dependencies
from .futures import TaskFuture
from .mapresults import Keep, MapResults
from .submission import futures_in, submit_call, submit_later
from .submitter import TaskSubmitter
from .tasktypes import Condition
from .terms import TaskSettings, call_terms
from .wire import Wire


class _Opened(Wire, Protocol):
    """A session that holds its submitter in ``tasks``."""

    tasks: TaskReceiver


def _submitter_of(session: _Opened) -> TaskSubmitter:
    """Return the session's submitter, made on first use; call it from one thread at a time."""
    if not isinstance(session.tasks, TaskSubmitter):
        session.tasks = TaskSubmitter(session)
    return session.tasks


class TaskCaller:
    """Calls functions on the engines of a controller, each on the first engine that is free.

    All methods may be called from any thread. It is closed automatically when it is not referenced any more.

    Args:
        furl_or_file: see :class:`~ipmpi.client.TaskClient`, and so for the arguments that follow.
        name: see there.
        session: see there.
        ssh: see there.
        proxy: see there.
        unpickle: see there.
        allow: see there.
    """

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
    ) -> None:
        opener = opener_of(unpickle, allow)
        opened = connect(furl_or_file, "tc", name=name, ssh=ssh, proxy=proxy) if session is None else session
        restrict(opened, opener)
        self._session, self._submitter = opened, _submitter_of(opened)
        if session is None:
            close_when_unreferenced(self, opened)

    __reduce_ex__ = of_this_process

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._session.shown()}, open tasks: {self._submitter.open_tasks()}>"

    def close(self) -> None:
        """Close the connection to the controller; results of tasks that have not ended are lost."""
        self._session.close()

    @property
    def engines(self) -> list[int]:
        """The ids of the engines, ascending, from the last update of the controller, without a request."""
        return sorted(self._session.engines)

    def get_ids(self) -> list[int]:
        """Return the ids of the registered engines, ascending. Always blocks."""
        return registered(self._session)

    def wait_for_engines(self, n: int, timeout: float | None = None) -> None:
        """Wait until at least ``n`` engines are registered.

        Args:
            n: the number of engines.
            timeout: seconds to wait at most; None for no limit.

        Raises:
            TypeError, ValueError: an argument is not a number, or is out of range.
            TimeoutError: there were fewer after ``timeout`` seconds; the message says how many.
            ConnectionError: the connection to the controller ended.
        """
        wait_for_engines(self._session, n, timeout)

    def call(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settings: TaskSettings,
        depend: Condition | None = None,
    ) -> TaskFuture:
        """Submit ``f(*args, **kwargs)``; arguments that are futures of tasks are replaced by their results."""
        return self._submit(f, args, kwargs, settings, depend)

    def _submit(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settings: TaskSettings,
        depend: Condition | None = None,
        cached: CachedCall | None = None,
    ) -> TaskFuture:
        values = futures_in(f, args, kwargs)
        if values:
            needs = Dependencies(arguments=values)
            return submit_later(self._submitter, f, args, kwargs, settings, depend, needs, cached)
        return submit_call(self._submitter, f, args, kwargs, settings, depend, cached)

    def define(self, function: Callable[..., Any]) -> Definition:
        """Pickle a function for tasks, or return the pickle from the cache."""
        return self._submitter.define(function)

    def stream(
        self,
        definition: Definition,
        rows: Iterable[tuple[Any, ...]],
        settings: TaskSettings,
        depend: Condition | None = None,
        ordered: bool = True,
        keep: Keep | None = None,
    ) -> MapResults:
        """Submit one call per row of arguments; :meth:`TaskClient.imap` and :class:`TaskMapper` use this."""
        condition = None if depend is None else self._submitter.define(depend)
        results = MapResults(self._submitter, ordered, keep)
        results.feed(call_terms(definition, settings, True, condition, is_map=True), rows, definition.label)
        return results
