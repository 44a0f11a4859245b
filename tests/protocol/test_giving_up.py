"""Refusing and aborting streams, in all orders and races; pings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, get_args

from ipmpi import limits
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import (
    Connection,
    Event,
    StreamAborted,
    StreamRefused,
)
from ipmpi.protocol.frames import PREFIX, FrameKind, parse_prefix, prefix

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


# --- giving up -------------------------------------------------------------------------------------------


def streaming() -> tuple[Connection, Connection, Any]:
    """A stream half of which has arrived."""
    a, b = connection(), connection()
    stream = a.send(result(1, BIG), [pattern(BIG)])
    feed(b, wire(a))
    assert stream is not None
    granted(b, a, stream.id, BIG // 2)
    feed(b, wire(a))
    return a, b, stream


def ended(*ends: Connection) -> bool:
    return all(not end._streams and not end._incoming and not end.wants_to_send for end in ends)


def test_refused() -> None:
    a, b, stream = streaming()
    b.refuse(stream.id)
    b.refuse(stream.id)
    b.grant(stream.id, 5)
    assert not b.is_coming(stream.id)
    heard = settle(a, b)
    assert heard == ([StreamRefused(stream.id)], [])
    a.feed(stream, b"")
    assert ended(a, b)


def test_aborted() -> None:
    a, b, stream = streaming()
    assert b.is_coming(stream.id)
    a.abort(stream)
    a.abort(stream)
    assert settle(a, b) == ([], [StreamAborted(stream.id)])
    assert not b.is_coming(stream.id)
    b.refuse(stream.id)
    b.grant(stream.id, 7)
    assert ended(a, b)


def test_refusal_crosses_the_last_chunk() -> None:
    a, b, stream = streaming()
    granted(b, a, stream.id, BIG)
    last = wire(a)
    b.refuse(stream.id)
    assert feed(b, last) == [], "what is not wanted is not handed on"
    assert settle(a, b) == ([], [])
    assert ended(a, b)


def test_refusal_crosses_abort() -> None:
    a, b, stream = streaming()
    a.abort(stream)
    b.refuse(stream.id)
    assert settle(a, b) == ([], [])
    assert ended(a, b)


def test_credit_crosses_abort() -> None:
    a, b, stream = streaming()
    b.grant(stream.id, 1000)
    a.abort(stream)
    assert settle(a, b) == ([], [StreamAborted(stream.id)])
    assert ended(a, b)


def test_abort_with_credit_left_sends_no_more_chunks() -> None:
    a, b, stream = streaming()
    granted(b, a, stream.id, BIG)
    a.data_to_send()
    a.abort(stream)
    assert [kind for kind, _, _ in frames(wire(a))] == [FrameKind.ABORT]


def test_refusal_in_the_middle_of_a_chunk() -> None:
    a, b, stream = streaming()
    granted(b, a, stream.id, BIG)
    data = wire(a)
    assert feed(b, data[:1000])
    b.refuse(stream.id)
    assert feed(b, data[1000:]) == []
    assert settle(a, b) == ([], [])
    assert ended(a, b)


def test_frames_about_unknown_streams_are_ignored() -> None:
    end = connection()
    assert feed(end, prefix(FrameKind.REFUSE, 0, 9) + prefix(FrameKind.ABORT, 0, 9)) == []
    assert not end.wants_to_send


# --- signs of life ---------------------------------------------------------------------------------------


def test_ping_is_answered_by_pong() -> None:
    a, b = connection(), connection()
    a.ping()
    assert feed(b, wire(a)) == []
    answer = wire(b)
    assert [kind for kind, _, _ in frames(answer)] == [FrameKind.PONG]
    assert feed(a, answer) == []
    assert not a.wants_to_send
