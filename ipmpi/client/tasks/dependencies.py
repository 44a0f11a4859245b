"""Tasks that wait for other tasks.

If the controller knows the other task, the controller waits for it. Otherwise (its result is an argument, or it
was not submitted yet) the client waits, without a thread: a callback of the last parent submits the task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from ...errors import DependencyError
from .submitter import TaskSubmitter
from .taskgroup import TaskRef


class Parent(Protocol):
    """A task that another task waits for."""

    label: str

    def done(self) -> bool:
        """Return whether it has ended."""

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call ``fn`` with one argument when it has ended; at once if it already has."""

    def reference(self) -> TaskRef | None:
        """Return the reference for the controller to wait for; None if the client has to wait."""

    def trouble(self) -> str | None:
        """Return how it failed, as a predicate of its name; None if it succeeded. Only valid after its end."""


class Dependencies:
    """The tasks that one task waits for.

    Args:
        after: tasks that must succeed first.
        follow: the task to run after, on the same engine.
        arguments: tasks whose results are its arguments.
    """

    __slots__ = ("_after", "_arguments", "_follow")

    def __init__(
        self, after: Iterable[Parent] = (), follow: Parent | None = None, arguments: Iterable[Parent] = ()
    ) -> None:
        self._after = list(after)
        self._follow = follow
        self._arguments = list(arguments)

    def __bool__(self) -> bool:
        return bool(self._after or self._arguments) or self._follow is not None

    def _all(self) -> list[Parent]:
        followed = [] if self._follow is None else [self._follow]
        return [*self._arguments, *self._after, *followed]

    def _blockers(self) -> list[Parent]:
        """Return the tasks that must end before this one can be submitted."""
        values = [parent for parent in self._arguments if not parent.done()]
        known = self._all()[len(self._arguments) :]
        return values + [parent for parent in known if parent.reference() is None and not parent.done()]

    def references(self) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
        """Return what the controller has to wait for, and which task to follow; call it when nothing blocks.

        Raises:
            DependencyError: one of the tasks has failed.
        """
        for parent in self._all():
            if parent.done():
                check(parent)
        # The controller may have forgotten a task that has succeeded.
        after = [parent.reference() for parent in self._after if not parent.done()]
        follow = None if self._follow is None else self._follow.reference()
        return [ref for ref in dict.fromkeys(after) if ref is not None], follow

    def when_ready(
        self, submitter: TaskSubmitter, start: Callable[[], object], fail: Callable[[Exception], object]
    ) -> None:
        """Call ``start`` once nothing blocks (perhaps at once), or ``fail`` if a parent has failed.

        Exceptions of ``start`` are passed to ``fail``; if it is called at once, they are raised here.
        """
        blockers = self._blockers()
        try:
            for parent in self._all():
                if parent.done():
                    check(parent)
            if not blockers:
                start()
        except DependencyError as error:
            fail(error)
        else:
            if blockers:
                _Wait(submitter, blockers, start, fail)


def check(parent: Parent) -> None:
    """Raise DependencyError if a task that has ended has failed."""
    trouble = parent.trouble()
    if trouble is not None:
        raise DependencyError(f"the task was not run: {parent.label}, which it waits for, {trouble}")


class _Wait:
    """Waits for several tasks, or for the first that fails."""

    def __init__(
        self,
        submitter: TaskSubmitter,
        blockers: list[Parent],
        start: Callable[[], object],
        fail: Callable[[Exception], object],
    ) -> None:
        self._submitter = submitter
        self._start = start
        self._fail = fail
        self._left = len(blockers)
        self._over = False
        self._lock = threading.Lock()
        for parent in blockers:
            parent.add_done_callback(partial(self._ended, parent))

    def _ended(self, parent: Parent, _: object) -> None:
        error: Exception | None = None
        try:
            check(parent)
        except Exception as reason:
            error = reason
        with self._lock:
            self._left -= 1
            act = not self._over and (error is not None or self._left == 0)
            self._over = self._over or act
        if act:
            # Not called from here: a chain of a thousand tasks would be a thousand calls deep.
            self._submitter.post(lambda: self._act(error))

    def _act(self, error: Exception | None) -> None:
        try:
            if error is None:
                self._start()
        except Exception as reason:  # raised where the result is retrieved
            error = reason
        if error is not None:
            self._fail(error)
