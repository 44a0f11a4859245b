"""Which commands change a program, and what one rank keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .. import limits
from ..protocol import operations
from ..protocol.frames import Buffer
from ..record import Change

_READS: Final = (
    *(operations.Pull, operations.PullFunction, operations.GetResult, operations.Keys, operations.Complete),
    *(operations.Describe, operations.GetProperties, operations.HasProperties, operations.TakeSnapshot),
    *(operations.FindSnapshots, operations.PostMortem),
)
"""Operations that change nothing in the program."""
_CHANGES: Final = frozenset({"set", "call", "stop"})
"""Actions of :class:`~ipmpi.protocol.operations.Steer` that do."""


def is_change(operation: bytes) -> bool:
    """Return whether an encoded operation may change what the program computes."""
    decoded = operations.decode_operation(operation)
    if isinstance(decoded, operations.Steer):
        return decoded.action in _CHANGES
    if isinstance(decoded, operations.Apply):
        return not decoded.reads
    return not isinstance(decoded, _READS)


class Journal:
    """The changes of one rank, in order.

    Attributes:
        is_complete: False if there were more than are kept.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.is_complete = True
        self._size = 0

    def note(self, tick: int, step: int, rank: int, method: str, operation: bytes, body: Sequence[Buffer]) -> None:
        """Keep a change that is about to be applied."""
        size = len(operation) + sum(memoryview(part).nbytes for part in body)
        if self._size + size > limits.RECORD_BYTES:
            self.is_complete = False
            return
        self._size += size
        self.changes.append(Change(tick, step, method, operation, [bytes(part) for part in body], [rank]))
