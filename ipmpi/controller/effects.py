"""What the controller's thinking parts want done. Keys are numbers of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import KernelError
from ..protocol.frames import Buffer
from ..protocol.messages import AnyMessage, Refused


@dataclass(frozen=True)
class Send:
    """Send a message, with a body that is here."""

    to: int
    message: AnyMessage
    body: Sequence[Buffer] = ()


@dataclass(frozen=True)
class Forward:
    """Send messages whose common body comes as stream ``stream`` of session ``source``; then tell the router."""

    source: int
    stream: int
    size: int
    sinks: tuple[tuple[int, AnyMessage], ...]


@dataclass(frozen=True)
class Decline:
    """A stream that nobody wants (any more)."""

    source: int
    stream: int


@dataclass(frozen=True)
class GiveUp:
    """A stream that is being forwarded, and whose rest is to be dropped at both ends; then tell the router."""

    source: int
    stream: int


@dataclass(frozen=True)
class Announce:
    """Something that all clients are to be told, by :class:`~ipmpi.protocol.messages.Notice`."""

    text: str


Effect = Send | Forward | Decline | GiveUp | Announce


def refusal(number: int, error: KernelError) -> Refused:
    """The message that refuses a request because of ``error``."""
    return Refused(number, type(error).__name__, str(error))
