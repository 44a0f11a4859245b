"""What the two ends of an ssh session say: requests of the laptop, and what becomes of them on the login node.

A request opens a *channel*; the laptop numbers them 1, 2, 3, ... The bytes of a channel are one stream in each
direction, of unknown length: it is announced with ENDLESS bytes, and aborted after its last one.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, field

from .. import limits
from .basemessage import Message

ENDLESS: Final = (1 << 62) - 1
"""The announced size of a stream whose length is not known."""


def _endless() -> list[int]:
    return [ENDLESS]


class ConnectTo(Message, frozen=True, tag=90):
    """A TCP connection from the login node; the channel carries its bytes."""

    channel: int
    host: Annotated[str, Meta(max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65535)]
    sizes: list[int] = field(default_factory=_endless)


class RunCommand(Message, frozen=True, tag=91):
    """``ipcluster`` with these arguments; the channel carries what it prints. Its end is :class:`Ended`."""

    channel: int
    arguments: list[str]


class ReadFurl(Message, frozen=True, tag=92):
    """The furl of a role: of a named cluster, or the default file's. Answered by :class:`Ended`."""

    channel: int
    role: Annotated[str, Meta(max_length=32)]
    cluster: str = ""


class Opened(Message, frozen=True, tag=93):
    """The connection, or the command, is there."""

    channel: int
    sizes: list[int] = field(default_factory=_endless)


class Ended(Message, frozen=True, tag=94):
    """A command has ended with this exit code, or ``text`` is the furl (0) or why there is none."""

    channel: int
    code: int
    text: str = ""


class ChannelReset(Message, frozen=True, tag=95):
    """The channel is over, and what was under way on it is lost."""

    channel: int
    reason: str


Request = ConnectTo | RunCommand | ReadFurl
Answer = Opened | Ended | ChannelReset
SshMessage = Request | Answer


def sendable(text: str) -> str:
    """Text as it can be sent: the name of a file may have bytes that are no text, and be long."""
    return text[: limits.SSH_TEXT].encode("utf-8", "replace").decode()
