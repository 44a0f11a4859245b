"""How long tasks take, as a set learns it from reports."""

from __future__ import annotations

import math

import pytest

from ipmpi.engine.farm.runtimes import RuntimeEstimate


def test_one_report_of_few_tasks_does_not_outweigh_the_thousands_before() -> None:
    runtime = RuntimeEstimate()
    for _ in range(10):
        runtime.learn(0.005, 1000)
    assert runtime.seconds == pytest.approx(5e-6)
    runtime.learn(0.010, 5)  # one of them waited for a processor
    assert runtime.seconds is not None
    assert runtime.seconds < 1e-5


@pytest.mark.parametrize(("before", "now", "ranks"), [(1e-6, 10.0, 1), (1e-5, 0.06, 16)])
def test_two_reports_of_tasks_that_take_much_longer_are_enough(before: float, now: float, ranks: int) -> None:
    runtime = RuntimeEstimate()
    for _ in range(100):
        runtime.learn(1000 * before, 1000, ranks)
    runtime.learn(now, 1, ranks)
    runtime.learn(now, 1, ranks)
    assert runtime.seconds == pytest.approx(now)


def test_two_late_reports_with_ordinary_ones_between_them_change_little() -> None:
    runtime = RuntimeEstimate()
    runtime.learn(0.05, 50_000)
    for _ in range(3):
        runtime.learn(0.010, 5)
        runtime.learn(0.001, 1000)
    assert runtime.seconds is not None
    assert runtime.seconds < 1e-5


def test_tasks_that_take_longer_now_are_known_within_a_second_of_work() -> None:
    runtime = RuntimeEstimate()
    runtime.learn(0.05, 50_000)
    for _ in range(100):
        runtime.learn(0.010, 10)
    assert runtime.seconds == pytest.approx(0.001, rel=0.1)


def test_of_short_and_long_tasks_the_mean_counts() -> None:
    runtime = RuntimeEstimate()
    for _ in range(50):
        runtime.learn(0.000_1, 10)
        runtime.learn(0.001, 10)
    assert runtime.seconds == pytest.approx(0.000_055, rel=0.2)


def test_work_of_many_ranks_is_forgotten_as_slowly_as_that_of_one() -> None:
    runtime = RuntimeEstimate()
    for _ in range(16):
        runtime.learn(0.05, 50_000, ranks=16)
    runtime.learn(0.05, 50, ranks=16)
    assert runtime.seconds is not None
    assert runtime.seconds < 2e-6


@pytest.mark.parametrize("busy", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_does_no_harm(busy: float) -> None:
    runtime = RuntimeEstimate(0.5)
    runtime.learn(busy, 1)
    runtime.learn(0.01, 1)
    assert runtime.seconds is not None
    assert 0 < runtime.seconds <= 0.5


def test_what_is_expected_replaces_what_was_learnt() -> None:
    runtime = RuntimeEstimate()
    assert runtime.seconds is None
    assert runtime.seconds_of(3) == math.inf
    runtime.learn(0.05, 50_000)
    runtime.expect(2.0)
    assert runtime.seconds == pytest.approx(2.0)
    assert runtime.seconds_of(3) == pytest.approx(6.0)
