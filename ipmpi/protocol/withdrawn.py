"""Files that were on their way when their link broke, and that the next link cannot carry (sans-IO)."""

from __future__ import annotations

from collections.abc import Sequence

from .frames import PREFIX, Buffer, FrameKind, parse_prefix
from .outbox import Outbox
from .streams import BodyFile, FileFrame, OutgoingStream

Withdrawn = tuple[OutgoingStream, list[memoryview | BodyFile]]


def withdraw_files(outbox: Outbox) -> list[Withdrawn]:
    """Take the frames with files out of an outbox, and the chunks behind them: per stream, what was in them.

    The peer has not received these frames, so it does not know that they had numbers.
    """
    found: dict[int, Withdrawn] = {}

    def is_withdrawn(frame: Sequence[Buffer]) -> bool:
        head = frame[0]
        if isinstance(head, FileFrame):
            found.setdefault(head.stream.id, (head.stream, []))[1].append(head.file)
            return True
        kind, _, number = parse_prefix(head[: PREFIX.size])
        if kind is not FrameKind.CHUNK or number not in found:
            return False
        found[number][1].extend(memoryview(part) for part in frame[1:])
        return True

    outbox.withdraw(is_withdrawn)
    return list(found.values())
