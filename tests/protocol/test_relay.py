"""A relay holds nothing: the slowest sink sets the pace, and lost ones stop counting."""

from __future__ import annotations

from typing import Any, get_args

from ipmpi import limits
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, MessageReceived
from ipmpi.protocol.relay import Relay

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
SIZE = 2 * limits.CHUNK


class Line:
    """Both ends of a link."""

    def __init__(self) -> None:
        self.near, self.far = Connection(ALL), Connection(ALL)

    def to_far(self) -> list[Any]:
        return self._move(self.near, self.far)

    def to_near(self) -> list[Any]:
        return self._move(self.far, self.near)

    @staticmethod
    def _move(source: Connection, target: Connection) -> list[Any]:
        heard: list[Any] = []
        while source.wants_to_send:
            heard += target.receive_data(b"".join(source.data_to_send()))
        return heard


def build(count: int) -> tuple[Line, Relay, list[Line], list[Any]]:
    """A source whose stream is announced here, and sinks to which it has been announced."""
    source = Line()
    source.far.send(m.Result(1, [0], True, b"", [SIZE]), [bytes(range(256)) * (SIZE // 256)])
    (event,) = source.to_near()
    assert isinstance(event, MessageReceived)
    lines = [Line() for _ in range(count)]
    outs = [line.near.send_streamed(event.message, SIZE) for line in lines]
    for line in lines:
        line.to_far()
    relay = Relay(source.near, event.stream, [(line.near, out) for line, out in zip(lines, outs, strict=True)])
    relay.update_credit()
    return source, relay, lines, outs


def pump(source: Line, relay: Relay) -> int:
    """Bytes that came from the source after credit went to it."""
    source.to_far()
    got = 0
    for event in source.to_near():
        assert isinstance(event, DataReceived)
        got += len(event.data)
        relay.receive(event.data)
    return got


def allow(line: Line, out: Any, size: int, relay: Relay) -> None:
    line.far.grant(out.id, size)
    line.to_near()
    relay.update_credit()


def test_slowest_sink_sets_the_pace() -> None:
    source, relay, (fast, slow), (out_fast, out_slow) = build(2)
    allow(fast, out_fast, SIZE, relay)
    assert pump(source, relay) == 0, "no credit from the slow sink yet"
    allow(slow, out_slow, 1000, relay)
    assert pump(source, relay) == 1000
    assert out_fast.fed == out_slow.fed == 1000
    allow(slow, out_slow, SIZE, relay)
    assert pump(source, relay) == SIZE - 1000
    for line in (fast, slow):
        data = b"".join(bytes(event.data) for event in line.to_far())
        assert data == bytes(range(256)) * (SIZE // 256)


def test_slow_sink_that_leaves_sets_the_others_free() -> None:
    source, relay, (fast, slow), (out_fast, out_slow) = build(2)
    allow(fast, out_fast, SIZE, relay)
    allow(slow, out_slow, 500, relay)
    assert pump(source, relay) == 500
    relay.drop(slow.near, out_slow.id)
    assert pump(source, relay) == SIZE - 500


def test_one_of_two_streams_on_the_same_connection_is_dropped() -> None:
    source = Line()
    source.far.send(m.Result(1, [0], True, b"", [SIZE]), [bytes(SIZE)])
    source.to_near()
    line = Line()
    one, two = (line.near.send_streamed(m.Result(n, [0], True, b"", [SIZE]), SIZE) for n in (1, 2))
    line.to_far()
    relay = Relay(source.near, 1, [(line.near, one), (line.near, two)])
    relay.drop(line.near, one.id)
    assert [stream for _, stream in relay.sinks] == [two]


def test_without_sinks_the_source_is_told_to_stop() -> None:
    source, relay, (line,), (out,) = build(1)
    allow(line, out, 1000, relay)
    pump(source, relay)
    relay.drop(line.near)
    (event,) = source.to_far()
    assert event.stream == 1
    source.to_near()
    assert not source.far._streams
    assert not source.near._incoming


def test_abort_goes_to_all_sinks() -> None:
    _, relay, lines, outs = build(2)
    relay.abort()
    for line, out in zip(lines, outs, strict=True):
        (event,) = line.to_far()
        assert event.stream == out.id
    relay.receive(b"late")
