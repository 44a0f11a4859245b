"""Commands on their way to the ranks of a set, and their bodies (layer L2, no I/O)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..protocol import messages as m
from ..protocol.frames import Buffer


class Coming:
    """Commands whose body is still coming, and the ranks that were interrupted meanwhile."""

    def __init__(self) -> None:
        self._interrupted: dict[int, tuple[m.Dispatch, set[int]]] = {}

    def begin(self, message: m.Dispatch) -> None:
        """A body begins to come."""
        self._interrupted[id(message)] = message, set()

    def interrupt(self, ranks: Iterable[int]) -> None:
        """Ranks are to be interrupted: also when they have the command."""
        for message, interrupted in self._interrupted.values():
            interrupted.update(set(message.ranks).intersection(ranks))

    def end(self, message: m.Dispatch) -> list[int]:
        """It is here, or will not come; the ranks that were interrupted."""
        return sorted(self._interrupted.pop(id(message))[1])


def writable(body: Sequence[Buffer]) -> Sequence[Buffer]:
    """The pickle, and its buffers in memory that user code may write to: small bodies come in messages."""
    if len(body) < 2:
        return body
    return [body[0], *(bytearray(b) if memoryview(b).readonly else b for b in body[1:])]


def for_ranks(message: m.Dispatch, ranks: list[int]) -> m.Dispatch:
    """The message, as it goes to some of its ranks."""
    return m.Dispatch(message.id, ranks, message.method, message.operation, message.sizes)
