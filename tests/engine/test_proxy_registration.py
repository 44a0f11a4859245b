"""What a set tells the controller of its ranks, as engines end and processes die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from ipmpi.engine.child import Child
from ipmpi.engine.namespace import Namespace
from ipmpi.engine.proxy import Proxy
from ipmpi.engine.rank import Rank
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import MessageReceived
from ipmpi.transport.loop import Loop


class Wire:
    """A connection, and the link with it, that remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.connection = self

    def send(self, message: m.AnyMessage, body: object = ()) -> None:
        del body
        self.sent.append(message)

    def wake(self) -> None:
        pass


class Set:
    """Rank 0 with two ranks below it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.stopped: list[str] = []
        own = m.EngineInfo(0, 0, "host", 100)
        self.rank = Rank(Namespace(-1, None), lambda name: None)
        self.proxy = Proxy(
            self.loop,
            self.rank,
            own,
            "MPI",
            "3.11",
            2,
            lambda text: None,
            lambda reason, orphaned: self.stopped.append(reason),
        )
        self.above = Wire()
        self.proxy.above = cast(Any, self.above)
        self.children = []
        for number in (1, 2):
            child = Child(cast(Any, None), cast(Any, Wire()))
            self.proxy.children.append(child)
            self.proxy._from_below(
                child, received(m.Register([m.EngineInfo(number, number, "host", 100 + number)], "", "", []))
            )
            self.children.append(child)

    def hears(self, message: m.AnyMessage) -> None:
        self.proxy.from_above(received(message))

    def told(self, number: int) -> list[Any]:
        return cast(Wire, self.children[number - 1].connection).sent


def received(message: m.AnyMessage) -> MessageReceived:
    return MessageReceived(message, [], 0)


@pytest.fixture
def ranks() -> Iterator[Set]:
    made = Set()
    made.proxy.register()
    made.hears(m.Registered([10, 11, 12]))
    made.above.sent.clear()
    yield made
    made.loop.close()


def test_after_a_loss_the_others_ask_for_their_old_ids(ranks: Set) -> None:
    ranks.proxy._child_lost(ranks.children[0], "it was killed")
    assert isinstance(ranks.above.sent.pop(), m.RanksLost)
    ranks.proxy.register()
    (message,) = ranks.above.sent
    assert [engine.rank for engine in message.engines] == [0, 2]
    assert message.ids == [10, 12]
    ranks.hears(m.Registered([10, 12]))
    assert not ranks.stopped
    assert ranks.told(2)[-1] == m.Registered([12])


def test_an_engine_that_was_ended_does_not_come_back(ranks: Set) -> None:
    ranks.hears(m.StopRanks([0]))
    ranks.hears(m.StopRanks([1]))
    assert ranks.told(1)[-1] == m.StopRanks([1])
    ranks.proxy.register()
    (message,) = ranks.above.sent
    assert [engine.rank for engine in message.engines] == [2]
    assert message.ids == [12]
    ranks.hears(m.Registered([12]))
    assert not ranks.stopped


def test_the_set_ends_with_its_last_engine(ranks: Set) -> None:
    ranks.hears(m.StopRanks([0]))
    ranks.hears(m.StopRanks([2]))
    assert not ranks.stopped
    ranks.hears(m.StopRanks([1]))
    assert ranks.stopped == ["ended on request"]
    assert [type(ranks.told(number)[-1]) for number in (1, 2)] == [m.Goodbye, m.Goodbye]


def test_the_set_ends_if_the_last_engine_is_lost(ranks: Set) -> None:
    ranks.hears(m.StopRanks([0, 2]))
    ranks.proxy._child_lost(ranks.children[0], "it was killed")
    assert ranks.stopped == ["ended on request"]


def test_a_goodbye_reaches_all_ranks(ranks: Set) -> None:
    ranks.hears(m.Goodbye("the controller stopped"))
    assert ranks.stopped == ["the controller said goodbye: the controller stopped"]
    assert [type(ranks.told(number)[-1]) for number in (1, 2)] == [m.Goodbye, m.Goodbye]
