"""Which lanes there are, which tickets are good, and when a lane is tried again."""

from __future__ import annotations

import itertools
import random

import pytest

from ipmpi import limits
from ipmpi.controller.lanetable import Lane, LaneState, LaneTable

CLIENT, SET, OTHER = 1, 2, 3
PAIR = (CLIENT, SET)


def made(table: LaneTable, pair: tuple[int, int] = PAIR, now: float = 0.0) -> Lane:
    """A lane that is up."""
    lane = table.begin(pair, now)
    assert lane is not None
    accepted = table.accepted(pair[1], lane.number)
    assert accepted is not None
    for ticket in accepted[1:]:
        assert table.came(ticket, now) is not None
    assert table.is_ready(pair[0], lane.number) is None
    assert table.is_ready(pair[1], lane.number) is lane
    return lane


def test_a_lane_is_made_step_by_step() -> None:
    table = LaneTable()
    lane = table.begin(PAIR, 0.0)
    assert lane is not None
    assert table.begin(PAIR, 0.0) is None
    found = table.accepted(SET, lane.number)
    assert found is not None
    of_client, of_set = found[1:]
    assert table.is_ready(CLIENT, lane.number) is None
    assert table.is_ready(SET, lane.number) is None, "nobody has come"
    assert table.came(of_set, 0.0) == (lane, SET)
    assert table.came(of_client, 0.0) == (lane, CLIENT)
    assert table.is_ready(SET, lane.number) is lane
    assert lane.state is LaneState.UP
    assert table.current(PAIR) is lane


@pytest.mark.parametrize("who", [CLIENT, OTHER])
def test_only_the_set_that_was_asked_accepts(who: int) -> None:
    table = LaneTable()
    lane = table.begin(PAIR, 0.0)
    assert lane is not None
    assert table.accepted(who, lane.number) is None
    assert table.accepted(SET, lane.number + 1) is None
    assert table.accepted(SET, lane.number) is not None
    assert table.accepted(SET, lane.number) is None, "twice"


def test_tickets_are_good_once_and_for_a_moment() -> None:
    table = LaneTable()
    lane = table.begin(PAIR, 0.0)
    assert lane is not None
    found = table.accepted(SET, lane.number)
    assert found is not None
    assert len(set(found[1:])) == 2
    assert table.came(bytes(32), 1.0) is None
    assert table.came(found[1], 1.0) is not None
    assert table.came(found[1], 1.0) is None
    assert table.came(found[2], limits.LANE_MADE) is None
    assert table.overdue(limits.LANE_MADE - 0.1) == []
    assert table.overdue(limits.LANE_MADE) == [lane]
    assert table.current(PAIR) is None
    assert len(table) == 0


def test_what_fails_is_tried_again_later_and_later() -> None:
    table, now, pauses = LaneTable(), 0.0, []
    for _ in range(12):
        lane = table.begin(PAIR, now)
        assert lane is not None
        assert table.failed(SET, lane.number, now) is lane
        begin = now
        while table.begin(PAIR, now) is None:
            now += 1.0
        pauses.append(now - begin)
        again = table.current(PAIR)
        assert again is not None
        table.failed(SET, again.number, now)
        now += 2 * limits.LANE_AGAIN_LONGEST
    assert pauses == sorted(pauses)
    assert pauses[0] == limits.LANE_AGAIN
    assert pauses[-1] == limits.LANE_AGAIN_LONGEST


def test_a_lane_that_works_is_forgiven_what_failed_before() -> None:
    table = LaneTable()
    lane = made(table)
    assert table.cut(CLIENT, lane.number, 0.0) == (lane, [])
    assert table.current(PAIR) is None
    lane = made(table, now=limits.LANE_AGAIN)
    table.cut(CLIENT, lane.number, 100.0)
    assert table.begin(PAIR, 100.0 + limits.LANE_AGAIN) is not None


def test_both_ends_say_that_it_was_cut_and_others_do_not() -> None:
    table = LaneTable()
    lane = made(table)
    assert table.cut(OTHER, lane.number, 0.0) is None
    assert table.cut(CLIENT, lane.number, 0.0) == (lane, [])
    assert table.cut(SET, lane.number, 0.0) == (lane, [])
    assert table.failed(SET, lane.number, 0.0) is None, "it was made"
    assert lane.other(SET) == CLIENT


@pytest.mark.parametrize("is_cut", [False, True], ids=["up", "cut"])
def test_an_end_may_give_a_lane_up_that_was_made(is_cut: bool) -> None:
    table = LaneTable()
    lane = made(table)
    if is_cut:
        table.cut(SET, lane.number, 0.0)
    assert table.given_up(OTHER, lane.number, 0.0) is None
    assert table.given_up(CLIENT, lane.number, 0.0) is lane
    assert len(table) == 0
    assert table.given_up(SET, lane.number, 0.0) is None
    assert table.begin(PAIR, 0.0) is None, "for a moment"
    assert table.begin(PAIR, limits.LANE_AGAIN) is not None


def test_a_lane_that_is_not_made_cannot_be_given_up_but_fails() -> None:
    table = LaneTable()
    lane = table.begin(PAIR, 0.0)
    assert lane is not None
    assert table.given_up(CLIENT, lane.number, 0.0) is None
    assert table.failed(CLIENT, lane.number, 0.0) is lane


def test_a_lane_that_is_not_made_cannot_be_cut() -> None:
    table = LaneTable()
    lane = table.begin(PAIR, 0.0)
    assert lane is not None
    assert table.cut(CLIENT, lane.number, 0.0) is None
    assert table.current(PAIR) is lane


def test_few_lanes_that_were_cut_are_remembered() -> None:
    table, forgotten, now = LaneTable(), [], 0.0
    for _ in range(10):
        now += 2 * limits.LANE_AGAIN_LONGEST
        lane = made(table, now=now)
        found = table.cut(SET, lane.number, now)
        assert found is not None
        forgotten += [old.number for old in found[1]]
    assert forgotten == [1, 2, 3, 4, 5, 6]
    assert len(table) == 4


def test_there_are_not_too_many() -> None:
    table = LaneTable()
    mine = [table.begin((CLIENT, number), 0.0) for number in range(10, 10 + limits.LANES_OF_CLIENT)]
    assert None not in mine
    assert table.begin((CLIENT, 9), 0.0) is None
    others = itertools.count(100)
    while table.begin((next(others), 10), 0.0) is not None:
        pass
    assert len(table) == limits.LANES


@pytest.mark.parametrize("key", PAIR)
def test_the_end_of_a_session_is_that_of_its_lanes(key: int) -> None:
    table = LaneTable()
    lane, other = made(table), made(table, (OTHER, 4))
    assert table.ended(key) == [lane]
    assert table.current(PAIR) is None
    assert table.current((OTHER, 4)) is other
    assert table.begin(PAIR, 0.0) is not None


def test_nothing_that_peers_say_breaks_it() -> None:
    source = random.Random(3)
    table, tickets, now = LaneTable(), [bytes(32)], 0.0
    for _ in range(3000):
        now += source.random() * 5
        key, number = source.choice([CLIENT, SET, OTHER, 4]), source.randrange(1, table._next + 1)
        step = source.randrange(8)
        if step == 0:
            table.begin(source.choice([PAIR, (OTHER, SET), (OTHER, 4)]), now)
        elif step == 1 and (found := table.accepted(key, number)) is not None:
            tickets += found[1:]
        elif step == 2:
            table.came(source.choice(tickets), now)
        elif step == 3:
            table.is_ready(key, number)
        elif step == 4:
            table.cut(key, number, now)
        elif step == 5:
            table.failed(key, number, now)
        elif step == 6:
            table.given_up(key, number, now)
        else:
            table.overdue(now)
        assert len(table) <= 3 + 3 * 4
        assert all(lane.state is not LaneState.CUT for lane in table._current.values())
