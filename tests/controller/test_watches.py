"""Who hears what programs tell in watches."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.registry import Registry
from ipmpi.controller.watches import Watches
from ipmpi.errors import Backpressure, ClientError, InvalidEngineID
from ipmpi.protocol import messages as m

PROGRAM, ENGINES = 9, 8
TOLD = m.Watched(7, [1, 2], [0.5, 0.25])


class Stage:
    """Two clients and a program."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, m.AnyMessage]] = []
        self.sessions: dict[int, Any] = {
            key: SimpleNamespace(key=key, connection=SimpleNamespace(control_backlog=0)) for key in (1, 2)
        }
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        loop: Any = SimpleNamespace(
            now=lambda: self.now, call_later=lambda seconds, call: self.timers.append((seconds, call))
        )
        registry = Registry()
        registry.register(ENGINES, m.Register([m.EngineInfo(0, 0, "host", 1)], "MPI", "3"))
        ranks = [m.EngineInfo(rank, rank + 1, "host", 1) for rank in range(2)]
        registry.register(PROGRAM, m.Register(ranks, "MPI", "3", program="heat.py"))
        self.sessions[PROGRAM] = SimpleNamespace(key=PROGRAM)
        self.watches = Watches(
            loop, registry, self.sessions, lambda key, message: self.sent.append((key, message)), {}, {}
        )

    def monitor(self, watch: int = 7, session: int = 1, **changes: Any) -> None:
        """A monitor wants to watch."""
        asked = {"engine": 2, "name": "T", "every": 3, "reduce": "max"} | changes
        self.watches.watch_published(self.sessions[session], m.WatchPublished(1, watch=watch, **asked))

    def ring(self) -> list[float]:
        """Let all timers end; after how many seconds they do."""
        timers, self.timers = self.timers, []
        for _, call in timers:
            call()
        return [seconds for seconds, _ in timers]

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
    for session in (stage.sessions[1], stage.sessions[2]):
        stage.watches.subscribe(session, m.Subscribe(1, 7))
    stage.sessions[1].connection.control_backlog = limits.WATCH_BACKLOG + 1
    assert stage.told() == [(2, TOLD)]


def test_watches_are_bounded(stage: Stage) -> None:
    for number in range(limits.WATCHES):
        stage.watches.subscribe(stage.sessions[1], m.Subscribe(1, number))
    stage.watches.subscribe(stage.sessions[2], m.Subscribe(1, 0))  # one that is known
    with pytest.raises(Backpressure, match="1000 watches at most"):
        stage.watches.subscribe(stage.sessions[2], m.Subscribe(1, limits.WATCHES))


def test_a_monitor_has_the_controller_begin_a_watch_and_hears_what_comes_of_it(stage: Stage) -> None:
    stage.monitor()
    assert stage.ring() == [0]
    assert stage.sent == [(PROGRAM, m.BeginWatch(7, "T", 3, "max"))]
    assert stage.told() == [(1, TOLD)]
    stage.watches.unsubscribe(stage.sessions[1], m.Unsubscribe(2, 7))
    assert stage.told() == [(PROGRAM, m.Unwatch(7))]


def test_a_watch_that_the_program_refuses_is_over(stage: Stage) -> None:
    stage.monitor()
    refused = m.Watched(7, [], [], "no such value")
    stage.watches.watched(PROGRAM, refused)
    assert stage.sent == [(1, refused)]
    stage.sent.clear()
    stage.watches.watched(PROGRAM, refused)
    assert not stage.sent, "nobody hears it, and nothing is there to end"
    stage.monitor()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"engine": 0}, ClientError, "engine 0 is not a rank of a program"),
        ({"engine": 5}, InvalidEngineID, "5"),
        ({"name": ""}, ClientError, "1 to 255 characters"),
        ({"name": "x" * 256}, ClientError, "1 to 255 characters"),
        ({"every": 0}, ClientError, "in 1 step or more"),
        ({"every": 1 << 41}, ClientError, "in 1 step or more"),
        ({"reduce": "exec"}, ClientError, "reduce is one of max, min, sum, mean"),
    ],
)
def test_what_a_monitor_cannot_watch(
    stage: Stage, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        stage.monitor(**changes)
    assert not stage.timers
    assert stage.told() == [(PROGRAM, m.Unwatch(7))], "nobody is subscribed"


def test_a_monitor_cannot_take_part_in_the_watch_of_another_client(stage: Stage) -> None:
    stage.watches.subscribe(stage.sessions[2], m.Subscribe(1, 7))
    with pytest.raises(ClientError, match="a watch with this number is there already"):
        stage.monitor()
    assert stage.told() == [(2, TOLD)]


def test_monitors_cannot_keep_a_program_busy_with_watches_that_begin(stage: Stage) -> None:
    """They are so many at most, and begin one after the other; one that was ended before does not."""
    for number in range(limits.MONITOR_WATCHES):
        stage.monitor(number)
    with pytest.raises(Backpressure, match=r"a monitor may have 8 watches at a time, and all .* 32: end some"):
        stage.monitor(99)
    for number in range(100, 100 + limits.MONITORS_WATCHES - limits.MONITOR_WATCHES):
        session = stage.sessions[number] = SimpleNamespace(key=number)
        stage.monitor(number, session.key)
    with pytest.raises(Backpressure):
        stage.monitor(99, 2)
    stage.watches.client_lost(1)
    stage.monitor(99, 2)
    assert stage.ring() == [n * limits.MONITOR_WATCH_INTERVAL for n in range(limits.MONITORS_WATCHES + 1)]
    begun = [message.watch for _, message in stage.sent if isinstance(message, m.BeginWatch)]
    assert begun == [*range(100, 124), 99]
