"""Functions called as tasks: what the task client, executors and pools have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from ...transport.ssh.ssh import SshSession
from ..session.calls import of_this_process, registered
from ..session.connecting import close_when_unreferenced, connect
from ..session.functions import Definition
from ..session.session import Session
from .dependencies import Dependencies
from .futures import TaskFuture
from .mapresults import MapResults
from .submission import submit_call, submit_later
from .submitter import submitter_of
from .tasktypes import Condition
from .terms import TaskSettings, call_terms


class TaskCaller:
    """Calls functions on the engines of a controller, each on the engine that is free first.

    All methods may be called from any thread. One that is no longer referenced is closed.

    Args:
        furl_or_file: see :class:`~ipmpi.client.TaskClient`, and so for the arguments that follow.
        name: see there.
        session: see there.
        ssh: see there.
        proxy: see there.
    """

    def __init__(
        self,
        furl_or_file: str | os.PathLike[str] = "",
        *,
        name: str = "",
        session: Session | None = None,
        ssh: str | SshSession | None = None,
        proxy: str | None = None,
    ) -> None:
        opened = connect(furl_or_file, "tc", name=name, ssh=ssh, proxy=proxy) if session is None else session
        self._session, self._submitter = opened, submitter_of(opened)
        if session is None:
            close_when_unreferenced(self, opened)

    __reduce_ex__ = of_this_process

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._session.shown()}, open tasks: {self._submitter.open_tasks()}>"

    def close(self) -> None:
        """Close the link to the controller; what is still open of this client's tasks is lost to it."""
        self._session.close()

    @property
    def engines(self) -> list[int]:
        """The ids of the engines, ascending, as the controller told last; nothing is asked."""
        return sorted(self._session.engines)

    def get_ids(self) -> list[int]:
        """The ids of the engines that are registered now, ascending."""
        return registered(self._session)

    def call(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settings: TaskSettings,
        depend: Condition | None = None,
    ) -> TaskFuture:
        """Submit ``f(*args, **kwargs)``; args that are futures of tasks stand for their results."""
        if not callable(f):
            raise TypeError("a task function must be a FunctionType")
        values = [each for each in (*args, *kwargs.values()) if isinstance(each, TaskFuture)]
        if values:
            return submit_later(self._submitter, f, args, kwargs, settings, depend, Dependencies(arguments=values))
        return submit_call(self._submitter, f, args, kwargs, settings, depend)

    def define(self, function: Callable[..., Any]) -> Definition:
        """Pickle a function for tasks, or find the pickle made before."""
        return self._submitter.define(function)

    def stream(
        self,
        definition: Definition,
        rows: Iterable[tuple[Any, ...]],
        settings: TaskSettings,
        depend: Condition | None = None,
        ordered: bool = True,
    ) -> MapResults:
        """Submit a call for each row of arguments; what :meth:`imap` and :class:`TaskMapper` are made of."""
        condition = None if depend is None else self._submitter.define(depend)
        results = MapResults(self._submitter, ordered)
        results.feed(call_terms(definition, settings, True, condition), rows, definition.label)
        return results
