"""What rank 0 does about the end of the job, and when."""

from __future__ import annotations

import pytest

from ipmpi.engine.agent.ending import Call, JobDeadline


@pytest.fixture
def ending() -> JobDeadline:
    """A job that ends at 1000; ranks 0 and 1 save 120 s before."""
    ending = JobDeadline()
    ending.ends_at = 1000.0
    ending.add(b"k", "save", 120.0, [0])
    ending.add(b"k", "save", 120.0, [1])
    return ending


SAVE = Call(b"k", "save", [0, 1])


def test_it_is_asked_for_once_when_its_time_has_come(ending: JobDeadline) -> None:
    assert ending.next_deadline(0) == 880
    assert ending.due(879) == []
    assert ending.due(880) == [SAVE]
    assert ending.due(881) == []
    ending.told(b"k", [0, 1])
    assert ending.next_deadline(881) is None
    assert ending.overdue(999) == []


def test_a_warning_makes_all_due(ending: JobDeadline) -> None:
    ending.add(b"q", "quick", 5.0, [0])
    assert ending.due(10, warned=True) == [SAVE, Call(b"q", "quick", [0])]
    assert ending.due(880) == []


def test_a_warning_is_enough_where_the_end_is_not_known() -> None:
    ending = JobDeadline()
    ending.add(b"k", "save", 120.0, [0, 1])
    assert ending.next_deadline(1e9) is None
    assert ending.due(1e9) == []
    assert ending.due(5, warned=True) == [SAVE]


def test_ranks_that_get_it_late_are_asked_for_by_themselves(ending: JobDeadline) -> None:
    assert ending.due(900) == [SAVE]
    ending.add(b"k", "save", 120.0, [2])
    assert ending.due(901) == [Call(b"k", "save", [2])]


def test_a_new_controller_is_asked_for_what_the_old_one_did_not_do(ending: JobDeadline) -> None:
    ending.due(900)
    ending.told(b"k", [1])
    ending.ask_again()
    assert ending.due(901) == [Call(b"k", "save", [0])]


def test_when_half_of_the_time_is_gone_the_set_does_without_the_controller(ending: JobDeadline) -> None:
    ending.due(880)
    assert ending.overdue(939) == []
    assert ending.next_deadline(881) == 940
    assert ending.overdue(940) == [SAVE]
    ending.told(b"k", [0])
    assert ending.overdue(941) == [Call(b"k", "save", [1])]


def test_a_controller_that_goes_later_is_noticed_too(ending: JobDeadline) -> None:
    ending.due(880)
    after = ending.next_deadline(950)  # it was there at 940
    assert after is not None
    assert 950 < after <= 960
    assert ending.next_deadline(1000) is None
    ending.told(b"k", [0, 1])
    assert ending.next_deadline(950) is None
