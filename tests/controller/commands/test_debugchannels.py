"""Channels between editors and engines: whose they are, and how much goes through them."""

from __future__ import annotations

import pytest

from ipmpi import limits
from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Send
from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import messages as m

ALICE, BOB, SET = 1, 2, 10


class Stage:
    """Engines 0 to 2; their ranks are 5 to 7. Alice has channel 9 to engine 1."""

    def __init__(self) -> None:
        self.router = Router(100)
        infos = [m.EngineInfo(rank, -1, "n1", 100 + rank) for rank in (5, 6, 7)]
        self.router.register(SET, m.Register(infos, "MPI", "3.11", [0, 1, 2]))
        self.channels = self.router.debuggers.channels
        self.sent()
        assert self.says(ALICE, m.DebugOpen(9, 1)) == [(SET, m.DebugOpen(100, 6))]

    def sent(self) -> list[tuple[int, m.AnyMessage]]:
        return [(e.to, e.message) for e in self.router.flush() if isinstance(e, Send)]

    def says(self, client: int, message: m.ChannelMessage) -> list[tuple[int, m.AnyMessage]]:
        self.channels.from_client(client, message)
        return self.sent()

    def comes(self, message: m.ChannelMessage, key: int = SET) -> list[tuple[int, m.AnyMessage]]:
        self.channels.from_engine(key, message)
        return self.sent()

    def opened(self) -> None:
        assert self.comes(m.DebugOpened(100, 6, "/home")) == [(ALICE, m.DebugOpened(9, 1, "/home"))]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_only_its_client_and_its_engine_use_a_channel(stage: Stage) -> None:
    stage.opened()
    assert stage.says(ALICE, m.DebugBytes(9, 1, b"in")) == [(SET, m.DebugBytes(100, 6, b"in"))]
    assert stage.comes(m.DebugBytes(100, 6, b"out")) == [(ALICE, m.DebugBytes(9, 1, b"out"))]
    assert stage.comes(m.DebugCredit(100, 6, 2)) == [(ALICE, m.DebugCredit(9, 1, 2))]
    assert stage.says(ALICE, m.DebugCredit(9, 1, 3)) == [(SET, m.DebugCredit(100, 6, 3))]
    for message in (
        m.DebugBytes(9, 1, b"x"),
        m.DebugCredit(9, 1, 1),
        m.DebugClosed(9, 1),
        m.DebugBytes(100, 6, b"x"),
    ):
        assert stage.says(BOB, message) == []
    assert stage.comes(m.DebugBytes(100, 5, b"of another rank")) == []
    assert stage.comes(m.DebugBytes(100, 6, b"of another set"), key=11) == []
    assert stage.comes(m.DebugClosed(100, 6, "gone")) == [(ALICE, m.DebugClosed(9, 1, "gone"))]
    assert stage.says(ALICE, m.DebugBytes(9, 1, b"late")) == []


def test_an_engine_has_one_debugger(stage: Stage) -> None:
    ((to, answer),) = stage.says(BOB, m.DebugOpen(3, 1))
    assert to == BOB
    assert isinstance(answer, m.DebugClosed)
    assert "attached already" in answer.reason
    assert stage.says(ALICE, m.DebugClosed(9, 1)) == [(SET, m.DebugClosed(100, 6))]
    assert stage.says(BOB, m.DebugOpen(3, 1)) == [(SET, m.DebugOpen(101, 6))]


def test_an_engine_that_is_not_there_is_refused(stage: Stage) -> None:
    reason = "engine 7 is not registered (registered: 0-2)"
    assert stage.says(BOB, m.DebugOpen(3, 7)) == [(BOB, m.DebugClosed(3, 7, reason))]


def test_a_client_has_so_many_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEBUG_CHANNELS", 2)
    assert stage.says(ALICE, m.DebugOpen(10, 0)) == [(SET, m.DebugOpen(101, 5))]
    ((_, answer),) = stage.says(ALICE, m.DebugOpen(11, 2))
    assert isinstance(answer, m.DebugClosed)
    assert "as many as it may" in answer.reason
    with pytest.raises(RemoteProtocolError, match="channel 10 already"):
        stage.says(ALICE, m.DebugOpen(10, 2))


def test_who_sends_more_than_may_be_under_way_is_stopped(stage: Stage) -> None:
    with pytest.raises(RemoteProtocolError, match="more bytes"):  # not open yet
        stage.says(ALICE, m.DebugBytes(9, 1, b"x"))
    with pytest.raises(RemoteProtocolError, match="more bytes"):
        stage.comes(m.DebugBytes(100, 6, b"x"))
    stage = Stage()
    stage.opened()
    whole = bytes(limits.DEBUG_WINDOW)
    assert stage.says(ALICE, m.DebugBytes(9, 1, whole))
    with pytest.raises(RemoteProtocolError, match="more bytes"):
        stage.says(ALICE, m.DebugBytes(9, 1, b"x"))
    assert stage.comes(m.DebugBytes(100, 6, whole))
    with pytest.raises(RemoteProtocolError, match="more bytes"):
        stage.comes(m.DebugBytes(100, 6, b"x"))


@pytest.mark.parametrize("size", [0, -1, 1, 2**40])
def test_credit_that_nobody_can_have_is_refused(stage: Stage, size: int) -> None:
    stage.opened()
    with pytest.raises(RemoteProtocolError, match="credit for more"):
        stage.says(ALICE, m.DebugCredit(9, 1, size))
    with pytest.raises(RemoteProtocolError, match="credit for more"):
        stage.comes(m.DebugCredit(100, 6, size))
    with pytest.raises(RemoteProtocolError, match="second time"):
        stage.comes(m.DebugOpened(100, 6, "/"))


def test_when_its_client_is_gone_the_debugger_is_detached(stage: Stage) -> None:
    stage.opened()
    stage.router.client_lost(BOB)
    assert stage.sent() == []
    stage.router.client_lost(ALICE)
    assert stage.sent() == [(SET, m.DebugClosed(100, 6))]


def test_when_its_engine_is_gone_the_client_is_told(stage: Stage) -> None:
    stage.opened()
    stage.router.ranks_lost(SET, [5], "gone")
    assert not [each for each in stage.sent() if isinstance(each[1], m.DebugClosed)]
    stage.router.ranks_lost(SET, [6], "gone")
    assert (ALICE, m.DebugClosed(9, 1, "engine 1 is gone")) in stage.sent()
    assert stage.says(ALICE, m.DebugBytes(9, 1, b"late")) == []
