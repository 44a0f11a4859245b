"""Messages that are encoded before they are sent (sans-IO)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from .. import limits
from ..errors import LocalProtocolError
from . import messages
from .frames import HEADER_LENGTH
from .messages import AnyMessage


class Prepared(NamedTuple):
    """A message that was encoded, and found to fit, before it is sent (by another thread, say)."""

    kind: str
    header: bytes


def prepare(message: AnyMessage, inline: int = 0) -> Prepared:
    """Encode a message that will be sent with ``inline`` bytes of body in its frame.

    Raises:
        LocalProtocolError: a value in it cannot be sent or would not be understood, or it is too large.
    """
    name = type(message).__name__
    try:
        header = messages.encode(message)
        messages.decode(header)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LocalProtocolError(f"a {name} with a value that is not possible there: {error}") from None
    check_length(name, HEADER_LENGTH.size + len(header) + inline)
    return Prepared(name, header)


def check_length(name: str, length: int) -> None:
    """Raise LocalProtocolError for a message that is too long."""
    if length > limits.MESSAGE:
        raise LocalProtocolError(
            f"a {name} of {length} bytes; the limit is {limits.MESSAGE}. "
            "Push large data first, and use it by name."
        )
