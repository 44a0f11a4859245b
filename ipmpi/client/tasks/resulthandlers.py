"""Receivers of the results of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...errors import KernelError
from ...protocol import messages as m
from .payloads import Payload


class ResultBatch(NamedTuple):
    """Results as they arrived: see :class:`ipmpi.protocol.tasks.TasksDone`. ``base``: number of index 0."""

    base: int
    message: m.TasksDone
    body: bytes


class ResultHandler(Protocol):
    """Receives the result of one task. Exactly one method is called, once, in the session's thread."""

    def arrived(self, engine: int, ok: bool, payload: Payload) -> None:
        """The task has ended on an engine."""

    def undone(self, error: KernelError) -> None:
        """The task will not be completed; TaskAborted if it was cancelled."""


class ResultsHandler(Protocol):
    """Receives the results of many numbered tasks, in the session's thread."""

    def batch_arrived(self, batch: ResultBatch) -> None:
        """Tasks have ended on an engine."""

    def large_arrived(self, number: int, engine: int, payload: Payload) -> None:
        """A task has succeeded with a large result."""

    def batch_undone(self, numbers: Sequence[int], error: KernelError) -> None:
        """Tasks will not be completed."""

    def batch_failed(self, error: KernelError) -> None:
        """None of the open tasks will be completed. May be called repeatedly."""
