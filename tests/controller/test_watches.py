"""Who hears what programs tell in watches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.watches import Watches
from ipmpi.errors import Backpressure
from ipmpi.protocol import messages as m

PROGRAM = 9
TOLD = m.Watched(7, [1, 2], [0.5, 0.25])


class Stage:
    """Two clients and a program."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, m.AnyMessage]] = []
        self.sessions: dict[int, Any] = {
            key: SimpleNamespace(key=key, connection=SimpleNamespace(control_backlog=0)) for key in (1, 2)
        }
        self.watches = Watches(self.sessions, lambda key, message: self.sent.append((key, message)), {}, {})

    def told(self) -> list[tuple[int, m.AnyMessage]]:
        """What is sent when the program tells something."""
        self.sent.clear()
        self.watches.watched(PROGRAM, TOLD)
        return list(self.sent)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_those_who_have_subscribed_hear_it_and_nobody_else(stage: Stage) -> None:
    stage.watches.subscribe(stage.sessions[1], m.Subscribe(1, 7))
    assert stage.told() == [(1, TOLD)]
    stage.watches.subscribe(stage.sessions[2], m.Subscribe(1, 7))
    assert sorted(key for key, _ in stage.told()) == [1, 2]
    stage.watches.unsubscribe(stage.sessions[1], m.Unsubscribe(2, 7))
    assert stage.told() == [(2, TOLD)]


def test_if_nobody_wants_it_the_program_is_told_to_end_it(stage: Stage) -> None:
    assert stage.told() == [(PROGRAM, m.Unwatch(7))]
    stage.watches.subscribe(stage.sessions[1], m.Subscribe(1, 7))
    stage.watches.client_lost(1)
    assert stage.told() == [(PROGRAM, m.Unwatch(7))]


def test_who_does_not_read_misses_values(stage: Stage) -> None:
    for session in stage.sessions.values():
        stage.watches.subscribe(session, m.Subscribe(1, 7))
    stage.sessions[1].connection.control_backlog = limits.WATCH_BACKLOG + 1
    assert stage.told() == [(2, TOLD)]


def test_watches_are_bounded(stage: Stage) -> None:
    for number in range(limits.WATCHES):
        stage.watches.subscribe(stage.sessions[1], m.Subscribe(1, number))
    stage.watches.subscribe(stage.sessions[2], m.Subscribe(1, 0))  # one that is known
    with pytest.raises(Backpressure, match="1000 watches at most"):
        stage.watches.subscribe(stage.sessions[2], m.Subscribe(1, limits.WATCHES))
