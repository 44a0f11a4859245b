"""What a node agent does until debugpy is attached to a rank, and after."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from ipmpi.engine.agent.debugport import DebugPort
from ipmpi.engine.rank.controlblock import DEBUGGER, DEBUGGER_HEARD, ControlBlock
from ipmpi.protocol import messages as m, rankmessages as rm
from ipmpi.transport.packets import stream_pair


class Stage:
    """A rank that hears a signal only when a test says so, and a loop whose timers a test runs."""

    def __init__(self) -> None:
        self.block, descriptor = ControlBlock.create()
        os.close(descriptor)
        self.signals = 0
        self.up: list[Any] = []
        self.timers: list[Callable[[], object]] = []
        self.port = DebugPort(self, 3, self.block, self._signal, lambda: True)  # type: ignore[arg-type]

    def _signal(self) -> None:
        self.signals += 1

    def call_later(self, _delay: float, call: Callable[[], object]) -> None:
        self.timers.append(call)

    def register(self, *_: object) -> None:
        """Nothing is ever ready."""

    unregister = register

    def hears(self) -> int:
        """The rank hears a signal; return which connection it is to serve."""
        wanted: int = self.block.words[DEBUGGER]
        self.block.words[DEBUGGER_HEARD] = wanted
        return wanted

    def timer(self) -> None:
        timers, self.timers = self.timers, []
        for call in timers:
            call()

    def says(self, message: m.ChannelMessage) -> None:
        self.port.heard(message, self.up.append)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def attached(stage: Stage, number: int) -> Any:
    theirs, ours = stream_pair()
    stage.port.attached(rm.DebuggerAttached(number, "/home"), theirs.detach())
    ours.settimeout(10)
    return ours


def test_a_rank_is_told_again_until_it_has_heard(stage: Stage) -> None:
    stage.says(m.DebugOpen(70, 3))
    assert stage.signals == 1
    stage.timer()
    stage.timer()
    assert stage.signals == 3
    assert stage.hears() == 1
    stage.timer()
    assert (stage.signals, stage.timers) == (3, [])
    with attached(stage, 1) as rank:
        assert stage.up == [m.DebugOpened(70, 3, "/home")]
        stage.says(m.DebugBytes(70, 3, b"in"))
        assert rank.recv(10) == b"in"
        assert stage.up[1:] == [m.DebugCredit(70, 3, 2)]
        stage.says(m.DebugBytes(69, 3, b"of another channel"))
        stage.says(m.DebugClosed(70, 3))
        assert rank.recv(10) == b""
    assert (stage.hears(), stage.signals) == (0, 4)


def test_a_connection_that_was_closed_before_the_rank_had_heard_is_not_begun(stage: Stage) -> None:
    stage.says(m.DebugOpen(70, 3))
    stage.says(m.DebugClosed(70, 3))
    assert stage.hears() == 0
    stage.timer()
    assert (stage.signals, stage.timers, stage.up) == (1, [], [])


def test_one_that_was_closed_just_after_is_ended_again(stage: Stage) -> None:
    stage.says(m.DebugOpen(70, 3))
    words = stage.block.words
    words[DEBUGGER_HEARD] = 0  # what it writes is not visible yet
    stage.says(m.DebugClosed(70, 3))
    words[DEBUGGER_HEARD] = 1
    with attached(stage, 1) as rank:
        assert rank.recv(10) == b""
    assert (stage.signals, stage.hears(), stage.up) == (2, 0, [])


def test_trouble_is_told(stage: Stage) -> None:
    stage.says(m.DebugOpen(70, 3))
    stage.hears()
    stage.port.attached(rm.DebuggerAttached(1, "", "no debugpy"), -1)
    assert stage.up == [m.DebugClosed(70, 3, "no debugpy")]
    assert stage.hears() == 0


def test_a_new_controller_ends_what_the_old_one_had(stage: Stage) -> None:
    stage.says(m.DebugOpen(70, 3))
    stage.hears()
    with attached(stage, 1) as rank:
        stage.says(m.DebugClosed(0, 3))
        assert rank.recv(10) == b""
        stage.says(m.DebugOpen(5, 3))
        assert stage.hears() == 2
