"""What was changed in a program, and at which step: enough to repeat a run bit by bit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .. import limits
from ..errors import ClientError
from ..protocol import operations
from ..protocol.frames import Buffer

_FORMAT: Final = 1

_READS: Final = (
    *(operations.Pull, operations.PullFunction, operations.GetResult, operations.Keys, operations.Complete),
    *(operations.Describe, operations.GetProperties, operations.HasProperties, operations.TakeSnapshot),
    *(operations.FindSnapshots, operations.PostMortem),
)
"""Operations that change nothing in the program."""
_CHANGES: Final = frozenset({"set", "call", "stop"})
"""Actions of :class:`~ipmpi.protocol.operations.Steer` that do."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One change.

    Attributes:
        tick: the number of the tick at which it was applied, counted from 0.
        step: what the program calls the step that came next.
        method: the client's method.
        operation: the encoded operation.
        body: its segments.
        ranks: the ranks that have done it.
    """

    tick: int
    step: int
    method: str
    operation: bytes
    body: list[bytes]
    ranks: list[int]


class _File(msgspec.Struct, frozen=True):
    format: int
    program: str
    ranks: int
    complete: bool
    changes: list[Change]


_encoder = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[_File]] = msgspec.msgpack.Decoder(_File)


def is_change(operation: bytes) -> bool:
    """Return whether an encoded operation may change what the program computes."""
    decoded = operations.decode_operation(operation)
    if isinstance(decoded, operations.Steer):
        return decoded.action in _CHANGES
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


class Record:
    """The changes of a run: give it to ``attach(replay=...)``, and the program repeats the run.

    Made by :meth:`ipmpi.client.Simulation.record`.

    Attributes:
        program: the name of the program.
        ranks: how many ranks it had.
        is_complete: False if there were more changes than a program keeps.
        changes: by tick and rank.
    """

    def __init__(self, program: str, ranks: int, changes: Iterable[Change], is_complete: bool = True) -> None:
        self.program = program
        self.ranks = ranks
        self.is_complete = is_complete
        self.changes = list(changes)

    def __repr__(self) -> str:
        return f"<record of {self.program}, {self.ranks} ranks: {len(self.changes)} changes>"

    def dumps(self) -> bytes:
        """Return it as bytes, without pickles of its own: those that clients have sent are inside."""
        return _encoder.encode(_File(_FORMAT, self.program, self.ranks, self.is_complete, self.changes))

    @classmethod
    def loads(cls, data: bytes) -> Record:
        """Return the record in ``data``; raises ClientError for anything else."""
        try:
            file = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ClientError(f"this is no record of a program: {error}") from None
        return cls(file.program, file.ranks, file.changes, file.complete)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file."""
        Path(path).write_bytes(self.dumps())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Record:
        """Read it from a file that :meth:`save` has written."""
        return cls.loads(Path(path).read_bytes())

    def of_rank(self, rank: int) -> list[Change]:
        """Return the changes of one rank, in order."""
        return [change for change in self.changes if rank in change.ranks]
