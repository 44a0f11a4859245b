"""Submitting a task a second time."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from fake_farm import FakeFarm

from ipmpi.client import MapTask, StringTask, TaskClient
from ipmpi.errors import Backpressure, ClientError
from ipmpi.protocol import messages as m


class Table:
    """An argument that can be referred to weakly."""


def second_time(path: str, value: Any, *, factor: int = 1) -> Any:
    """Fail the first time."""
    if not Path(path).exists():
        Path(path).touch()
        raise OSError("the first time")
    return value * factor


def test_a_failed_call_is_made_again_with_its_arguments_and_options(
    tc: TaskClient, farm: FakeFarm, tmp_path: Path
) -> None:
    value = tc.submit(abs, -3)
    first = tc.submit(second_time, str(tmp_path / "a"), value, factor=5, priority=7, after=value)
    assert isinstance(first.exception(), OSError)
    second = tc.resubmit(first)
    assert second.result() == 15
    assert isinstance(first.exception(), OSError)
    options = [message.options for message in farm.sent if isinstance(message, m.SubmitTasks)]
    assert [each.priority for each in options] == [0, 7, 7]


def test_calls_of_views_and_cancelled_ones_too(tc: TaskClient, farm: FakeFarm) -> None:
    farm.held = True
    first = tc.options(retries=3).submit(abs, -1)
    assert first.cancel()
    second = tc.resubmit(first)
    third = tc.resubmit(second)  # which still waits
    farm.work()
    assert second.result() == third.result() == 1


def test_a_task_with_an_id_gets_another_one(tc: TaskClient) -> None:
    first = tc.run(StringTask("c = b + 1", push={"b": 5}, pull="c"))
    second = tc.resubmit(first)
    assert (first, second) == (0, 1)
    assert tc.get_task_result(second, block=True)["c"] == 6
    assert tc.get_task_result(tc.resubmit(second), block=True)["c"] == 6


def test_recovery_tasks_belong_to_it(tc: TaskClient, farm: FakeFarm) -> None:
    first = tc.run(StringTask("1/0", recovery_task=MapTask(abs, (-5,))))
    assert tc.get_task_result(first, block=True) == 5
    tries = len(farm.tries)
    assert tc.get_task_result(tc.resubmit(first), block=True) == 5
    assert len(farm.tries) == 2 * tries


def test_arguments_are_kept_until_the_task_has_succeeded(tc: TaskClient, farm: FakeFarm) -> None:
    farm.held = True
    table = Table()
    kept = weakref.ref(table)
    future = tc.submit(bool, table)
    del table
    gc.collect()
    assert kept() is not None
    farm.work()
    gc.collect()
    assert kept() is None
    assert future.result() is True
    with pytest.raises(
        ClientError,
        match=r"<TaskFuture of bool: done> cannot be submitted again: the arguments of a task are kept until it "
        r"has succeeded\. Call submit\(\) with its function and arguments",
    ):
        tc.resubmit(future)


def test_a_result_that_comes_at_once_drops_the_arguments_too(tc: TaskClient) -> None:
    with pytest.raises(ClientError, match="cannot be submitted again"):
        tc.resubmit(tc.submit(abs, -1))


def test_a_refusal_that_comes_at_once_keeps_them(tc: TaskClient, farm: FakeFarm) -> None:
    farm.refusal = Backpressure("too many tasks")
    refused = tc.submit(abs, -1)
    assert isinstance(refused.exception(), Backpressure)
    farm.refusal = None
    assert tc.resubmit(refused).result() == 1


def test_what_is_no_task_is_refused(tc: TaskClient) -> None:
    with pytest.raises(IndexError, match="task ID not registered: 5"):
        tc.resubmit(5)
