"""Which of a controller's engines are ours, as they come, go, and come back to a controller that was killed."""

from __future__ import annotations

from ipmpi.launch.cluster.controllerends import RETURN
from ipmpi.launch.cluster.owncount import OwnCount


def count_beside(*others: int) -> OwnCount:
    count = OwnCount()
    count.others_are(others)
    return count


def test_only_changes_are_told() -> None:
    count = count_beside()
    assert [count.are(ids, 0.0) for ids in ([], [0], [0, 1], [0, 1], [1], [])] == [None, 1, 2, None, 1, 0]


def test_engines_of_others_do_not_count_whether_they_stay_or_go() -> None:
    count = count_beside(0, 1)
    assert [count.are(ids, 0.0) for ids in ([0, 1], [0, 1, 2, 3], [1, 2, 3], [2, 3])] == [None, 2, None, None]
    count.others_are([2, 3])
    assert count.are([2, 3], 0.0) is None, "whoever came first are the others, for ever"


def test_an_id_of_others_that_are_gone_may_become_ours() -> None:
    count = count_beside(0, 1)
    assert [count.are(ids, 0.0) for ids in ([0, 1], [0], [0, 1], [0, 1, 2])] == [None, None, 1, 2]


def test_engines_that_come_back_one_after_the_other_were_not_lost() -> None:
    count = count_beside(0, 1)
    assert count.are([0, 1, 2, 3], 0.0) == 2
    count.controller_is_away()
    assert count.are([], 5.0) is None
    count.controller_is_back(10.0)
    came = [count.are(ids, 11.0) for ids in ([], [1], [1, 3], [1, 2, 3], [0, 1, 2, 3])]
    assert came == [None] * 5
    assert count.are([0, 1, 2], 12.0) == 1, "a loss after they were back is told at once"


def test_engines_that_do_not_come_back_are_lost_after_a_while() -> None:
    count = count_beside(0)
    assert count.are([0, 1, 2], 0.0) == 2
    count.controller_is_back(10.0)
    assert count.are([0, 1], 10.0 + RETURN - 0.1) is None
    assert count.are([0, 1], count.waits_until) == 1
    assert count.are([0, 1, 2], 99.0) == 2
