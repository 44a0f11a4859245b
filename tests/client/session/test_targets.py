from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ipmpi.client.session.targets import choose, parse_block, parse_targets, select
from ipmpi.errors import InvalidEngineID, NoEnginesRegistered


@pytest.mark.parametrize(
    ("targets", "ids"),
    [(0, [0]), ([2, 0], [2, 0]), ((1,), [1]), ("all", None), (range(2), [0, 1]), (np.int64(3), [3]), ([], [])],
)
def test_targets_name_engines(targets: Any, ids: list[int] | None) -> None:
    assert parse_targets(targets) == ids


@pytest.mark.parametrize("targets", [None, 1.5, {1}, True, {}])
def test_targets_of_another_type_are_refused(targets: Any) -> None:
    with pytest.raises(ValueError, match=r"^targets must be a str, list, tuple or int: "):
        parse_targets(targets)


@pytest.mark.parametrize(("targets", "shown"), [("0", "'0'"), (["a"], r"\['a'\]"), ([1.0], r"\[1.0\]")])
def test_targets_with_something_else_than_ids_are_refused(targets: Any, shown: str) -> None:
    with pytest.raises(
        InvalidEngineID, match=rf"^targets argument is not an int, list of ints or 'all': {shown}$"
    ):
        parse_targets(targets)


def test_an_engine_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"names an engine twice"):
        parse_targets([0, 0])


def test_block_is_true_or_false() -> None:
    assert parse_block(False) is False
    for wrong in (1, 0, None, "yes"):
        with pytest.raises(ValueError, match=r"^block must be True or False: "):
            parse_block(wrong)


def test_engines_that_are_not_there_are_named() -> None:
    assert choose(None, [0, 1]) == [0, 1]
    assert choose([1], [0, 1]) == [1]
    with pytest.raises(InvalidEngineID, match=r"^engine with id 88 does not exist$"):
        choose([0, 88], [0, 1])
    with pytest.raises(NoEnginesRegistered, match=r"^There are no engines registered.*Check the logs"):
        choose(None, [])


def test_an_index_selects_by_id_or_counts_through_the_present_ids() -> None:
    def registered() -> list[int]:
        return [0, 1, 4, 5]

    assert select(4, registered) == [4]
    assert select(-1, registered) == [5]
    assert select(slice(1, 3), registered) == [1, 4]
    assert select([1, -1], registered) == [1, 5]
    with pytest.raises(IndexError, match=r"-5 is out of range: there are 4 engines"):
        select(-5, registered)
    with pytest.raises(TypeError, match=r"__getitem__ only takes strs"):
        select(1.5, registered)


def test_a_plain_id_asks_nobody() -> None:
    def registered() -> list[int]:
        raise AssertionError("asked")

    assert select(7, registered) == [7]
    assert select([0, 2], registered) == [0, 2]
