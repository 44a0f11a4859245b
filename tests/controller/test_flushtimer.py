"""The timer of the controller's effects: set anew only for an earlier time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipmpi.controller.flushtimer import FlushTimer
from ipmpi.transport.loop import Call, Loop, OnError, Timer


class RecordingLoop(Loop):
    """Says which timers were set."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def call_at(self, when: float, call: Call, on_error: OnError | None = None) -> Timer:
        self.times.append(when)
        return super().call_at(when, call, on_error)


@pytest.fixture
def loop() -> Iterator[RecordingLoop]:
    loop = RecordingLoop()
    yield loop
    loop.close()


def test_only_an_earlier_time_sets_it_anew(loop: RecordingLoop) -> None:
    timer = FlushTimer(loop, loop.stop, loop.report)
    soon = loop.now() + 0.01
    for when in (soon + 60, soon + 60, None, soon + 70, soon, soon, soon + 60):
        timer.set(when)
    assert loop.times == [soon + 60, soon]
    loop.run()
    assert loop.now() >= soon
    timer.set(soon + 60)
    assert loop.times == [soon + 60, soon, soon + 60]
