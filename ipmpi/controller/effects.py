"""Effects that the controller's state machines request. Keys are numbers of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import KernelError
from ..protocol.frames import Buffer
from ..protocol.messages import AnyMessage, Refused


@dataclass(frozen=True)
class Send:
    """Send a message with a body in memory."""

    to: int
    message: AnyMessage
    body: Sequence[Buffer] = ()


@dataclass(frozen=True)
class Forward:
    """Send messages whose common body is stream ``stream`` of session ``source``; then notify the router."""

    source: int
    stream: int
    size: int
    sinks: tuple[tuple[int, AnyMessage], ...]
    keep: int = 0
    """The serial of a group of which the controller keeps this result itself; 0: it does not."""


@dataclass(frozen=True)
class Decline:
    """Decline a stream that is not needed (any more)."""

    source: int
    stream: int


@dataclass(frozen=True)
class GiveUp:
    """Drop the rest of a stream that is being forwarded, at both ends; then notify the router."""

    source: int
    stream: int


@dataclass(frozen=True)
class Announce:
    """Send all clients a :class:`~ipmpi.protocol.messages.Notice`."""

    text: str


Effect = Send | Forward | Decline | GiveUp | Announce


def concerned(effect: Effect) -> list[int]:
    """Return the sessions whose peers would wait in vain if this effect failed."""
    if isinstance(effect, Send):
        return [effect.to]
    if isinstance(effect, Forward):
        return [effect.source, *(key for key, _ in effect.sinks)]
    return [effect.source] if isinstance(effect, Decline) else []


def refusal(number: int, error: KernelError) -> Refused:
    """Return the message that refuses a request because of ``error``."""
    return Refused(number, type(error).__name__, str(error))
