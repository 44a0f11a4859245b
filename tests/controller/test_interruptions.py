"""An interrupt is answered when it is known what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Send
from ipmpi.controller.interruptions import Interruptions
from ipmpi.errors import NoEnginesRegistered
from ipmpi.protocol import messages as m
from ipmpi.transport.loop import Loop

CLIENT, SET = 1, 10


class Stage:
    def __init__(self) -> None:
        self.loop = Loop()
        self.router = Router()
        self.told: list[Any] = []
        self.interruptions = Interruptions(self.loop, self.router, self._hear)

    def _hear(self, client: int, answer: m.Reply) -> None:
        assert client == CLIENT
        self.told.append(answer.value)
        self.loop.stop()

    def run(self, *engines: int) -> m.Dispatch:
        """Give engines something to do."""
        self.router.command(CLIENT, m.Command(7, list(engines), "execute", "execute('x')", b""), [], 0)
        return next(
            effect.message
            for effect in self.router.flush()
            if isinstance(effect, Send) and isinstance(effect.message, m.Dispatch)
        )


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(limits, "INTERRUPT_REACTS", 0.05)
    made = Stage()
    infos = [m.EngineInfo(rank, rank, "host", 1) for rank in range(3)]
    made.router.register(SET, m.Register(infos, "", ""))
    made.router.flush()
    yield made
    made.loop.close()


def test_engines_that_end_their_command_are_told_as_interrupted(stage: Stage) -> None:
    dispatch = stage.run(0, 2)
    stage.interruptions.begin(CLIENT, m.Interrupt(5, None))
    stage.interruptions.look()
    assert stage.told == []
    stage.router.result(SET, m.Result(dispatch.id, [2, 0], False, b""), [], 0)
    stage.interruptions.look()
    assert stage.told == [[[0, 2], []]]
    stage.interruptions.look()
    assert len(stage.told) == 1


def test_engines_that_do_not_react_are_told_as_such(stage: Stage) -> None:
    dispatch = stage.run(0, 2)
    stage.interruptions.begin(CLIENT, m.Interrupt(5, None))
    stage.router.result(SET, m.Result(dispatch.id, [2], False, b""), [], 0)
    stage.interruptions.look()
    assert stage.told == []
    stage.loop.run()
    assert stage.told == [[[2], [[[0], "execute('x')"]]]]


def test_idle_engines_are_no_reason_to_wait(stage: Stage) -> None:
    stage.interruptions.begin(CLIENT, m.Interrupt(5, None))
    stage.interruptions.look()
    assert stage.told == [[[], []]]


def test_what_runs_next_is_not_taken_for_what_was_interrupted(stage: Stage) -> None:
    dispatch = stage.run(0)
    stage.interruptions.begin(CLIENT, m.Interrupt(5, [0]))
    stage.router.result(SET, m.Result(dispatch.id, [0], True, b""), [], 0)
    stage.router.command(CLIENT, m.Command(8, [0], "execute", "execute('y')", b""), [], 0)
    stage.interruptions.look()
    assert stage.told == [[[0], []]]


def test_without_engines_it_is_refused() -> None:
    other = Stage()
    with pytest.raises(NoEnginesRegistered):
        other.interruptions.begin(CLIENT, m.Interrupt(5, None))
    other.loop.close()
