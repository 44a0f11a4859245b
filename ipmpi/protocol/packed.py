"""Many small numbers, and the payloads of many tasks, as single buffers.

A batch of tasks is one message. Its numbers travel as packed little-endian 32-bit integers, and its payloads back
to back in one body: a thousand tasks cost about as much to encode, copy and decode as one.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from .frames import Buffer
from .operations import Failed, decode_outcome, encode

_LENGTH = struct.Struct("<I")
_FOREIGN = sys.byteorder == "big"


def pack(numbers: Iterable[int]) -> bytes:
    """Numbers from 0 to 2**32-1, as bytes; OverflowError for others."""
    packed = array("I", numbers)
    if _FOREIGN:
        packed.byteswap()
    return packed.tobytes()


def unpack(data: Buffer) -> array[int]:
    """The numbers in ``data``; ValueError if its length is impossible."""
    numbers = array("I")
    numbers.frombytes(data)
    if _FOREIGN:
        numbers.byteswap()
    return numbers


def count(data: Buffer) -> int:
    """How many numbers :func:`unpack` finds; ValueError where it raises that."""
    numbers, rest = divmod(len(data), _LENGTH.size)
    if rest:
        raise ValueError(f"packed numbers of {len(data)} bytes")
    return numbers


def slices(body: Buffer, lengths: Sequence[int]) -> Iterator[memoryview]:
    """The payloads in ``body``, one after the other; the sum of ``lengths`` has to be the body's length."""
    view = memoryview(body)
    start = 0
    for end in accumulate(lengths):
        yield view[start:end]
        start = end


def pack_failure(failed: Failed, body: Sequence[Buffer]) -> bytes:
    """The payload of a task that raised: the description, then the pickled exception if it could be pickled."""
    text = encode(failed)
    return b"".join([_LENGTH.pack(len(text)), text, *body])


def unpack_failure(payload: Buffer) -> tuple[Failed, list[Buffer]]:
    """What :func:`pack_failure` packed; ValueError or msgspec.DecodeError for anything else."""
    view = memoryview(payload)
    if len(view) < _LENGTH.size:
        raise ValueError("a failure without a description")
    (length,) = _LENGTH.unpack(view[: _LENGTH.size])
    end = _LENGTH.size + length
    if end > len(view):
        raise ValueError("a failure whose description is cut off")
    outcome = decode_outcome(bytes(view[_LENGTH.size : end]))
    if not isinstance(outcome, Failed):
        raise ValueError(f"a failure that is described by {type(outcome).__name__}")  # noqa: TRY004 - bad data
    return outcome, [view[end:]] if len(view) > end else []
