from __future__ import annotations

import numpy as np
import pytest

from ipmpi.client.mapping import join, partition, partition_together


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 10])
def test_what_is_dealt_out_is_put_together_again(length: int, parts: int, dist: str) -> None:
    array = np.arange(length * 2).reshape(length, 2)
    assert join(partition(list(range(length)), parts, dist), dist) == list(range(length))
    assert join(partition(tuple(range(length)), parts, dist), dist) == list(range(length))
    assert np.array_equal(join(partition(array, parts, dist), dist), array)


def test_blocks_are_consecutive_and_the_first_ones_longer() -> None:
    assert partition(list(range(10)), 4) == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert partition("abcde", 2) == ["abc", "de"]
    assert partition((1, 2), 3) == [(1,), (2,), ()]


def test_round_robin_deals_one_item_at_a_time() -> None:
    assert partition(list(range(5)), 2, "r") == [[0, 2, 4], [1, 3]]


def test_iterables_and_dicts_are_dealt_out_as_lists() -> None:
    assert partition(iter("abc"), 2) == [["a", "b"], ["c"]]
    assert partition({"a": 1, "b": 2}, 2) == [["a"], ["b"]]
    assert sorted(join(partition({1, 2, 3}, 2))) == [1, 2, 3]


def test_an_unknown_distribution_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"'b' .blocks. or 'r' .round robin., not 'c'"):
        partition([1], 1, "c")


def test_parts_that_are_neither_arrays_nor_lists_stay_a_list_of_parts() -> None:
    assert join(["abc", "de"]) == ["abc", "de"]
    assert join([1, 2]) == [1, 2]
    assert join([]) == []


def test_flattened_parts_find_their_place() -> None:
    assert join([[0, 1], 2, 3]) == [0, 1, 2, 3]
    assert join([[0, 3], 1, 2], "r") == [0, 1, 2, 3]
    assert join([np.array([0, 1]), np.int64(2)]).tolist() == [0, 1, 2]


def test_sequences_that_are_dealt_out_together_leave_no_part_empty() -> None:
    assert partition_together([[1, 2], (3, 4)], 4) == [[[1], (3,)], [[2], (4,)]]
    assert partition_together([[]], 4) == []
    with pytest.raises(ValueError, match=r"all sequences must have equal length"):
        partition_together([[1, 2], [3]], 2)
