"""How long single tasks wait for others before they are sent."""

from __future__ import annotations

import pytest

from ipmpi.client.tasks.pace import GATHER, GATHER_LONGEST, Pace


def test_a_task_after_a_while_is_sent_at_once() -> None:
    pace = Pace()
    pace.under_way = 10**6
    pace.flushed(5.0)
    assert pace.wait(5.0 + 1.01 * GATHER_LONGEST) == 0.0


@pytest.mark.parametrize(
    ("under_way", "seconds"), [(0, GATHER), (999, GATHER), (5_000, 0.005), (10**6, GATHER_LONGEST)]
)
def test_the_more_tasks_wait_the_longer_others_are_collected(under_way: int, seconds: float) -> None:
    pace = Pace()
    pace.under_way = under_way
    pace.flushed(5.0)
    assert pace.wait(5.0005) == pytest.approx(seconds)
