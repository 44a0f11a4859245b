"""What is asked of engines: commands and tasks (layer L2, no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import limits
from ..errors import MessageSizeError
from ..protocol.frames import Buffer
from ..protocol.messages import Command, SubmitTask

LARGEST_HEADER = limits.MESSAGE - limits.INLINE_BODY - limits.KIB
"""What a message may have beside its body so that it can be passed on, whatever the body."""

_ROOM = 63 * limits.KIB
"""For what else is in a message; the client keeps to the same bound."""


@dataclass(eq=False)
class Work:
    """One thing that engines can run, with what the controller knows of its body.

    A body is here (``body``), or with the client: then ``stream`` is the stream on which it will come once
    credit is given. A stream can be used once; if engines become free at different times, the client is asked
    for the body again.
    """

    serial: int
    client: int
    id: int
    method: str
    label: str
    operation: bytes
    sizes: list[int]
    body: Sequence[Buffer] = ()
    stream: int = 0
    asked_again: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the body has to come from the client."""
        return bool(self.sizes) and not self.body


@dataclass(eq=False)
class CommandWork(Work):
    """A command: ``outstanding`` holds the engines that have not answered; ``announce`` those to tell first."""

    outstanding: set[int] = field(default_factory=set)
    announce: list[int] = field(default_factory=list)
    inline_bytes: int = 0


@dataclass(eq=False)
class TaskWork(Work):
    """A task: tries left, engines it has taken down with it, and when it was submitted (epoch seconds)."""

    retries: int = 0
    engines_lost: int = 0
    submitted: float = 0.0
    aborted: bool = False


def header_size(content: bytes, sizes: list[int], engines: int) -> int:
    """The most bytes that an operation or outcome, the sizes of a body and ids or ranks take in a message."""
    return len(content) + 9 * len(sizes) + 5 * engines


def check_size(message: Command | SubmitTask, engines: int) -> None:
    """Refuse what would not fit into the message to the engines, which names every rank."""
    size = header_size(message.operation, message.sizes, engines)
    if isinstance(message, Command):
        size += 4 * len(message.method)
    if size > LARGEST_HEADER - _ROOM:
        raise MessageSizeError(
            f"{message.label[: limits.LABEL]}: {size} bytes beside its body, for {engines} engines, do not fit "
            "into one message. Push large data first, and use it by name"
        )
