"""User code that keeps the GIL: nobody else is slower for it, and whoever waits for it is told."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cloudpickle
import pytest

from ipmpi import errors, limits

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient, TaskClient
    from ipmpi.client.session.results import PendingResult

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

# Engines cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

HOLDS = 20
"""Seconds that the GIL is held at most: longer than anything here may take, even on a loaded machine."""
NO_SLOWER = 0.001
CALLS = 100


@pytest.fixture(scope="module")
def gil(flavour_named: Callable[[str], Flavour], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from real_clusters import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("gil"), flavour_named("openmpi"))
    try:
        cluster.start(4)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def mec(gil: Cluster) -> MultiEngineClient:
    return gil.mec()


@contextmanager
def held(gil: Cluster, mec: MultiEngineClient, *ranks: int) -> Iterator[PendingResult]:
    """These ranks hold the GIL in C: in a read of a pipe that gets a byte at the end."""
    from real_clusters import wait_for

    flag = gil.home / f"held{time.monotonic_ns()}"
    flag.mkdir()
    for rank in ranks:
        os.mkfifo(flag / f"fifo{rank}")
    code = f"""
import ctypes, os
hold = os.open({str(flag)!r} + f'/fifo{{id}}', os.O_RDWR)
byte = ctypes.create_string_buffer(1)
open({str(flag)!r} + f'/held{{id}}', 'w').close()
ctypes.PyDLL(None).read(hold, byte, 1)
os.close(hold)
"""
    pending = mec.execute(code, targets=list(ranks), block=False)
    assert wait_for(lambda: len(list(flag.glob("held*"))) == len(ranks), 30)
    try:
        yield pending
    finally:
        for rank in ranks:
            with open(flag / f"fifo{rank}", "r+b", buffering=0) as fifo:
                fifo.write(b"x")
        pending.get_result(timeout=30)


def call_takes(mec: MultiEngineClient, rank: int) -> float:
    """Seconds for a command, as the faster quarter of many shows it: other programs disturb the others."""
    took = []
    for _ in range(CALLS):
        before = time.perf_counter()
        mec.execute("1", targets=[rank], block=False).get_result(timeout=HOLDS)
        took.append(time.perf_counter() - before)
    return sorted(took)[CALLS // 4]


@pytest.mark.parametrize("holders", [[0], [0, 1, 2]], ids=["rank 0", "all but one"])
def test_commands_to_another_rank_take_as_long_as_ever(
    gil: Cluster, mec: MultiEngineClient, holders: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    usual = call_takes(mec, 3)
    with held(gil, mec, *holders) as pending:
        beside = call_takes(mec, 3)
        assert not pending.done()
    with capsys.disabled():
        print(f"\nexecute: {usual * 1e3:.2f} ms, beside {len(holders)} that hold the GIL {beside * 1e3:.2f} ms")
    assert beside < usual + NO_SLOWER


def test_who_holds_it_is_shown_and_others_can_be_interrupted(gil: Cluster, mec: MultiEngineClient) -> None:
    with held(gil, mec, 0):
        lanes = dict(mec.queue_status())
        assert "ctypes" in lanes[0]["pending"]
        assert [lanes[rank]["pending"] for rank in (1, 2, 3)] == ["None"] * 3
        sleeping = mec.execute("import time; time.sleep(60)", targets=[2], block=False)
        before = time.monotonic()
        mec.interrupt(targets=[2])
        with pytest.raises(errors.CompositeError) as caught:
            sleeping.get_result(timeout=HOLDS)
        assert "KeyboardInterrupt" in str(caught.value)
        assert time.monotonic() - before < 5


def farm_takes(tc: TaskClient) -> float:
    before = time.perf_counter()
    tc.map(time.sleep, [0.005] * 600)
    return time.perf_counter() - before


def test_tasks_go_to_the_others_at_their_pace(gil: Cluster, mec: MultiEngineClient) -> None:
    tc = gil.tc()
    tc.map(time.sleep, [0] * 100)
    with mec.reserve([0]):
        usual = farm_takes(tc)
    with held(gil, mec, 0):
        beside = farm_takes(tc)
    assert beside < 1.5 * usual + 0.5


def hold(seconds: int) -> None:
    """Keep the GIL in C: in a wait for a lock, which no signal cuts short."""
    import ctypes

    library, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(128)
    until = (ctypes.c_long * 2)(int(time.time()) + seconds, 0)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_timedlock(lock, until)


def test_the_timeout_of_a_task_that_holds_the_gil_is_kept(gil: Cluster, mec: MultiEngineClient) -> None:
    """Its future ends; its rank gets nothing until it has come back, and then as much as any."""
    from real_clusters import wait_for

    tc, seconds = gil.tc(), 10

    def pid(pause: float) -> int:
        time.sleep(pause)
        return os.getpid()

    tc.submit(hold, 0).result(timeout=30)  # the time that importing takes is not a part of this
    before = time.monotonic()
    future = tc.submit(hold, seconds, timeout=0.5)
    error = future.exception(timeout=2 * HOLDS)
    assert isinstance(error, errors.TaskTimeout)
    assert time.monotonic() - before < 0.5 + limits.TASK_GRACE + 2
    assert "has not ended 3 seconds later" in str(error)
    stuck = [engine for engine, lane in mec.queue_status() if lane["pending"].endswith("told to end and has not")]
    assert len(stuck) == 1, mec.queue_status()
    holder = gil.pids(mec)[stuck[0]]
    used = set(tc.map(pid, [0.01] * 100))
    assert time.monotonic() - before < seconds, "it still holds it"
    assert len(used) == 3
    assert holder not in used
    assert wait_for(lambda: holder in set(tc.map(pid, [0.01] * 40)), 30)


def test_tasks_that_all_hold_the_gil_end_with_their_timeouts(gil: Cluster) -> None:
    tc = gil.tc()

    before = time.monotonic()
    futures = [tc.submit(hold, 9, timeout=0.5) for _ in range(4)]
    for future in futures:
        assert isinstance(future.exception(timeout=30), errors.TaskTimeout)
    assert time.monotonic() - before < 0.5 + limits.TASK_GRACE + 3
    assert tc.submit(abs, -3).result(timeout=30) == 3
