"""What ipmpi costs must not creep up: processor time against that of bare Python programs, measured in turns.

Processor time, as other tests run beside these; it also grows when caches are shared, but for both. The bounds are
less than twice what was measured, on a quiet machine and beside six busy processes: 62 to 66, 94 to 111, 12 to 17,
and 1.2 to 1.5; and for a task that is submitted by itself 17 to 19, at a load of 20.
"""

from __future__ import annotations

import pickle
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from ipmpi.bench import limits, machine
from ipmpi.bench.cluster import Target, own_cluster
from ipmpi.bench.workloads import doubles, nothing
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.launch.processes.mpi import find_mpi

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

TURNS: Final = 7
SIZE: Final = 32_000_000

EXECUTE_ONE: Final = 110.0
"""Times the cost of a message to another Python process and back, by a Unix socket."""
EXECUTE_ALL: Final = 190.0
TASK: Final = 24.0
"""Times the cost of pickling and unpickling a small argument."""
SINGLE: Final = 30.0
"""The same for a task that is submitted by itself, with a future, in the thread that submits and gathers."""
PUSH: Final = 2.4
"""Times the cost of writing the same bytes into new memory."""


@pytest.fixture(scope="module")
def target(need: Callable[[str, object], None]) -> Iterator[Target]:
    need("an mpiexec", find_mpi())
    with own_cluster(4, "auto") as running:
        yield running


def cost(call: Callable[[], object], pids: list[int]) -> float:
    """Processor seconds of this process and of others."""
    before = time.process_time() + machine.cpu_seconds(pids)
    call()
    return time.process_time() + machine.cpu_seconds(pids) - before


def ratio(ours: Callable[[], float], bare: Callable[[], float]) -> float:
    """The median of some turns, of which each measures both."""
    ours(), bare()
    return statistics.median(ours() / bare() for _ in range(TURNS))


def times(count: int, call: Callable[[], object]) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(count):
            call()

    return repeated


def write_fresh(array: object) -> None:
    """Write into a new file in memory."""
    with limits.file_in_memory() as file:
        limits.write_all(file, array)


@pytest.mark.parametrize("bound", [EXECUTE_ONE, EXECUTE_ALL], ids=["one", "all"])
def test_a_command_costs_so_many_messages(target: Target, bound: float) -> None:
    engines: Any = 0 if bound == EXECUTE_ONE else "all"
    near, far = socket.socketpair()
    with (
        MultiEngineClient(str(target.mec_furl)) as mec,
        near,
        limits.other_end(far, "echo") as echo,
    ):

        def message() -> None:
            near.sendall(b"x" * 60)
            near.recv(60)

        cluster = target.pids()
        found = ratio(
            lambda: cost(times(100, lambda: mec.execute("pass", targets=engines)), cluster),
            lambda: cost(times(1_000, message), [echo.pid]) / 10,
        )
        near.close()
    assert found < bound, f"a command costs {found:.1f} times as much as a message to another process and back"


def test_a_task_costs_so_many_pickles(target: Target) -> None:
    with TaskClient(str(target.tc_furl)) as tc:
        cluster = target.pids()
        found = ratio(
            lambda: cost(lambda: tc.map(nothing, range(20_000)), cluster),
            lambda: cost(lambda: [pickle.loads(pickle.dumps(i)) for i in range(20_000)], []),
        )
    assert found < TASK, f"a task costs {found:.1f} times as much as to pickle its argument"


def test_a_future_costs_so_many_pickles(target: Target) -> None:
    def thread_seconds(call: Callable[[], object]) -> float:
        before = time.thread_time()
        call()
        return time.thread_time() - before

    with TaskClient(str(target.tc_furl)) as tc:
        found = ratio(
            lambda: thread_seconds(lambda: tc.gather([tc.submit(nothing) for _ in range(10_000)])),
            lambda: thread_seconds(lambda: [pickle.loads(pickle.dumps(i)) for i in range(10_000)]),
        )
    assert found < SINGLE, f"to submit and gather a task costs {found:.1f} times as much as to pickle its argument"


def test_a_large_array_is_copied_once(target: Target) -> None:
    array = doubles(SIZE)
    with MultiEngineClient(str(target.mec_furl)) as mec:
        cluster = target.pids()
        found = ratio(
            lambda: cost(times(3, lambda: mec.push({"guarded": array})), cluster),
            lambda: cost(times(3, lambda: write_fresh(array)), []),
        )
        mec.execute("guarded = None")
    assert found < PUSH, f"a push to all ranks costs {found:.1f} times as much as to write the data once"
