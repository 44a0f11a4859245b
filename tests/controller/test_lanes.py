"""What the controller passes on of a lane that was cut, and what it lets go of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.lanes import BulkLanes
from ipmpi.controller.lanetable import Lane, LaneState
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import MessageReceived
from ipmpi.transport.loop import Loop
from tests.controller.test_lanetable import CLIENT, PAIR, SET, made


class Splicer:
    """Notes which pairs are ended."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def end(self, number: int) -> None:
        self.ended.append(number)

    def close(self) -> None:
        pass


class Lanes:
    """The lanes of a controller, to which peers are numbers."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, m.AnyMessage]] = []
        self.lines: list[str] = []
        self.now = 0.0
        self.loop = Loop()
        self.loop.now = lambda: self.now  # type: ignore[method-assign]
        self.splicer = Splicer()
        self.bulk = BulkLanes(self.loop, {}, self._send, {}, self.lines.append)
        self.bulk._splicer = self.splicer  # type: ignore[assignment]
        self.table = self.bulk._table

    def _send(self, key: int, message: m.AnyMessage, body: Sequence[Any]) -> None:
        del body
        self.sent.append((key, message))

    def say(self, key: int, message: m.AnyMessage, body: bytes = b"") -> None:
        """A peer says something."""
        event = MessageReceived(message, [memoryview(body)] if body else [], 0)
        assert self.bulk.heard(SimpleNamespace(key=key), event)  # type: ignore[arg-type]

    def cut(self, now: float = 0.0) -> Lane:
        """A lane that was made and cut."""
        self.now = now
        lane = made(self.table, now=now)
        self.say(SET, m.LaneCut(lane.number, 0))
        self.say(CLIENT, m.LaneCut(lane.number, 0))
        self.sent.clear()
        return lane


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    running = Lanes()
    yield running
    running.bulk.close()
    running.loop.close()


@pytest.mark.parametrize("key", PAIR)
def test_what_no_honest_end_has_left_of_a_lane_ends_it(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch, key: int
) -> None:
    monkeypatch.setattr(limits, "LANE_REST", 10_000)
    lane = lanes.cut()
    other = lane.other(key)
    rest = m.LaneBytes(lane.number, [1000])
    for _ in range(10):
        lanes.say(key, rest, bytes(1000))
        lanes.say(other, rest, bytes(1000))
    assert lanes.sent == [(other, rest), (key, rest)] * 10
    lanes.sent.clear()
    lanes.say(key, m.LaneBytes(lane.number, [1]), b"x")
    assert lanes.sent == [(each, m.LaneOver(lane.number)) for each in lane.pair]
    assert lanes.lines == [
        "client 1 and engine set 2 have lost a bulk lane: one of them sends what it cannot have left"
    ]
    lanes.say(other, rest, bytes(1000))
    assert len(lanes.sent) == 2


def test_what_an_honest_end_has_left_may_pass() -> None:
    """All that is not acknowledged, and of each body that it has begun what there was credit for."""
    most = limits.LANE_UNACKNOWLEDGED + limits.CHUNK + limits.LANE_BODIES_SENT * limits.STREAM_WINDOW
    assert most * 1.01 < limits.LANE_REST < most * 1.1


def test_nothing_is_kept_of_a_lane_that_was_cut(lanes: Lanes) -> None:
    lane = lanes.table.begin(PAIR, 0.0)
    assert lane is not None
    lanes.bulk._waiting[lane.number] = [(SimpleNamespace(), 1)]  # type: ignore[list-item]
    found = lanes.table.accepted(SET, lane.number)
    assert found is not None
    for ticket in found[1:]:
        lanes.table.came(ticket, 0.0)
    lanes.say(SET, m.LaneCut(lane.number, 0))
    assert lane.state is LaneState.CUT
    assert lanes.splicer.ended == [lane.number]
    assert not lanes.bulk._waiting


def test_nothing_is_kept_of_lanes_that_were_cut_long_ago(lanes: Lanes) -> None:
    cut = []
    for number in range(6):
        cut.append(lanes.cut(number * limits.LANE_AGAIN_LONGEST * 2))
        lanes.bulk._waiting[cut[-1].number] = []
    assert len(lanes.table) == 4
    assert sorted(lanes.bulk._waiting) == [lane.number for lane in cut[2:]]


def test_the_other_end_hears_what_becomes_of_its_calls_before_it_hears_of_the_lane(lanes: Lanes) -> None:
    lane = made(lanes.table)
    lanes.bulk.session_ended(CLIENT)
    lanes.sent.append((SET, m.Notice("what else is sent in this turn")))
    lanes.loop.stop()
    lanes.loop.run()
    assert lanes.sent == [(SET, m.Notice("what else is sent in this turn")), (SET, m.LaneOver(lane.number))]
