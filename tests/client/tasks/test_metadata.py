"""When tasks were submitted and ended, and on which engine."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from fake_farm import FakeFarm

from ipmpi.client import StringTask, TaskClient


def check(told: dict[str, Any], status: str, engine: int | None) -> None:
    assert (told["status"], told["engine_id"]) == (status, engine)
    assert told["submitted"] <= told["completed"] <= datetime.now(timezone.utc)
    assert told["duration"] == pytest.approx((told["completed"] - told["submitted"]).total_seconds(), abs=1e-5)


def test_of_a_future(tc: TaskClient, farm: FakeFarm) -> None:
    farm.held = True
    future = tc.submit(abs, -1)
    told = future.metadata
    assert told.pop("submitted") == future.started
    assert set(told) == {"engine_id", "completed", "duration", "status"}
    assert set(told.values()) == {None}
    assert (future.progress, future.wall_time, future.completed) == (0, None, None)
    assert future.elapsed >= 0
    farm.work()
    check(future.metadata, "ok", future.engine)
    assert future.engine is not None
    assert future.progress == 1
    assert future.wall_time == future.elapsed == future.metadata["duration"]


def test_of_failed_and_cancelled_futures(tc: TaskClient, farm: FakeFarm) -> None:
    failed = tc.submit(abs, "x")
    check(failed.metadata, "error", failed.engine)
    with pytest.raises(TypeError):
        failed.result()
    check(failed.metadata, "error", failed.engine)
    farm.held = True
    cancelled = tc.submit(abs, -1)
    assert cancelled.cancel()
    check(cancelled.metadata, "cancelled", None)


def test_of_a_task_result(tc: TaskClient) -> None:
    result = tc.run(StringTask("a = 1"), block=True)
    check(result.metadata, "ok", result.engineid)
    assert result.elapsed == result.wall_time == result.duration == result.metadata["duration"]
    check(tc.run(StringTask("1/0"), block=True).metadata, "error", 1 - result.engineid)


def test_of_map_results(tc: TaskClient, farm: FakeFarm) -> None:
    farm.held = True
    results = tc.imap(abs, [-1, "x", -3])
    assert (results.progress, results.wall_time) == (0, None)
    for task in farm.start(2):
        farm.finish(task)
    assert (results.progress, results.wall_time) == (2, None)
    farm.work()
    assert results.progress == 3
    assert results.wall_time == results.elapsed
