"""Bodies that pass through: slow sinks, lost sinks, sources that give up."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from ipmpi import limits
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, MessageReceived, StreamAborted
from ipmpi.transport.transfers import Transfers

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
SIZE = 10 * limits.CHUNK
MESSAGE = m.Result(1, [0], True, b"", [SIZE])


class Line:
    """An endpoint here (``connection``) and its peer, moved by hand."""

    def __init__(self) -> None:
        self.connection, self.peer = Connection(ALL), Connection(ALL)
        self.woken = 0
        self.got: list[Any] = []
        self.bytes = 0

    def wake(self) -> None:
        self.woken += 1

    def out(self) -> None:
        while self.connection.wants_to_send:
            for event in self.peer.receive_data(b"".join(self.connection.data_to_send())):
                self.got.append(event)
                if isinstance(event, DataReceived):
                    self.bytes += len(event.data)

    def into(self, transfers: Transfers) -> None:
        while self.peer.wants_to_send:
            for event in self.connection.receive_data(b"".join(self.peer.data_to_send())):
                transfers.handle(self, event)

    def idle(self) -> bool:
        return not any(c._streams or c._incoming for c in (self.connection, self.peer))


class Relayed:
    """A source and sinks between which a body is being relayed."""

    def __init__(self, sinks: int) -> None:
        self.transfers = Transfers()
        self.source = Line()
        self.sinks = [Line() for _ in range(sinks)]
        self.ended: list[bool] = []
        self.out = self.source.peer.send(MESSAGE, [bytes(SIZE)])
        (event,) = self.source.connection.receive_data(b"".join(self.source.peer.data_to_send()))
        assert isinstance(event, MessageReceived)
        self.stream = event.stream

    def start(self) -> None:
        outs = [(line, line.connection.send_streamed(MESSAGE, SIZE)) for line in self.sinks]
        self.transfers.start(self.source, self.stream, outs, self.ended.append)
        self.move()

    def move(self) -> None:
        for _ in range(30):
            self.source.out()
            self.source.into(self.transfers)
            for sink in self.sinks:
                sink.out()
                sink.into(self.transfers)

    def over(self) -> bool:
        return not self.transfers._by_source and not self.transfers._by_sink


def test_to_two_sinks() -> None:
    relayed = Relayed(2)
    relayed.start()
    for sink in relayed.sinks:
        sink.peer.grant(1, SIZE)
    relayed.move()
    assert [sink.bytes for sink in relayed.sinks] == [SIZE, SIZE]
    assert relayed.ended == [True]
    assert relayed.over()
    assert all(line.idle() and line.woken for line in [relayed.source, *relayed.sinks])


def test_slow_sink_bounds_what_is_held() -> None:
    relayed = Relayed(2)
    relayed.start()
    fast, slow = relayed.sinks
    fast.peer.grant(1, SIZE)
    slow.peer.grant(1, limits.CHUNK)
    relayed.move()
    assert [fast.bytes, slow.bytes] == [limits.CHUNK, limits.CHUNK]
    assert relayed.ended == []
    slow.peer.grant(1, SIZE)
    relayed.move()
    assert relayed.ended == [True]


@pytest.mark.parametrize("how", ["lost", "refused"])
def test_sink_that_leaves_does_not_stop_the_others(how: str) -> None:
    relayed = Relayed(2)
    relayed.start()
    stays, leaves = relayed.sinks
    stays.peer.grant(1, SIZE)
    leaves.peer.grant(1, 1000)
    relayed.move()
    if how == "lost":
        relayed.sinks.remove(leaves)
        relayed.transfers.endpoint_lost(leaves)
    else:
        leaves.peer.refuse(1)
    relayed.move()
    assert stays.bytes == SIZE
    assert relayed.ended == [True]
    assert relayed.over()


def test_without_sinks_the_source_is_stopped() -> None:
    relayed = Relayed(1)
    relayed.start()
    relayed.sinks[0].peer.grant(1, 1000)
    relayed.move()
    relayed.transfers.endpoint_lost(relayed.sinks[0])
    relayed.move()
    assert relayed.ended == [True]
    assert relayed.over()
    assert relayed.source.idle()


def test_no_sinks_from_the_beginning() -> None:
    relayed = Relayed(0)
    relayed.start()
    assert relayed.ended == [True]
    assert relayed.source.idle()


@pytest.mark.parametrize("how", ["lost", "aborted"])
def test_source_that_gives_up(how: str) -> None:
    relayed = Relayed(2)
    relayed.start()
    for sink in relayed.sinks:
        sink.peer.grant(1, 1000)
    relayed.move()
    if how == "lost":
        relayed.transfers.endpoint_lost(relayed.source)
    else:
        assert relayed.out is not None
        relayed.source.peer.abort(relayed.out)
    relayed.move()
    assert relayed.ended == [False]
    assert relayed.over()
    for sink in relayed.sinks:
        assert sink.got[-1] == StreamAborted(1)


def test_source_that_gave_up_before_its_turn_came() -> None:
    relayed = Relayed(2)
    assert relayed.out is not None
    relayed.source.peer.abort(relayed.out)
    relayed.source.into(relayed.transfers)
    relayed.start()
    assert relayed.ended == [False]
    assert relayed.over()
    for sink in relayed.sinks:
        assert sink.got[-1] == StreamAborted(1), "nobody waits for a body that will not come"


def test_events_of_other_streams_are_left_to_others() -> None:
    relayed = Relayed(1)
    relayed.start()
    assert not relayed.transfers.handle(relayed.sinks[0], StreamAborted(99))
    assert not relayed.transfers.handle(relayed.source, MessageReceived(m.GetIds(1), [], 0))
