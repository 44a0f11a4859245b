"""Frame prefixes: every kind, every length that no peer of ours declares (trust.md S15)."""

from __future__ import annotations

from array import array

import pytest

from ipmpi import limits
from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol.frames import EXACT, LARGEST, NUMBERED, PREFIX, FrameKind, parse_prefix, prefix, size_of

LENGTHS = [
    0,
    1,
    3,
    4,
    7,
    8,
    9,
    limits.CHUNK,
    limits.CHUNK + 1,
    limits.MESSAGE,
    limits.MESSAGE + 1,
    2**31,
    2**32 - 1,
]


def is_legal(kind: FrameKind, length: int, stream: int) -> bool:
    if kind in EXACT:
        return length == EXACT[kind]
    if kind is FrameKind.CHUNK:
        return 0 < length <= limits.CHUNK and stream > 0
    return 4 <= length <= limits.MESSAGE


def test_every_kind_has_a_bound() -> None:
    assert set(EXACT) | set(LARGEST) == set(FrameKind)
    assert not set(EXACT) & set(LARGEST)


def test_what_belongs_to_one_link_is_not_numbered() -> None:
    assert set(FrameKind) - NUMBERED == {FrameKind.ACK, FrameKind.PING, FrameKind.PONG}


@pytest.mark.parametrize("stream", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", FrameKind, ids=lambda kind: kind.name)
def test_declared_lengths(kind: FrameKind, length: int, stream: int) -> None:
    head = prefix(kind, length, stream)
    assert len(head) == PREFIX.size == 12
    if is_legal(kind, length, stream):
        assert parse_prefix(head) == (kind, length, stream)
    else:
        with pytest.raises(RemoteProtocolError, match=kind.name):
            parse_prefix(head)


@pytest.mark.parametrize("number", [0, 12, 255])
def test_unknown_kind(number: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"unknown kind {number}"):
        parse_prefix(PREFIX.pack(0, number, 0))


@pytest.mark.parametrize("at", [5, 6, 7])
def test_reserved_bytes_must_be_zero(at: int) -> None:
    head = bytearray(prefix(FrameKind.PING, 0))
    head[at] = 1
    with pytest.raises(RemoteProtocolError):
        parse_prefix(head)


def test_something_else_than_ipmpi_is_told_apart() -> None:
    with pytest.raises(RemoteProtocolError, match="does not speak ipmpi's protocol"):
        parse_prefix(b"GET / HTTP/1")


def test_size_of_counts_bytes_not_items() -> None:
    numbers = memoryview(array("d", [1.0, 2.0]))
    assert size_of([b"abc", bytearray(2), numbers, memoryview(b"")]) == 3 + 2 + 16
    assert size_of([]) == 0
