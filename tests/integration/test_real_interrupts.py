"""Stopping what runs, and what becomes of what waits, on real ranks."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi import errors

if TYPE_CHECKING:
    from real_clusters import Cluster

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

QUICK = 10.0
"""Far less than the 60 s that is interrupted, far more than a loaded machine needs."""


@pytest.fixture
def mec(cluster: Cluster) -> MultiEngineClient:
    client = cluster.mec()
    client.reset()
    return client


def started(cluster: Cluster, mec: MultiEngineClient, code: str, targets: Any = "all") -> Any:
    """Send code with ``block=False``, and return once every target runs it."""
    flag = cluster.home / f"started{time.monotonic_ns()}"
    os.mkdir(flag)
    pending = mec.execute(f"open({str(flag)!r} + f'/{{id}}', 'w').close()\n{code}", targets=targets, block=False)
    from real_clusters import wait_for

    count = len(mec.get_ids()) if targets == "all" else len(targets)
    assert wait_for(lambda: len(os.listdir(flag)) == count, 30)
    return pending


BUSY = {
    "asleep": "import time; time.sleep(60)",
    "computing": "while True: pass",
    "waiting for input": "import os; os.read(os.pipe()[0], 1)",
    "in many short C calls": "while True: numpy.sort(numpy.random.random(100_000))",
}


@pytest.mark.parametrize("code", BUSY.values(), ids=BUSY)
def test_an_interrupt_reaches_the_chosen_engines_only(cluster: Cluster, mec: MultiEngineClient, code: str) -> None:
    from real_clusters import wait_for

    # Before the interrupt: parts of NumPy that are interrupted at their first import raise ImportError instead.
    mec.execute("import numpy")
    stop = cluster.home / f"stop{time.monotonic_ns()}"
    others = started(
        cluster, mec, f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(0.01)", [0, 2]
    )
    try:
        pending = started(cluster, mec, code, [1, 3])
        before = time.monotonic()
        # On a machine with much to do, one of them may need longer than interrupt() waits.
        assert set(mec.interrupt(targets=[1, 3])) <= {1, 3}
        with pytest.raises(errors.CompositeError) as info:
            pending.get_result(timeout=30)
        assert time.monotonic() - before < QUICK
        kinds = [kind for kind, _, _ in info.value.elist]
        engines = [vars(value)["_ipython_engine_info"]["engineid"] for _, value, _ in info.value.elist]
        assert [kind.__name__ for kind in kinds] == ["KeyboardInterrupt"] * 2
        assert engines == [1, 3]
        assert "[1:execute]: KeyboardInterrupt" in str(info.value)
        assert not others.done()
    finally:
        stop.touch()  # the tests after this one use the same engines
    assert wait_for(others.done, 30)
    others.get_result()
    mec.execute("x = mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull("x") == [4] * 4


def test_an_interrupt_of_idle_engines_does_nothing(mec: MultiEngineClient) -> None:
    assert mec.interrupt() == []
    mec.execute("x = 1")
    assert mec.pull("x") == [1] * 4


def test_many_interrupts_of_short_commands_break_nothing(mec: MultiEngineClient) -> None:
    raised: list[tuple[Any, ...]] = []
    for _ in range(50):
        pending = mec.execute("for _ in range(1000): pass", block=False)
        mec.interrupt()
        try:
            pending.get_result(timeout=30)
        except errors.CompositeError as error:
            raised += error.elist
    assert {kind.__name__ for kind, _, _ in raised} <= {"KeyboardInterrupt"}
    mec.execute("x = id")
    assert mec.pull("x") == [0, 1, 2, 3]


def test_an_error_clears_the_queue_of_its_engine_only(cluster: Cluster, mec: MultiEngineClient) -> None:
    go = cluster.home / f"go{time.monotonic_ns()}"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    failing = mec.execute(wait + "if id == 1: 1 / 0", block=False)
    waiting = [mec.execute(f"ran = {number}", block=False) for number in range(3)]
    pulled = mec.pull("ran", targets=2, block=False)
    go.touch()
    with pytest.raises(errors.CompositeError) as info:
        failing.get_result(timeout=30)
    assert re.search(r"\[1:execute\]: ZeroDivisionError", str(info.value))
    for pending in waiting:
        with pytest.raises(errors.CompositeError) as info:
            pending.get_result(timeout=30)
        assert [kind.__name__ for kind, _, _ in info.value.elist] == ["QueueCleared"]
        assert "failed on engine 1, which cleared its queue" in str(info.value)
    assert pulled.get_result(timeout=30) == [2]
    assert mec.execute("print(1)") is not None
    assert mec.queue_status() == [(i, {"queue": [], "pending": "None"}) for i in range(4)]


def test_the_queue_is_shown_and_can_be_cleared(cluster: Cluster, mec: MultiEngineClient) -> None:
    running = started(cluster, mec, "import time; time.sleep(60)")
    waiting = [mec.execute("a = 1", block=False), mec.push({"b": 2}, block=False)]
    status = mec.queue_status()
    assert [engine for engine, _ in status] == [0, 1, 2, 3]
    for _, lane in status:
        assert lane["pending"].startswith("execute(")
        assert lane["queue"] == ["execute('a = 1')", "push(['b'])"]
        assert 0.0 <= lane["seconds"] < 60.0
    mec.clear_queue(targets=[0, 1])
    assert [len(lane["queue"]) for _, lane in mec.queue_status()] == [0, 0, 2, 2]
    mec.interrupt(targets=[0, 1])
    mec.clear_queue()
    mec.interrupt()
    for pending in waiting:
        with pytest.raises(errors.CompositeError) as info:
            pending.get_result(timeout=30)
        assert {kind.__name__ for kind, _, _ in info.value.elist} == {"QueueCleared"}
    with pytest.raises(errors.CompositeError) as info:
        running.get_result(timeout=30)
    assert "KeyboardInterrupt" in str(info.value)


def test_sigstop_of_a_rank_delays_and_loses_nothing(cluster: Cluster, mec: MultiEngineClient) -> None:
    pid = cluster.pids(mec)[2]
    os.kill(pid, signal.SIGSTOP)
    try:
        pending = mec.execute("x = id", block=False)
        assert mec.pull("id", targets=[0, 1, 3]) == [0, 1, 3]
        assert not pending.done()
    finally:
        os.kill(pid, signal.SIGCONT)
    pending.get_result(timeout=30)
    assert mec.pull("x") == [0, 1, 2, 3]
