"""The task farm on real ranks: what it promises, under each MPI."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy
import pytest

from ipmpi import client, errors
from ipmpi.client import MapTask, StringTask
from ipmpi.protocol import messages

if TYPE_CHECKING:
    from real_clusters import Cluster

    from ipmpi.client import MultiEngineClient, TaskClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

# Engines cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def mec(cluster: Cluster) -> MultiEngineClient:
    mec = cluster.mec()
    mec.reset()
    return mec


@pytest.fixture
def tc(cluster: Cluster, mec: MultiEngineClient) -> TaskClient:
    return cluster.tc()


@pytest.fixture
def ids(cluster: Cluster, mec: MultiEngineClient) -> dict[int, int]:
    """The engine of each process."""
    return {pid: rank for rank, pid in cluster.pids(mec).items()}


def square(x: int) -> int:
    return x * x


def pause(seconds: float) -> int:
    """Take a while; returns the process that did."""
    time.sleep(seconds)
    return os.getpid()


def wait_for_file(path: str) -> str:
    """Run until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


def touch_and_sleep(path: str, seconds: float) -> None:
    Path(path).touch()
    time.sleep(seconds)


def note(path: str, text: str) -> None:
    """Append to a file in one step."""
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def test_map_gives_every_result_in_its_place(tc: TaskClient) -> None:
    assert tc.map(square, range(20_000)) == [x * x for x in range(20_000)]
    assert tc.map(lambda a, b: (a, b), "abc", range(3)) == [("a", 0), ("b", 1), ("c", 2)]
    assert tc.map(lambda x: None, range(100)) == [None] * 100
    assert tc.map(square, []) == []


def test_map_raises_what_the_first_failing_item_raised(tc: TaskClient) -> None:
    def reciprocal(x: int) -> float:
        return 1 / x

    with pytest.raises(ZeroDivisionError) as info:
        tc.map(reciprocal, [3, 2, 1, 0, 1, 0])
    assert "in reciprocal" in info.value._ipython_traceback_text  # type: ignore[attr-defined]
    assert "in reciprocal" in str(info.value.__cause__), "Python shows it above the exception"


def test_all_ranks_share_the_work(tc: TaskClient, ids: dict[int, int]) -> None:
    engines = [ids[pid] for pid in tc.map(pause, [0.01] * 200)]
    assert set(engines) == {0, 1, 2, 3}
    assert max(engines.count(e) for e in range(4)) < 80


def test_arrays_large_and_small_travel_both_ways(tc: TaskClient) -> None:
    small, large = numpy.arange(100.0), numpy.random.default_rng(7).random(400_000)
    futures = [tc.submit(lambda a, k: a * k, array, k) for array in (small, large) for k in range(4)]
    results = tc.gather(futures)
    for k in range(4):
        assert numpy.array_equal(results[k], small * k)
        assert numpy.array_equal(results[4 + k], large * k)
        assert results[4 + k].flags.writeable


def test_futures_are_futures(tc: TaskClient) -> None:
    futures = [tc.submit(square, x) for x in range(50)]
    assert {f.result() for f in client.as_completed(futures, timeout=30)} == {x * x for x in range(50)}
    assert all(f.engine in range(4) for f in futures)
    failing = tc.submit(lambda: {}["key"])
    assert isinstance(failing.exception(timeout=30), KeyError)

    async def both() -> list[int]:
        return list(await asyncio.gather(*[asyncio.wrap_future(tc.submit(square, x)) for x in range(5)]))

    async def awaited() -> Any:
        return await tc.submit(square, 12)

    assert asyncio.run(both()) == [0, 1, 4, 9, 16]
    assert asyncio.run(awaited()) == 144


def test_commands_and_tasks_share_the_engines(mec: MultiEngineClient, tc: TaskClient) -> None:
    futures = [tc.submit(time.sleep, 0.002) for _ in range(400)]
    for step in range(20):
        mec.execute(f"total = mpi.COMM_WORLD.allreduce({step})")
        assert mec.pull("total") == [4 * step] * 4
    tc.gather(futures)


def test_a_task_waits_for_those_it_comes_after(tc: TaskClient, tmp_path: Any) -> None:
    go, order = str(tmp_path / "go"), str(tmp_path / "order")

    first = tc.submit(wait_for_file, go)
    second = tc.submit(note, order, "second ", after=[first])
    third = tc.submit(note, order, "third", after=[first, second])
    tc.submit(note, order, "free ").result(timeout=30)
    Path(go).touch()
    third.result(timeout=30)
    assert Path(order).read_text() == "free second third"


def test_a_task_follows_another_to_its_engine(tc: TaskClient) -> None:
    parents = [tc.submit(pause, 0.01) for _ in range(20)]
    children = [tc.submit(os.getpid, follow=parent) for parent in parents]
    assert tc.gather(children) == tc.gather(parents)


def test_futures_as_arguments_give_their_values(tc: TaskClient) -> None:
    total = tc.submit(lambda a, b, *, c: a + b + c, tc.submit(square, 3), 1, c=tc.submit(square, 4))
    assert total.result(timeout=30) == 26


def test_what_depends_on_a_failure_is_not_run(tc: TaskClient) -> None:
    failing = tc.submit(lambda: 1 / 0)
    for child in (tc.submit(square, 2, after=[failing]), tc.submit(square, failing)):
        with pytest.raises(errors.DependencyError, match=r"did not succeed|failed"):
            child.result(timeout=30)


def test_a_waiting_task_can_be_cancelled_and_its_children_are_not_run(tc: TaskClient, tmp_path: Any) -> None:
    go = str(tmp_path / "go")
    busy = [tc.submit(wait_for_file, go) for _ in range(4)]
    waiting = tc.submit(square, 5)
    child = tc.submit(square, 6, after=[waiting])
    assert waiting.cancel()
    assert waiting.cancelled()
    Path(go).touch()
    tc.gather(busy)
    with pytest.raises(errors.DependencyError):
        child.result(timeout=30)


def test_a_running_task_is_really_interrupted(tc: TaskClient, mec: MultiEngineClient, tmp_path: Any) -> None:
    started = str(tmp_path / "started")
    future = tc.submit(touch_and_sleep, started, 60.0)
    wait_for_file(started)
    assert not future.cancel()
    before = time.monotonic()
    assert future.cancel(running=True, grace=10)
    assert time.monotonic() - before < 8
    assert future.cancelled()
    assert mec.pull("id") == [0, 1, 2, 3]
    assert tc.map(square, range(100)) == [x * x for x in range(100)]


def test_a_task_that_runs_too_long_ends_with_a_timeout(tc: TaskClient) -> None:
    before = time.monotonic()
    with pytest.raises(errors.TaskTimeout, match=r"0\.3"):
        tc.submit(time.sleep, 60, timeout=0.3).result(timeout=30)
    assert time.monotonic() - before < 10
    assert tc.submit(square, 9, timeout=10.0).result(timeout=30) == 81


def all_have_arrived(tc: TaskClient, number: int) -> None:
    """Wait until the controller has that many tasks: what is submitted travels a moment later."""
    until = time.monotonic() + 30
    while True:
        status = tc._submitter.request(messages.TaskStatus).result(timeout=30)
        if status["scheduled"] + status["pending"] >= number:
            return
        assert time.monotonic() < until, status


def test_tasks_with_a_higher_priority_come_first(tc: TaskClient, mec: MultiEngineClient, tmp_path: Any) -> None:
    order = str(tmp_path / "order")
    with mec.reserve():  # else some of the first would be with the ranks before the others are submitted
        later = [tc.submit(note, order, "l") for _ in range(40)]
        sooner = [tc.submit(note, order, "s", priority=5) for _ in range(40)]
        all_have_arrived(tc, 80)
    tc.gather([*later, *sooner])
    text = Path(order).read_text()
    assert text.count("s") == text.count("l") == 40
    assert text[:30].count("s") > 20


def test_retries_and_the_recovery_task(tc: TaskClient, tmp_path: Any) -> None:
    count = str(tmp_path / "count")

    def fail_until(number: int) -> int:
        note(count, "x")
        tries = os.path.getsize(count)
        if tries < number:
            raise RuntimeError(f"try {tries}")
        return tries

    assert tc.submit(fail_until, 4, retries=5).result(timeout=30) == 4
    with pytest.raises(RuntimeError, match="try 7"):
        tc.submit(fail_until, 100, retries=2).result(timeout=30)
    recovered = tc.run(
        MapTask(fail_until, (100,), retries=1, recovery_task=MapTask(lambda: "rescued")), block=True
    )
    assert recovered == "rescued"
    assert os.path.getsize(count) == 9


def test_string_tasks_and_their_results(tc: TaskClient) -> None:
    result = tc.run(StringTask("c = a + b", pull=["c", "a"], push={"a": 1, "b": 2}), block=True)
    assert result.results == {"c": 3, "a": 1}
    assert result.ns.c == 3
    assert result.engineid in range(4)
    assert result.duration >= 0
    failed = tc.run(StringTask("1/0"), block=True)
    with pytest.raises(ZeroDivisionError):
        failed.raise_exception()


def test_depend_sees_the_properties_of_engines(
    mec: MultiEngineClient, tc: TaskClient, ids: dict[int, int]
) -> None:
    mec.set_properties({"gpu": False})
    mec.set_properties({"gpu": True}, targets=2)
    numbers = [
        tc.run(StringTask("w = id", pull="w", depend=lambda properties: properties.get("gpu"))) for _ in range(8)
    ]
    assert {tc.get_task_result(number, block=True).ns.w for number in numbers} == {2}
    # One that nobody takes now runs as soon as properties change.
    waiting = tc.run(MapTask(os.getpid, depend=lambda properties: properties["colour"] == "red"))
    assert tc.map(square, range(10)) == [x * x for x in range(10)]
    assert tc.get_task_result(waiting) is None
    mec.set_properties({"colour": "red"}, targets=1)
    assert ids[tc.get_task_result(waiting, block=True)] == 1


def test_a_task_can_reject_an_engine(tc: TaskClient, ids: dict[int, int]) -> None:
    def only_on(pid: int) -> int:
        if os.getpid() != pid:
            raise errors.TaskRejectError("not here")
        return pid

    wanted = [*ids, *ids]
    assert tc.map(only_on, wanted) == wanted
    with pytest.raises(errors.TaskRejectError):
        tc.submit(only_on, -1).result(timeout=30)


def test_a_result_that_cannot_be_sent_is_named(tc: TaskClient) -> None:
    def with_lock() -> dict[str, Any]:
        return {"fine": 1, "guard": threading.Lock()}

    with pytest.raises(errors.SerializationError, match="'guard'"):
        tc.submit(with_lock).result(timeout=30)
    with pytest.raises(errors.SerializationError, match="lock"):
        tc.submit(square, threading.Lock())


def test_abort_races_leave_nothing_open(tc: TaskClient) -> None:
    for _ in range(20):
        ids = [tc.run(MapTask(square, (x,))) for x in range(40)]
        aborted = set()
        for number in ids[::3]:
            with contextlib.suppress(IndexError):  # it has ended already
                tc.abort(number)
                aborted.add(number)
        tc.barrier(ids)
        for x, number in enumerate(ids):
            if number in aborted:
                with pytest.raises(errors.TaskAborted):
                    tc.get_task_result(number)
            else:
                assert tc.get_task_result(number) == x * x
        tc.clear()
    assert tc.queue_status()["pending"] == tc.queue_status()["scheduled"] == 0


def test_reserved_engines_get_no_tasks(mec: MultiEngineClient, tc: TaskClient, ids: dict[int, int]) -> None:
    tc.map(square, range(100))
    with mec.reserve([0, 1]):
        mec.execute("in_use = True", targets=[0, 1])
        assert {ids[pid] for pid in tc.map(pause, [0.002] * 60)} <= {2, 3}
        mec.execute("in_use = False", targets=[0, 1])
    assert {ids[pid] for pid in tc.map(pause, [0.005] * 100)} == {0, 1, 2, 3}


def test_tasks_on_several_ranks_get_a_communicator(tc: TaskClient) -> None:
    def work(comm: Any, value: int) -> tuple[int, int, list[int]]:
        total = comm.allreduce(value + comm.Get_rank())
        return comm.Get_size(), total, comm.allgather(comm.Get_rank())

    futures = [tc.submit(work, 10 * k, ranks=1 + k % 4) for k in range(12)]
    singles = [tc.submit(square, x) for x in range(200)]
    for k, future in enumerate(futures):
        size = 1 + k % 4
        if size == 1:
            continue  # a task on one rank is an ordinary task: see the next test
        assert future.result(timeout=60) == (size, 10 * k * size + size * (size - 1) // 2, list(range(size)))
    assert tc.gather(singles) == [x * x for x in range(200)]
    assert tc.submit(work, 1, ranks=2, same_node=True).result(timeout=30) == (2, 3, [0, 1])


def test_a_rank_that_raises_frees_the_others(tc: TaskClient, mec: MultiEngineClient) -> None:
    def work(comm: Any, culprit: int) -> int:
        rank = comm.Get_rank()
        comm.Barrier()
        if rank == culprit:
            raise ValueError("my part went wrong")
        return int(comm.allreduce(rank))

    for culprit in (0, 1, 2):
        before = time.monotonic()
        with pytest.raises(ValueError, match="my part went wrong") as info:
            tc.submit(work, culprit, ranks=3).result(timeout=60)
        assert time.monotonic() - before < 10
        assert f"rank {culprit}" in getattr(info.value, "_ipython_traceback_text", str(info.value))
    assert tc.submit(work, -1, ranks=4).result(timeout=60) == 6
    mec.execute("total = mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull("total") == [4] * 4


def test_more_ranks_than_there_are_is_explained(tc: TaskClient) -> None:
    future = tc.submit(lambda comm: None, ranks=64)
    assert tc.map(square, range(10)) == [x * x for x in range(10)]
    assert not future.done()
    assert future.cancel()
