"""One end of a session: any split of the bytes gives the same events; credit, overtaking, giving up."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import pytest

from ipmpi import limits
from ipmpi.errors import LocalProtocolError, RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import (
    Connection,
    DataReceived,
    Event,
    MessageReceived,
    StreamAborted,
)
from ipmpi.protocol.frames import COUNT, HEADER_LENGTH, PREFIX, FrameKind, parse_prefix, prefix

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
BIG = 3 * limits.CHUNK + 17


def connection(**more: Any) -> Connection:
    return Connection(ALL, **more)


def result(number: int, *sizes: int) -> m.Result:
    return m.Result(number, [0], True, b"outcome", list(sizes))


def wire(end: Connection) -> bytes:
    out = []
    while end.wants_to_send:
        out += end.data_to_send()
    return b"".join(out)


def feed(end: Connection, data: bytes, step: int = 0) -> list[Event]:
    if not step:
        return list(end.receive_data(data))
    return [e for at in range(0, len(data), step) for e in end.receive_data(data[at : at + step])]


def settle(a: Connection, b: Connection) -> tuple[list[Event], list[Event]]:
    """Let both say all they have; what each heard."""
    heard: tuple[list[Event], list[Event]] = ([], [])
    while a.wants_to_send or b.wants_to_send:
        heard[1].extend(feed(b, wire(a)))
        heard[0].extend(feed(a, wire(b)))
    return heard


def plain(events: Iterable[Event]) -> list[Any]:
    """Comparable events, in which the pieces of a stream that follow each other are one."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, MessageReceived):
            found.append((event.message, [bytes(part) for part in event.body], event.stream))
        elif isinstance(event, DataReceived):
            if found and found[-1][0] == "data" and found[-1][1] == event.stream and not found[-1][3]:
                found[-1] = ("data", event.stream, found[-1][2] + bytes(event.data), event.last)
            else:
                found.append(("data", event.stream, bytes(event.data), event.last))
        else:
            found.append(event)
    return found


def frames(data: bytes) -> Iterator[tuple[FrameKind, int, int]]:
    """Kind, length and stream of each frame."""
    while data:
        kind, length, stream = parse_prefix(data[: PREFIX.size])
        yield kind, length, stream
        data = data[PREFIX.size + length :]


def pattern(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def granted(receiver: Connection, sender: Connection, stream: int, size: int) -> None:
    receiver.grant(stream, size)
    feed(sender, wire(receiver))


# --- splitting -------------------------------------------------------------------------------------------


def conversation() -> tuple[bytes, list[int]]:
    """The bytes of messages with and without bodies, two interleaved streams and one given up."""
    a, b = connection(resumable=False), connection(resumable=False)
    one = a.send_streamed(result(1, 3000), 3000)
    a.send(result(2, 5, 0, 7), [b"hello", b"", bytearray(b"goodbye")])
    two = a.send_streamed(result(3, 1500, 1500), 3000)
    a.send(m.Goodbye("end"))
    a.ping()
    data = wire(a)
    feed(b, data)
    for at in range(0, 2000, 500):
        for stream in (one, two):
            a.feed(stream, pattern(500, at))
            granted(b, a, stream.id, 500)
            data += wire(a)
    a.feed(one, pattern(1000))
    granted(b, a, one.id, 1000)
    a.abort(two)
    return data + wire(a), [one.id, two.id]


def replay(data: bytes, pieces: Iterable[bytes]) -> list[Any]:
    """What an end hears that grants both streams fully as soon as they are announced."""
    end = connection()
    heard = []
    for piece in pieces:
        for event in end.receive_data(piece):
            heard.append(event)
            if isinstance(event, MessageReceived) and event.stream:
                end.grant(event.stream, sum(getattr(event.message, "sizes", [])))
    assert data
    return plain(heard)


def cuts(data: bytes, points: Iterable[int]) -> Iterator[bytes]:
    places = [0, *sorted(points), len(data)]
    return (data[a:b] for a, b in itertools.pairwise(places) if a != b)


def test_any_split_gives_the_same_events() -> None:
    data, streams = conversation()
    whole = replay(data, [data])
    assert [item for item in whole if item[0] == "data" and item[3]], "one stream came to its end"
    assert StreamAborted(streams[1]) in whole
    for step in (1, 2, 3, 11, 12, 13, 255, 4096, 65_537):
        assert replay(data, (data[at : at + step] for at in range(0, len(data), step))) == whole, step
    chance = random.Random(5)
    for _ in range(20):
        points = [chance.randrange(1, len(data)) for _ in range(chance.randrange(1, 40))]
        assert replay(data, cuts(data, points)) == whole, points


def test_every_single_cut_of_a_message_gives_the_same_events() -> None:
    a = connection()
    a.send(result(2, 5, 0, 7), [b"hello", b"", b"goodbye"])
    a.send(m.GetIds(5))
    data = wire(a)
    whole = replay(data, [data])
    assert [len(part) for part in whole[0][1]] == [5, 0, 7]
    for at in range(1, len(data)):
        assert replay(data, [data[:at], data[at:]]) == whole, at


def test_trailing_data_waits_for_the_rest() -> None:
    a, b = connection(), connection()
    a.send(m.GetIds(1))
    a.send(m.GetIds(2))
    data = wire(a)
    assert plain(feed(b, data[:-1])) == [(m.GetIds(1), [], 0)]
    assert plain(feed(b, data[-1:])) == [(m.GetIds(2), [], 0)]


# --- lengths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2**31, 2**32 - 1, limits.MESSAGE + 1, 0, 3])
def test_impossible_declared_length_is_refused_at_once(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(connection(), prefix(FrameKind.MESSAGE, length))


def test_declared_length_reserves_no_memory() -> None:
    ends = [connection() for _ in range(50)]
    tracemalloc.start()
    for end in ends:
        feed(end, prefix(FrameKind.MESSAGE, limits.MESSAGE) + b"abc")
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 200_000


@pytest.mark.parametrize("length", [5, 2**31, 2**32 - 1])
def test_header_longer_than_its_frame(length: int) -> None:
    data = prefix(FrameKind.MESSAGE, 8) + HEADER_LENGTH.pack(length) + b"abcd"
    with pytest.raises(RemoteProtocolError, match="longer than its frame"):
        feed(connection(), data)


@pytest.mark.parametrize(
    "sizes", [[-1], [1 << 62], [3, -2, 4], [1] * (limits.SEGMENTS + 1)], ids=["negative", "huge", "sum", "many"]
)
def test_impossible_sizes(sizes: list[int]) -> None:
    header = m.encode(m.Result(1, [0], True, b"", sizes))
    data = prefix(FrameKind.MESSAGE, 4 + len(header), 7) + HEADER_LENGTH.pack(len(header)) + header
    with pytest.raises(RemoteProtocolError, match="impossible sizes"):
        feed(connection(), data)


@pytest.mark.parametrize(
    ("message", "stream", "body"),
    [
        (result(1, 5), 0, b"1234"),
        (result(1, 5), 0, b"123456"),
        (result(1), 0, b"1"),
        (result(1), 3, b""),
        (result(1, 0), 3, b""),
        (result(1, 5), 3, b"12345"),
        (m.GetIds(1), 3, b""),
        (m.GetIds(1), 0, b"x"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_body_that_differs_from_what_was_announced(message: m.AnyMessage, stream: int, body: bytes) -> None:
    header = m.encode(message)
    data = (
        prefix(FrameKind.MESSAGE, 4 + len(header) + len(body), stream)
        + HEADER_LENGTH.pack(len(header))
        + header
        + body
    )
    with pytest.raises(RemoteProtocolError):
        feed(connection(), data)


def test_stream_announced_twice() -> None:
    header = m.encode(result(1, 5))
    data = prefix(FrameKind.MESSAGE, 4 + len(header), 7) + HEADER_LENGTH.pack(len(header)) + header
    with pytest.raises(RemoteProtocolError, match="twice"):
        feed(connection(), data + data)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x93\x14\x01" + b"\x91" * 100_000, id="nested"),
        pytest.param(b"\x93\x14\x01\xa2\xff\xfe", id="not-utf8"),
        pytest.param(b"\x93\x14\x01\xdd\xff\xff\xff\xff", id="4-billion-items"),
        pytest.param(b"\x93\x14\x01\x81\x80\x01", id="unhashable-key"),
        pytest.param(b"\x92\xcc\xff\x01", id="unknown-message"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_message_that_cannot_be_understood(payload: bytes) -> None:
    data = prefix(FrameKind.MESSAGE, 4 + len(payload)) + HEADER_LENGTH.pack(len(payload)) + payload
    with pytest.raises(RemoteProtocolError, match="cannot be understood"):
        feed(connection(), data)


def test_message_outside_the_table() -> None:
    a, b = connection(), Connection(frozenset({m.GetIds}))
    a.send(m.GetIds(1))
    a.send(m.Kill(1, None))
    with pytest.raises(RemoteProtocolError, match="may not send Kill"):
        feed(b, wire(a))


# --- bodies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 20_000, limits.INLINE_BODY])
def test_inline_bodies_are_copied(size: int) -> None:
    a, b = connection(), connection()
    body = bytearray(b"x" * size)
    assert a.send(result(1, size), [body]) is None
    body[:] = b"y" * size
    (event,) = feed(b, wire(a))
    assert isinstance(event, MessageReceived)
    assert bytes(event.body[0]) == b"x" * size


def test_streamed_bodies_are_not_copied() -> None:
    a, b = connection(), connection()
    body = bytearray(BIG)
    stream = a.send(result(1, BIG), [body])
    assert stream is not None
    feed(b, wire(a))
    granted(b, a, stream.id, BIG)
    body[-1] = 7
    views = [part for part in _drain(a) if isinstance(part, memoryview)]
    assert all(view.obj is body for view in views)
    assert sum(map(len, views)) == BIG
    assert views[-1][-1] == 7


def _drain(end: Connection) -> list[Any]:
    out: list[Any] = []
    while end.wants_to_send:
        out += end.data_to_send()
    return out


def test_pieces_are_views_of_what_was_received() -> None:
    a, b = connection(), connection()
    stream = a.send(result(1, BIG), [bytes(BIG)])
    assert stream is not None
    feed(b, wire(a))
    granted(b, a, stream.id, BIG)
    data = wire(a)
    pieces = [event for event in b.receive_data(data) if isinstance(event, DataReceived)]
    assert all(event.data.obj is data for event in pieces)


def test_message_that_is_too_large_is_refused_and_leaves_nothing() -> None:
    end = connection()
    with pytest.raises(LocalProtocolError, match="Push large data first"):
        end.send(m.Command(1, None, "execute", "x", b"x" * limits.MESSAGE))
    with pytest.raises(LocalProtocolError, match="Push large data first"):
        end.send_streamed(m.Command(1, None, "execute", "x", b"x" * limits.MESSAGE, [BIG]), BIG)
    with pytest.raises(LocalProtocolError, match="0 bytes"):
        end.send_streamed(result(1), 0)
    assert not end.wants_to_send
    assert not end._streams
    assert end.control_backlog == 0


def test_stream_takes_no_more_than_was_announced() -> None:
    end = connection()
    stream = end.send_streamed(result(1, 10), 10)
    end.feed(stream, b"123456")
    with pytest.raises(LocalProtocolError, match="announced with 10"):
        end.feed(stream, b"12345")


def test_backlog_counts_messages_until_they_are_sent() -> None:
    end = connection()
    for number in range(10):
        end.send(m.GetIds(number))
    waits = end.control_backlog
    assert waits == len(wire(end))
    assert end.control_backlog == 0


# --- trickle (S16) ---------------------------------------------------------------------------------------


def test_one_byte_at_a_time_is_handed_on_and_not_kept() -> None:
    a, b = connection(), connection()
    size = limits.CHUNK
    stream = a.send(result(1, size), [pattern(size)])
    assert stream is not None
    feed(b, wire(a))
    granted(b, a, stream.id, size)
    data = wire(a)
    tracemalloc.start()
    got = 0
    for at in range(60_000):
        for event in b.receive_data(data[at : at + 1]):
            assert isinstance(event, DataReceived)
            got += len(event.data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert got > 59_900, "pieces come as they arrive"
    assert peak < 100_000


# --- credit ----------------------------------------------------------------------------------------------


def test_nothing_is_sent_without_credit() -> None:
    a, b = connection(), connection()
    stream = a.send(result(1, BIG), [pattern(BIG)])
    assert stream is not None
    feed(b, wire(a))
    assert not a.wants_to_send
    granted(b, a, stream.id, 1000)
    (event,) = feed(b, wire(a))
    assert isinstance(event, DataReceived)
    assert (len(event.data), event.last) == (1000, False)
    assert not a.wants_to_send


def test_credit_that_both_ends_have_agreed_on_need_not_be_given() -> None:
    a, b = connection(credit=1000), connection(credit=1000)
    stream = a.send(result(1, BIG), [pattern(BIG)])
    assert stream is not None
    message, piece = feed(b, wire(a))
    assert isinstance(message, MessageReceived)
    assert isinstance(piece, DataReceived)
    assert len(piece.data) == 1000
    granted(b, a, stream.id, 17)
    (piece,) = feed(b, wire(a))
    assert isinstance(piece, DataReceived)
    assert len(piece.data) == 17
    with pytest.raises(RemoteProtocolError, match="exceeds the credit"):
        feed(b, prefix(FrameKind.CHUNK, 1, stream.id))


def test_credit_beyond_the_end_is_trimmed_and_later_credit_ignored() -> None:
    a, b = connection(), connection()
    stream = a.send(result(1, BIG), [pattern(BIG)])
    assert stream is not None
    feed(b, wire(a))
    granted(b, a, stream.id, 10 * BIG)
    b.grant(stream.id, 1)
    b.grant(stream.id, 0)
    b.grant(99, 5)
    assert not b.wants_to_send
    assert plain(feed(b, wire(a)))[-1][3]
    b.grant(stream.id, 5)
    assert [kind for kind, *_ in frames(wire(b))] == [FrameKind.ACK]


def test_credit_for_more_than_there_is() -> None:
    a = connection()
    stream = a.send(result(1, BIG), [pattern(BIG)])
    assert stream is not None
    wire(a)
    with pytest.raises(RemoteProtocolError, match="credit for more"):
        feed(a, prefix(FrameKind.CREDIT, 8, stream.id) + COUNT.pack(BIG + 1))


def test_credit_for_a_stream_that_has_ended_or_never_was() -> None:
    a = connection()
    assert feed(a, prefix(FrameKind.CREDIT, 8, 77) + COUNT.pack(2**64 - 1)) == []


@pytest.mark.parametrize("excess", [1, limits.CHUNK])
def test_chunk_beyond_the_credit(excess: int) -> None:
    a, b = connection(), connection()
    stream = a.send(result(1, BIG), [pattern(BIG)])
    assert stream is not None
    feed(b, wire(a))
    b.grant(stream.id, limits.CHUNK - 1)
    with pytest.raises(RemoteProtocolError, match="exceeds the credit"):
        feed(b, prefix(FrameKind.CHUNK, min(limits.CHUNK, limits.CHUNK - 1 + excess), stream.id))


def test_chunk_of_a_stream_that_is_not_open() -> None:
    with pytest.raises(RemoteProtocolError, match="not open"):
        feed(connection(), prefix(FrameKind.CHUNK, 5, 1))


# --- order on the wire -----------------------------------------------------------------------------------


def test_message_overtakes_bulk() -> None:
    a, b = connection(), connection()
    size = 10 * limits.MIB
    stream = a.send(result(1, size), [bytes(size)])
    assert stream is not None
    feed(b, wire(a))
    granted(b, a, stream.id, size)
    first = a.data_to_send()
    a.send(m.GetIds(2))
    then = list(frames(b"".join([*first, *a.data_to_send()])))
    assert [kind for kind, _, _ in then if kind is not FrameKind.ACK][:2] == [FrameKind.CHUNK, FrameKind.MESSAGE]


def test_streams_take_turns() -> None:
    a, b = connection(), connection()
    streams = [a.send(result(n, BIG), [bytes(BIG)]) for n in range(3)]
    feed(b, wire(a))
    for stream in streams:
        assert stream is not None
        b.grant(stream.id, BIG)
    feed(a, wire(b))
    order = [stream for kind, _, stream in frames(wire(a)) if kind is FrameKind.CHUNK]
    assert order == [1, 2, 3] * 4


def test_stream_fed_piece_by_piece_ends_when_all_is_there() -> None:
    a, b = connection(), connection()
    stream = a.send_streamed(result(1, 30), 30)
    feed(b, wire(a))
    granted(b, a, stream.id, 30)
    heard: list[Event] = []
    for part in (b"0123456789", b"", b"abcdefghij", b"ABCDEFGHIJ"):
        a.feed(stream, part)
        heard += feed(b, wire(a))
    assert plain(heard) == [("data", 1, b"0123456789abcdefghijABCDEFGHIJ", True)]
