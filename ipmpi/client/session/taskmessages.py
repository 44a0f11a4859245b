"""Who is told what a controller says about tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...errors import KernelError
from ...protocol import messages as m
from ...protocol.frames import Buffer


class TaskReceiver(Protocol):
    """Those who submit tasks over a session; it calls them in its own thread."""

    @property
    def is_busy(self) -> bool:
        """Whether tasks have not ended."""

    def tasks_done(self, message: m.TasksDone, body: Sequence[Buffer]) -> None:
        """Tasks have ended, and their results are here."""

    def task_done(self, message: m.TaskDone, body: list[Buffer]) -> None:
        """A task with a large result has ended."""

    def tasks_undone(self, message: m.TasksUndone) -> None:
        """Tasks will have no result."""

    def refused(self, number: int, error: KernelError, /) -> bool:
        """The controller refuses a message; whether it was about tasks."""

    def body_wanted(self, number: int, /) -> bool:
        """The controller wants the body of a message again; whether it was about tasks."""

    def fail(self, error: KernelError) -> None:
        """The session has ended."""


class NoTasks:
    """In a session over which no tasks are submitted."""

    is_busy = False

    def tasks_done(self, message: m.TasksDone, body: Sequence[Buffer]) -> None:
        """Of nobody here."""

    def task_done(self, message: m.TaskDone, body: list[Buffer]) -> None:
        """Of nobody here."""

    def tasks_undone(self, message: m.TasksUndone) -> None:
        """Of nobody here."""

    def refused(self, _number: int, _error: KernelError) -> bool:
        """It was about something else."""
        return False

    def body_wanted(self, _number: int) -> bool:
        """It was about something else."""
        return False

    def fail(self, error: KernelError) -> None:
        """Nobody waits."""
