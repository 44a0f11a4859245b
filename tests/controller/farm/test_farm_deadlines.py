"""Tasks with expected= and sets whose jobs end."""

from __future__ import annotations

import pytest
from farm_stage import OTHER, SET, Stage

from ipmpi import limits
from ipmpi.controller.farm.sets import rounded_up
from ipmpi.protocol import messages as m


@pytest.fixture
def stage() -> Stage:
    """A set of two ranks whose job ends in 100 s."""
    stage = Stage()
    stage.add_set(SET, 2)
    stage.farm.job_ends(SET, 100.0)
    stage.flush()
    return stage


def notices(stage: Stage) -> list[str]:
    return [message.text for _, message in stage.to_client if isinstance(message, m.Notice)]


def test_what_fits_is_given_and_what_does_not_waits(stage: Stage) -> None:
    stage.submit(1, expected=200.0)
    stage.submit(2, expected=50.0)
    assert list(stage.given[SET]) == [(2, 0)]
    stage.submit(3)
    assert list(stage.given[SET]) == [(2, 0), (3, 0)], "others overtake it"
    stage.flush(limits.UNSCHEDULABLE_AFTER * 3)
    assert stage.end(1) is None, "it waits for another set, as long as it takes"


def test_as_time_passes_less_fits(stage: Stage) -> None:
    stage.flush(60.0)
    stage.submit(1, expected=50.0)
    stage.submit(2, expected=30.0)
    assert list(stage.given[SET]) == [(2, 0)]


def test_another_set_takes_it(stage: Stage) -> None:
    stage.submit(1, [b"a"] * 3, expected=200.0)
    assert not stage.given[SET]
    stage.add_set(OTHER, 4)
    assert list(stage.given[OTHER]) == [(1, 0), (1, 1), (1, 2)]
    stage.answer(OTHER, [(1, 0), (1, 1), (1, 2)])
    stage.check_empty()


def test_without_an_end_everything_fits() -> None:
    stage = Stage()
    stage.add_set(SET, 1)
    stage.submit(1, expected=1e9)
    assert list(stage.given[SET]) == [(1, 0)]
    stage.answer(SET, [(1, 0)])
    stage.farm.job_ends(SET, None)
    stage.submit(2, expected=1e9)
    assert list(stage.given[SET]) == [(2, 0)]


def test_a_task_that_comes_back_too_late_for_its_set_waits(stage: Stage) -> None:
    stage.submit(1, expected=50.0, retries=1)
    stage.flush(70.0)
    stage.answer(SET, [(1, 0)], failed=[(1, 0)])
    assert not stage.given[SET]
    stage.add_set(OTHER, 1)
    assert list(stage.given[OTHER]) == [(1, 0)]


def test_the_client_is_told_once_what_it_waits_for(stage: Stage) -> None:
    stage.submit(1, [b"a"] * 3, expected=200.0)
    stage.submit(2, expected=200.0)
    stage.flush(1.0)
    assert notices(stage) == [
        "f1, expected to take 200 s, waits for other engines: the jobs of the present ones end before"
    ]


def test_what_waits_can_be_cancelled(stage: Stage) -> None:
    stage.submit(1, expected=200.0)
    stage.abort(1)
    end = stage.end(1)
    assert end is not None
    assert end.kind == "TaskAborted"
    stage.check_empty()


def test_tasks_are_not_moved_to_where_they_do_not_fit() -> None:
    """Else they would go to and fro: back from the set that has too many, and there again."""
    stage = Stage()
    stage.add_set(SET, 1, window=10)
    stage.submit(1, [b"a"] * 5, expected=200.0)
    stage.add_set(OTHER, 1)
    stage.farm.job_ends(OTHER, 100.0)
    stage.to_set.clear()
    stage.flush(1.0)
    assert stage.told_set(m.TakeBackTasks) == []
    stage.farm.job_ends(OTHER, 1000.0)
    stage.flush(2.0)
    assert stage.told_set(m.TakeBackTasks) == [(SET, m.TakeBackTasks(2))]


def test_a_lost_set_is_forgotten(stage: Stage) -> None:
    stage.lose_set(SET)
    stage.submit(1, expected=500.0)
    stage.add_set(SET, 1)
    assert list(stage.given[SET]) == [(1, 0)], "it is another job"


@pytest.mark.parametrize("seconds", [1.0, 1.5, 7.0, 59.0, 60.0, 3599.0, 3600.0, 86_400.0, 1e9])
def test_seconds_are_rounded_up_a_little(seconds: float) -> None:
    assert seconds <= rounded_up(seconds) <= seconds * (1 + 1 / 32)


def test_there_are_few_numbers_of_seconds() -> None:
    assert rounded_up(None) == rounded_up(0.0) == 0.0
    assert rounded_up(1e-9) == rounded_up(0.9) == 1.0
    assert len({rounded_up(1 + n / 10) for n in range(10 * 86_400)}) < 600
