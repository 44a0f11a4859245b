"""What was changed in a program that is steered, and at which step: enough to repeat a run bit by bit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .errors import ClientError

_FORMAT: Final = 1


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

    @classmethod
    def of_all(cls, records: Sequence[Record]) -> Record:
        """Return one record of those of all ranks."""
        first = records[0]
        found: dict[tuple[object, ...], Change] = {}
        for record in records:
            seen: dict[tuple[object, ...], int] = {}
            for change in record.changes:
                same = (change.tick, change.method, change.operation, *change.body)
                seen[same] = seen.get(same, 0) + 1
                key = (*same, seen[same])
                ranks = [*found[key].ranks, *change.ranks] if key in found else change.ranks
                found[key] = msgspec.structs.replace(change, ranks=ranks)
        changes = sorted(found.values(), key=lambda change: change.tick)
        return cls(first.program, first.ranks, changes, all(record.is_complete for record in records))
