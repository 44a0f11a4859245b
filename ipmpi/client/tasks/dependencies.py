"""Tasks that wait for other tasks.

Where the controller knows the other task, it does the waiting, and starts the one as soon as the other has
succeeded. Where it cannot (the value of the other is an argument; the other waits itself, here), the client waits,
without a thread: what is to be done is done when the last of the others has ended.
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
    """A task that another one waits for."""

    label: str

    def done(self) -> bool:
        """Whether it has ended."""

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call ``fn(something)`` when it has, or now."""

    def reference(self) -> TaskRef | None:
        """What the controller may be told to wait for; None if the client has to wait."""

    def trouble(self) -> str | None:
        """Once it has ended: how it failed, in words that follow its name; None if it succeeded."""


class Dependencies:
    """The tasks that one task waits for.

    Args:
        after: those that have to succeed first.
        follow: the one on whose engine it is to run, after it.
        arguments: those whose values it gets.
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
        """Those that have to end before the task can be submitted."""
        values = [parent for parent in self._arguments if not parent.done()]
        known = self._all()[len(self._arguments) :]
        return values + [parent for parent in known if parent.reference() is None and not parent.done()]

    def references(self) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
        """What the controller has to wait for, and whom to follow; to be asked when nothing blocks any more.

        Raises:
            DependencyError: one of them has failed.
        """
        for parent in self._all():
            if parent.done():
                check(parent)
        # What has succeeded needs no waiting for; the controller may not even remember it.
        after = [parent.reference() for parent in self._after if not parent.done()]
        follow = None if self._follow is None else self._follow.reference()
        return [ref for ref in dict.fromkeys(after) if ref is not None], follow

    def when_ready(
        self, submitter: TaskSubmitter, start: Callable[[], object], fail: Callable[[Exception], object]
    ) -> None:
        """Call ``start`` when nothing blocks any more, now if nothing does; ``fail`` where a parent has failed.

        What ``start`` raises goes to ``fail``, except now: it is raised here.
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
            # Not from here: a chain of a thousand tasks would be a thousand calls deep.
            self._submitter.post(lambda: self._act(error))

    def _act(self, error: Exception | None) -> None:
        try:
            if error is None:
                self._start()
        except Exception as reason:  # nobody is here to catch it: whoever asks for the result shall see it
            error = reason
        if error is not None:
            self._fail(error)
