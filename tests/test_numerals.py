from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies as st

from ipmpi.numerals import masked, with_ranges


def shown(*texts: str) -> str:
    assert len(set(map(masked, texts))) == 1, "they are not alike"
    return with_ranges(list(enumerate(texts)))


def test_one_number_gets_its_range_mean_and_ranks() -> None:
    assert shown("residual = 2e-06", "residual = 1.2e-06", "residual = 3.4e-06") == (
        "residual = 1.2e-06 .. 3.4e-06 (mean 2.2e-06, min: rank 1, max: rank 2)"
    )
    assert shown("took 2.5 s", "took 1.5 s") == "took 1.5 .. 2.5 s (mean 2, min: rank 1, max: rank 0)"


def test_several_numbers_get_each_its_own() -> None:
    assert shown("step 7: a=1 b=10", "step 7: a=2 b=5") == (
        "step 7: a=1 .. 2 (mean 1.5, min: rank 0, max: rank 1) b=5 .. 10 (mean 7.5, min: rank 1, max: rank 0)"
    )


def test_the_ranks_own_numbers_need_no_statistics() -> None:
    assert shown("I am 0 of 3", "I am 1 of 3", "I am 2 of 3") == "I am 0 .. 2 of 3"
    assert shown("rank0\nready", "rank1\nready") == "rank0 .. 1\nready"


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (("x nan", "x 1.5", "x 2.5"), "x 1.5 .. 2.5 (mean 2, min: rank 1, max: rank 2, nan: rank 0)"),
        (("x nan", "x nan", "x 2.5"), "x 2.5 (nan: 2 ranks, first 0)"),
        (("x -inf", "x 1", "x +inf"), "x -inf .. +inf (min: rank 0, max: rank 2)"),
        (("x -3", "x 4"), "x -3 .. 4 (mean 0.5, min: rank 0, max: rank 1)"),
        (("at 0x7f01", "at 0x7f02"), "at 0x.."),
        (("at 0x10", "at 17"), "at 0x10 .. 17 (mean 16.5, min: rank 0, max: rank 1)"),
        (("n    7", "n   17"), "n    7 .. 17 (mean 12, min: rank 0, max: rank 1)"),
        (("3-4", "3-5"), "3-4 .. 5 (mean 4.5, min: rank 0, max: rank 1)"),
        (("same 1e5", "same 1e5"), "same 1e5"),
        (("x 1.0", "x 1.00"), "x 1.0"),
    ],
)
def test_kinds_of_numbers(texts: tuple[str, ...], text: str) -> None:
    assert shown(*texts) == text


@pytest.mark.parametrize(
    ("one", "other"), [("a 1", "b 1"), ("1 2", "1"), ("infinite", "inf"), ("1\n", "1"), ("x", "")]
)
def test_texts_that_differ_otherwise_are_not_alike(one: str, other: str) -> None:
    assert masked(one) != masked(other)


@given(st.lists(st.floats() | st.integers(), min_size=1), st.lists(st.floats() | st.integers(), min_size=1))
def test_any_numbers_are_alike_and_shown(one: list[float], other: list[float]) -> None:
    some = min(len(one), len(other))
    texts = [" ".join(map(str, numbers[:some])) for numbers in (one, other)]
    assert masked(texts[0]) == masked(texts[1])
    assert with_ranges(list(enumerate(texts)))


def test_many_ranks_cost_little() -> None:
    texts = [(rank, f"rank {rank:4d}: residual = {rank * 1e-6}") for rank in range(1024)]
    begun = time.perf_counter()
    assert len({masked(text) for _, text in texts}) == 1
    assert "1e-06" not in with_ranges(texts)[:20]
    assert time.perf_counter() - begun < 0.5
