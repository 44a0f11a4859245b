"""A command in the queues of its engines, and the check of its size (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ... import limits
from ...errors import Backpressure, ClientError, MessageSizeError
from ...ids import NONE, Ids, IdSet
from ...protocol.frames import Buffer, size_of
from ...protocol.messages import Command, Dispatch
from ..headers import LARGEST_HEADER, header_size

_ROOM = 63 * limits.KIB
"""Bytes for the rest of a message; the client has the same limit."""


@dataclass(eq=False)
class QueuedCommand:
    """One command, and where its body is.

    A body is here (``body``), or at the client: then ``stream`` is the stream on which it will arrive once credit
    is granted. A stream can be used once; if engines become free at different times, the client is asked for the
    body again. ``outstanding`` has the engines that have not replied; ``announce`` those of which the client is
    told first; ``whole`` the sets of which it is for all engines. A command that a set runs before the end of its
    job is placed behind the commands up to number ``after``. ``below``, and for how many
    ``engines`` it is, are told to sets: see :class:`~ipmpi.protocol.messages.Dispatch`.
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
    below: int = 0
    engines: int = 0
    asked_again: bool = False
    outstanding: IdSet = field(default_factory=IdSet)
    announce: Ids = NONE
    whole: frozenset[int] = frozenset()
    inline_bytes: int = 0
    after: int | None = None
    postponed: int = 0
    """The number that determines its place, if it was deferred."""
    is_begun: bool = False
    """An engine has taken it from its queue, and it was not put back."""
    is_answered: bool = False
    """An engine has run it."""
    will_fail: bool = False
    """It cannot be deferred, and fails on engines that have not run it."""
    output: int = 0
    """Bytes that engines have printed while they ran it."""
    most_output: int = limits.OUTPUT
    """How many of these are passed on to the client."""
    debugged: set[int] = field(default_factory=set)
    """Engines on which a debugger in it waits for a line."""
    given_up: set[int] = field(default_factory=set)
    """Engines that were told that the body will not arrive, and have not replied."""

    @classmethod
    def of(
        cls, serial: int, client: int, message: Command, body: Sequence[Buffer], stream: int, engines: Ids
    ) -> QueuedCommand:
        """Return the command that a client has sent, for these engines."""
        work = cls(
            serial, client, message.id, message.method, message.label[: limits.LABEL], message.operation,
            message.sizes, [bytes(part) for part in body], stream, message.below, len(engines),
            outstanding=IdSet(engines),
        )  # fmt: skip
        work.most_output = work.engines * limits.OUTPUT
        work.inline_bytes = size_of(body)
        return work

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the order of commands, the same in all queues."""
        return (self.postponed or self.serial, 0) if self.after is None else (self.after, self.serial)

    @property
    def is_before_end(self) -> bool:
        """Whether it was sent by a set whose job ends, not by a client."""
        return self.after is not None

    @property
    def is_streamed(self) -> bool:
        """Whether the body has to be sent by the client."""
        return bool(self.sizes) and not self.body


@dataclass
class ClientCommands:
    """Those of one client that are under way, by its numbers, and the size of their bodies here."""

    commands: dict[int, QueuedCommand] = field(default_factory=dict)
    inline_bytes: int = 0

    def check_room(self, number: int, inline: int) -> None:
        """Refuse a further command, with so many bytes here: ClientError, Backpressure."""
        if number in self.commands:
            raise ClientError(f"command {number} is under way already")
        if len(self.commands) >= limits.CLIENT_COMMANDS or (
            inline and self.inline_bytes + inline > 2 * limits.CLIENT_INLINE_BACKLOG
        ):
            raise Backpressure(
                f"{len(self.commands)} commands of this client wait for their answers: wait for some before "
                "sending more"
            )


_STEP: Final = 1 << 20
"""Between two numbers there is room for commands that have to be put in between after a restart."""


class Serials:
    """Ascending numbers, which are also the order of commands."""

    def __init__(self, first: int) -> None:
        self._next = first

    def __iter__(self) -> Serials:
        return self

    def __next__(self) -> int:
        self._next += _STEP
        return self._next - _STEP

    def continue_after(self, number: int) -> None:
        """Give out larger numbers than this one."""
        self._next = max(self._next, number + _STEP)


def dispatch(work: QueuedCommand, ranks: Ids, *, is_whole: bool) -> Dispatch:
    """Return the message that gives a command to ranks of a set."""
    client = 0 if work.is_before_end else work.client
    return Dispatch(
        work.serial, ranks, work.method, work.operation, work.sizes, is_whole, client=client, number=work.id,
        below=work.below, engines=work.engines,
    )  # fmt: skip


def check_size(message: Command, engines: int) -> None:
    """Refuse a command that would not fit into the message to the engines, which lists every rank."""
    size = header_size(message.operation, message.sizes, engines) + 4 * len(message.method)
    if size > LARGEST_HEADER - _ROOM:
        raise MessageSizeError(
            f"{message.label[: limits.LABEL]}: {size} bytes beside its body, for {engines} engines, do not fit "
            "into one message. Push large data first, and use it by name"
        )
