"""Whoever waits for tasks, and what it is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...errors import KernelError
from ...protocol import messages as m
from .payloads import Payload


class ResultBatch(NamedTuple):
    """Ends of tasks as they arrived: see :class:`ipmpi.protocol.tasks.TasksDone`. ``base`` is of index 0."""

    base: int
    message: m.TasksDone
    body: bytes


class ResultHandler(Protocol):
    """Whoever waits for one task. All of this is called in the session's thread, and one of it once."""

    def arrived(self, engine: int, ok: bool, payload: Payload) -> None:
        """The task has ended on an engine."""

    def undone(self, error: KernelError) -> None:
        """The task has no outcome; TaskAborted if it was taken back."""


class ResultsHandler(Protocol):
    """Whoever waits for many tasks, which he has numbered. Called in the session's thread."""

    def batch_arrived(self, batch: ResultBatch) -> None:
        """Tasks have ended on an engine."""

    def large_arrived(self, number: int, engine: int, payload: Payload) -> None:
        """A task has succeeded with a large result."""

    def batch_undone(self, numbers: Sequence[int], error: KernelError) -> None:
        """Tasks have no outcome."""

    def batch_failed(self, error: KernelError) -> None:
        """No task that is still open will have an outcome. This may be said more than once."""
