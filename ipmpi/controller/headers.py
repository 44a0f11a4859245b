"""Sizes of messages without their bodies (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence

from .. import limits
from ..errors import MessageSizeError
from ..protocol import messages as m
from ..protocol.frames import Buffer, size_of

_DISPATCH_ROOM = limits.KIB

LARGEST_HEADER = limits.MESSAGE - limits.INLINE_BODY - limits.KIB
"""Most bytes of a message without its body, so that it can be passed on with any body."""


def header_size(content: bytes, sizes: list[int], engines: int) -> int:
    """Return an upper bound of the bytes of an operation or outcome, the sizes of a body, and ids or ranks.

    Ids are usually one run of a few bytes, but ranks in other sets may be scattered.
    """
    return len(content) + 9 * len(sizes) + 5 * engines


def check_room(message: m.Command, body: Sequence[Buffer], engines: int) -> None:
    """Refuse a command that would not fit into a Dispatch, which also lists ranks.

    Raises:
        MessageSizeError: it would not.
    """
    size = len(message.operation) + size_of(body) + 5 * len(message.sizes) + len(message.label)
    room = limits.MESSAGE - _DISPATCH_ROOM - 5 * engines
    if size > room:
        raise MessageSizeError(
            f"this command has {size} bytes, of at most {room}: push large data first, and use it by name"
        )
