"""The message in a MESSAGE frame (sans-IO)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .. import limits
from ..errors import RemoteProtocolError
from . import messages
from .frames import HEADER_LENGTH
from .messages import AnyMessage


def opened(payload: memoryview, may_receive: frozenset[type[messages.Message]]) -> tuple[AnyMessage, memoryview]:
    """The message in the payload of a frame, which must be one of these, and what comes behind it.

    Raises RemoteProtocolError for anything else.
    """
    (length,) = HEADER_LENGTH.unpack(payload[: HEADER_LENGTH.size])
    end = HEADER_LENGTH.size + length
    if end > len(payload):
        raise RemoteProtocolError("a message header that is longer than its frame")
    try:
        message = messages.decode(payload[HEADER_LENGTH.size : end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a message that cannot be understood: {error}") from None
    if type(message) not in may_receive:
        raise RemoteProtocolError(f"this peer may not send {type(message).__name__}")
    return message, payload[end:]


def sizes_of(message: AnyMessage) -> Sequence[int]:
    """The sizes of the body of a message; RemoteProtocolError if there is no such body."""
    sizes: Sequence[int] = getattr(message, "sizes", ())
    if len(sizes) > limits.SEGMENTS or any(not 0 <= size < 1 << 62 for size in sizes):
        raise RemoteProtocolError("impossible sizes of a body")
    return sizes


def cut(inline: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """The segments of a body."""
    body = []
    for size in sizes:
        body.append(inline[:size])
        inline = inline[size:]
    return body
