"""A command that engines are asked to run, and what fits into a message (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ... import limits
from ...errors import MessageSizeError
from ...protocol.frames import Buffer
from ...protocol.messages import Command
from ..headers import LARGEST_HEADER, header_size

_ROOM = 63 * limits.KIB
"""For what else is in a message; the client keeps to the same bound."""


@dataclass(eq=False)
class QueuedCommand:
    """One command, with what the controller knows of its body.

    A body is here (``body``), or with the client: then ``stream`` is the stream on which it will come once
    credit is given. A stream can be used once; if engines become free at different times, the client is asked
    for the body again. ``outstanding`` holds the engines that have not answered; ``announce`` those to tell first.
    What a set wants to be run before the end of its job has its place behind the commands up to number ``after``.
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
    outstanding: set[int] = field(default_factory=set)
    announce: list[int] = field(default_factory=list)
    inline_bytes: int = 0
    after: int | None = None
    postponed: int = 0
    """The number that gives it its place, if it gave way to others, as its client did not send the body."""
    is_begun: bool = False
    """An engine has taken it from its queue, and it was not put back."""
    is_answered: bool = False
    """An engine has run it."""
    will_fail: bool = False
    """It cannot give way, and fails where it has not been run."""
    given_up: set[int] = field(default_factory=set)
    """Engines that were told that the body will not come, and have not answered."""

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the order of commands, which is that of all queues."""
        return (self.postponed or self.serial, 0) if self.after is None else (self.after, self.serial)

    @property
    def is_before_end(self) -> bool:
        """Whether no client wants it, but a set whose job ends."""
        return self.after is not None

    @property
    def is_streamed(self) -> bool:
        """Whether the body has to come from the client."""
        return bool(self.sizes) and not self.body


@dataclass
class ClientCommands:
    """Those of one client that are under way, by its numbers, and the size of their bodies here."""

    commands: dict[int, QueuedCommand] = field(default_factory=dict)
    inline_bytes: int = 0


def check_size(message: Command, engines: int) -> None:
    """Refuse what would not fit into the message to the engines, which names every rank."""
    size = header_size(message.operation, message.sizes, engines) + 4 * len(message.method)
    if size > LARGEST_HEADER - _ROOM:
        raise MessageSizeError(
            f"{message.label[: limits.LABEL]}: {size} bytes beside its body, for {engines} engines, do not fit "
            "into one message. Push large data first, and use it by name"
        )
