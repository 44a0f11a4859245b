"""Tasks that wait at rank 0 and would not end before the job does."""

from __future__ import annotations

import pytest
from set_stage import Stage, brief, returned

from ipmpi.protocol import messages as m


@pytest.fixture
def stage() -> Stage:
    """Two ranks, whose job ends at 100."""
    stage = Stage(2)
    stage.farm.job_ends(100.0)
    return stage


def test_what_waits_too_long_goes_back(stage: Stage) -> None:
    stage.give(range(4), expected=30.0)
    stage.give([0], group=2)
    given = brief(stage.get(m.GiveTasks))
    assert sorted(given) == [0, 1]
    stage.now = 60.0
    assert returned(stage.said()) == []
    deadline = stage.farm.next_deadline()
    assert deadline is not None
    stage.now = 72.0
    assert deadline <= 72.0
    assert returned(stage.said()) == [([2, 3], -1, "taken")]
    stage.answer(0, given[0])
    others = [(message.group, message.ranks) for message in stage.get(m.GiveTasks)]
    assert others == [(2, [0])], "others go on"


def test_those_that_still_fit_stay(stage: Stage) -> None:
    stage.give(range(2))
    stage.give([5], group=2, expected=30.0)
    stage.give([6], group=3, expected=10.0)
    stage.said()
    stage.now = 72.0
    assert returned(stage.said()) == [([5], -1, "taken")]
    stage.now = 92.0
    assert returned(stage.said()) == [([6], -1, "taken")]


def test_tasks_on_several_ranks_go_back_too(stage: Stage) -> None:
    stage.give([0])
    stage.give([7], group=2, width=2, expected=30.0)
    stage.said()
    stage.now = 72.0
    assert returned(stage.said()) == [([7], -1, "taken")]
    stage.answer(0, [0])
    stage.give([1, 2])
    assert len(stage.get(m.GiveTasks)) == 2, "no rank is held any more"


def test_without_an_end_all_waits() -> None:
    stage = Stage(1)
    stage.give(range(3), expected=1e6)
    stage.said()
    stage.now = 1e9
    assert returned(stage.said()) == []
