from __future__ import annotations

import pytest

from ipmpi.client.display.ranksets import RankSet, label


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], "[]"),
        ([3], "[3]"),
        ([64, *range(63)], "[0-62, 64]"),
        (range(1024), "[0-1023]"),
        (range(0, 128, 2), "[0, 2, 4, ... 126 (64 in all)]"),
    ],
)
def test_a_label_names_ranks_in_a_few_characters(ids: list[int], text: str) -> None:
    assert label(ids) == text
    assert str(RankSet(ids)) == repr(RankSet(ids)) == text


def test_a_rank_set_is_the_same_however_it_was_made() -> None:
    assert {RankSet([2, 0, 2]): "x"}[RankSet([0, 2])] == "x"
    assert list(RankSet([2, 0, 2])) == [0, 2]
