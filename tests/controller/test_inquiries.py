"""Questions to node agents: every question is answered, completely or in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.inquiries import Inquiries
from ipmpi.controller.registry import Registry
from ipmpi.errors import InvalidEngineID
from ipmpi.protocol import messages as m

CLIENT = 99


class FakeLoop:
    """Timers only, which are made to end by the test."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        self.timers.append((seconds, call))


class World:
    def __init__(self) -> None:
        self.sent: list[tuple[int, Any]] = []
        self.loop: Any = FakeLoop()
        self.registry = Registry()
        for key, ranks in ((1, 3), (2, 2)):
            engines = [m.EngineInfo(rank, -1, "host", 1) for rank in range(ranks)]
            self.registry.register(key, m.Register(engines, "MPI", "3"))
        self.inquiries = Inquiries(self.loop, self.registry, lambda key, message: self.sent.append((key, message)))


@pytest.fixture
def world() -> World:
    return World()


def test_all_sets_are_asked_and_the_answers_are_folded(world: World) -> None:
    world.inquiries.begin(CLIENT, m.AskAgents(7, None, b"?"))
    assert world.sent == [(1, m.Inquiry(1, [0, 1, 2], b"?")), (2, m.Inquiry(1, [0, 1], b"?"))]
    world.sent.clear()
    world.inquiries.found(1, m.Findings(1, [0, 2], b"idle"))
    world.inquiries.found(2, m.Findings(1, [0, 1], b"idle"))
    assert not world.sent
    world.inquiries.found(1, m.Findings(1, [1], b"busy"))
    assert world.sent == [(CLIENT, m.Reply(7, [[[[0, 2, 3, 4], b"idle"], [[1], b"busy"]], []]))]
    world.loop.timers[0][1]()
    assert len(world.sent) == 1, "it is answered once"


def test_who_does_not_answer_is_named_in_time(world: World) -> None:
    world.inquiries.begin(CLIENT, m.AskAgents(7, [0, 4], b"?"))
    world.inquiries.found(1, m.Findings(1, [0], b"idle"))
    ((seconds, end),) = world.loop.timers
    assert seconds == limits.INQUIRY
    end()
    assert world.sent[-1] == (CLIENT, m.Reply(7, [[[[0], b"idle"]], [4]]))
    world.inquiries.found(2, m.Findings(1, [1], b"late"))
    assert len(world.sent) == 3


def test_engines_that_were_not_asked_are_not_told_of(world: World) -> None:
    world.inquiries.begin(CLIENT, m.AskAgents(7, [0], b"?"))
    world.inquiries.found(2, m.Findings(1, [0, 1], b"who asked?"))
    world.inquiries.found(1, m.Findings(1, [0, 1, 1, 77], b"idle"))
    assert world.sent[-1] == (CLIENT, m.Reply(7, [[[[0], b"idle"]], []]))


def test_a_reply_stays_below_the_limit_of_messages(world: World) -> None:
    world.inquiries.begin(CLIENT, m.AskAgents(7, [0, 1, 2], b"?"))
    for rank in range(3):
        world.inquiries.found(1, m.Findings(1, [rank], bytes([rank]) * (limits.MESSAGE // 2 - 100)))
    world.loop.timers[0][1]()
    reply = world.sent[-1][1]
    assert len(m.encode(reply)) < limits.MESSAGE
    assert reply.value[1] == [1, 2]


def test_unknown_engines_are_refused(world: World) -> None:
    with pytest.raises(InvalidEngineID, match="5"):
        world.inquiries.begin(CLIENT, m.AskAgents(7, [5], b"?"))
    assert not world.sent
    assert not world.loop.timers
