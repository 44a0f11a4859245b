"""What is written of the history of commands, so that the next controller has it (no I/O).

The notes say what has happened, in its order: :class:`~ipmpi.controller.commands.history.CommandHistory` comes to
the same again from them. What it has can also be said by notes of the same kinds, which are fewer.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import field

from ...ids import IdList, from_the_wire, on_the_wire
from ...protocol import messages as m


class _Note(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    pass


About = m.Output | m.Result | m.Undone
"""What is told of a command."""
Printed = tuple[float, m.Output]
"""When, in seconds since 1970, and what."""
Answer = tuple[m.Result | m.Undone, list[bytes]]
"""An answer and its body."""


class Given(_Note, frozen=True, tag=1):
    """A command, with its owner, and what has come of it already; for the rest see :class:`PastCommand`."""

    client: int
    number: int
    holder: str
    host: str
    user: str
    given: float
    method: str
    label: str
    operation: bytes
    engines: IdList
    ended: float = 0.0
    printed_at: float = 0.0
    answered: IdList = field(default_factory=list)
    failed: IdList = field(default_factory=list)
    lost: IdList = field(default_factory=list)
    left_out: int = 0
    printed: list[Printed] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    seen: float = 0.0
    """When its client was there for certain, for the last time."""


class Told(_Note, frozen=True, tag=2):
    """What was told of a command, and its body."""

    client: int
    number: int
    when: float
    message: About
    body: list[bytes] = field(default_factory=list)
    is_missed: bool = False
    """Whether its client was away."""


class Large(_Note, frozen=True, tag=3):
    """Engines have answered too much to be kept."""

    client: int
    number: int
    when: float
    engines: IdList
    ok: bool


class Totals(_Note, frozen=True, tag=4):
    """Of all who hold a furl: how many commands are not kept, and when one was heard of last (0.0: never)."""

    holder: str
    dropped: int
    left: float


Note = Given | Told | Large | Totals

_encoder: Final = msgspec.msgpack.Encoder(enc_hook=on_the_wire)
_decoder: Final[msgspec.msgpack.Decoder[Note]] = msgspec.msgpack.Decoder(Note, dec_hook=from_the_wire)


def encode(note: Note) -> bytes:
    """Return the bytes of a note."""
    return _encoder.encode(note)


def decode(data: bytes) -> Note:
    """Return the note in ``data``; raises :class:`msgspec.DecodeError` for anything else."""
    return _decoder.decode(data)
