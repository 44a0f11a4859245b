"""Receivers of the controller's messages about tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...errors import KernelError
from ...protocol import messages as m
from ...protocol.frames import Buffer


class TaskReceiver(Protocol):
    """Receives the messages about tasks of a session, in the session's thread."""

    @property
    def is_busy(self) -> bool:
        """Whether there are tasks that have not ended."""

    def tasks_done(self, message: m.TasksDone, body: Sequence[Buffer]) -> None:
        """Tasks have ended, and their results are here."""

    def task_done(self, message: m.TaskDone, body: list[Buffer]) -> None:
        """A task with a large result has ended."""

    def tasks_undone(self, message: m.TasksUndone) -> None:
        """Tasks will not be completed."""

    def refused(self, number: int, error: KernelError, /) -> bool:
        """The controller refused a message; return whether it was about tasks."""

    def body_wanted(self, number: int, /) -> bool:
        """The controller needs the body of a message again; return whether it was about tasks."""

    def accepted(self, groups: Sequence[int], /) -> None:
        """The controller has these groups of tasks in its journal."""

    def go_on(self) -> None:
        """The controller was started again from its journal, and the session goes on."""

    def fail(self, error: KernelError) -> None:
        """The session has ended."""


class NoTasks:
    """The receiver of a session that submits no tasks."""

    is_busy = False

    def tasks_done(self, message: m.TasksDone, body: Sequence[Buffer]) -> None:
        """Do nothing."""

    def task_done(self, message: m.TaskDone, body: list[Buffer]) -> None:
        """Do nothing."""

    def tasks_undone(self, message: m.TasksUndone) -> None:
        """Do nothing."""

    def refused(self, _number: int, _error: KernelError) -> bool:
        """Return False."""
        return False

    def body_wanted(self, _number: int) -> bool:
        """Return False."""
        return False

    def fail(self, error: KernelError) -> None:
        """Do nothing."""

    def accepted(self, _groups: Sequence[int]) -> None:
        """Do nothing."""

    def go_on(self) -> None:
        """Do nothing."""
