"""Groups of tasks that are sent to the controller together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ... import limits
from ...errors import KernelError
from ...protocol import messages as m
from ...protocol.frames import Buffer
from ..session.functions import Definition
from .resulthandlers import ResultHandler, ResultsHandler


class SubmitTerms(NamedTuple):
    """The terms that the tasks of a group share, and the functions that they use."""

    options: m.TaskOptions
    definitions: tuple[Definition, ...] = ()


class TaskRef(NamedTuple):
    """The group number and index by which the controller knows a task."""

    group: int
    number: int


class SubmittedGroup:
    """Open tasks, with one handler each, or one ``batch`` handler for all, which numbers them from ``base``.

    Attributes:
        copy: with a journal at the controller: lengths and payloads, until the group is in the journal.
        lacks: and the tasks that have not ended; None without a journal, or before the group is sent.
    """

    __slots__ = (
        "base",
        "batch",
        "cancelled",
        "copy",
        "handlers",
        "lacks",
        "left",
        "number",
        "payloads",
        "segments",
        "sent",
        "size",
        "terms",
    )

    def __init__(
        self, number: int, terms: SubmitTerms, batch: ResultsHandler | None = None, base: int = 0
    ) -> None:
        self.number = number
        self.terms = terms
        self.batch = batch
        self.base = base
        self.payloads: list[bytes] = []
        self.segments: list[Buffer] | None = None
        self.handlers: list[ResultHandler | None] = []
        self.cancelled: set[int] = set()
        self.left = 0
        self.size = 0
        self.sent = False
        self.copy: tuple[bytes, bytes] | None = None
        self.lacks: set[int] | None = None

    @property
    def is_followed(self) -> bool:
        """Whether another client has submitted it."""
        return self.number < 0

    def heard(self, indices: Iterable[int]) -> None:
        """These tasks have ended."""
        if self.lacks is not None:
            self.lacks.difference_update(indices)

    def tell_undone(self, indices: Iterable[int], error: KernelError) -> None:
        """Report an error to the handlers of tasks that have not ended."""
        if self.batch is not None:
            self.batch.batch_undone([self.base + index for index in indices], error)
            return
        for index in indices:
            handler, self.handlers[index] = self.handlers[index], None
            if handler is not None:
                handler.undone(error)

    def tell_failed(self, error: KernelError) -> None:
        """Report an error to all handlers that still wait."""
        if self.batch is not None:
            self.batch.batch_failed(error)
        else:
            self.tell_undone(range(len(self.handlers)), error)


class KnownFunction:
    """A function that the controller has: its size, and how many open groups use it.

    ``is_sent`` is False if the controller may have forgotten it.
    """

    __slots__ = ("is_sent", "size", "uses")

    def __init__(self, size: int) -> None:
        self.size = size
        self.uses = 0
        self.is_sent = False


def fits(group: SubmittedGroup, terms: SubmitTerms, size: int) -> bool:
    """Return whether one more task fits into a group."""
    return (
        (group.terms is terms or group.terms.options == terms.options)
        and len(group.payloads) < limits.TASKS_PER_MESSAGE
        and group.size + size <= limits.TASK_BATCH
    )
