"""Ranks, agents and launchers that die, stop, or run out of memory, and what the others notice of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import pytest

from ipmpi import errors
from ipmpi.environment.mpienv import RANK, TOGETHER
from ipmpi.launch.processes.mpi import ULFM
from tests.processes import is_running

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient
    from ipmpi.client.session.results import PendingResult

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

# Engines cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

GONE_WITHIN = 10.0
TASKS = 1000
NODES = Path(__file__).with_name("disguised_nodes.py")

SLEEPS = "import time; time.sleep(300)"
LOOPS = "while True: pass"
KEEPS_THE_GIL = "import ctypes; ctypes.PyDLL(None).sleep(300)"


def under_ulfm(cluster: Cluster) -> None:
    cluster.launch(cluster.command(4, *ULFM))


def on_two_nodes(cluster: Cluster) -> None:
    argv = cluster.command(4, *ULFM, program=(str(NODES),))
    cluster.launch(argv, IPMPI_TEST_LEADERS="0,0,2,2")


def without_mpi(cluster: Cluster) -> None:
    """As ipcluster starts them."""
    started = len(cluster.launchers)
    for rank in range(4):
        own = {TOGETHER: f"{cluster.home}-{started}:4", RANK: str(rank)}
        cluster.launch([cluster.flavour.python, "-m", "ipmpi.cli.ipengine", "--mpi=none"], **own)


def under_mpi(cluster: Cluster) -> None:
    cluster.launch(cluster.command(4))


Start = Callable[["Cluster"], None]
OUTLIVE = pytest.mark.parametrize("start", [under_ulfm, on_two_nodes, without_mpi])
EACH_FATE = pytest.mark.parametrize("start", [under_mpi, under_ulfm, without_mpi])


@pytest.fixture
def started(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> Callable[[Start], Cluster]:
    """Four ranks, all registered."""

    def begin(start: Start) -> Cluster:
        cluster = new_cluster(flavour_named("openmpi"))
        start(cluster)
        cluster.wait_for_engines(4)
        return cluster

    return begin


def occupy(cluster: Cluster, mec: MultiEngineClient, codes: dict[int, str]) -> dict[int, PendingResult]:
    """Have ranks run these; returns when they do."""
    from real_clusters import wait_for

    flag = cluster.home / f"occupied{time.monotonic_ns()}"
    flag.mkdir()
    ready = f"open({str(flag)!r} + f'/{{id}}', 'w').close()\n"
    pending = {rank: mec.execute(ready + code, [rank], block=False) for rank, code in codes.items()}
    assert wait_for(lambda: len(list(flag.iterdir())) == len(codes), 30)
    return pending


def all_gone(cluster: Cluster) -> None:
    from real_clusters import wait_for

    before = time.monotonic()
    assert wait_for(lambda: not cluster.rank_processes(), GONE_WITHIN), cluster.output() + cluster.engine_log()
    print(f"gone after {time.monotonic() - before:.1f} s")


def slowly(number: int) -> int:
    time.sleep(0.004)
    return -number


@OUTLIVE
def test_rank_0_is_killed_under_load_and_nothing_is_lost(
    started: Callable[[Start], Cluster], start: Start
) -> None:
    """No task of many, and no command to another rank."""
    from real_clusters import wait_for

    cluster = started(start)
    mec, tc, other = cluster.mec(), cluster.tc(), cluster.mec()
    pids = cluster.pids(mec)
    answers: list[object] = []
    enough = threading.Event()

    def command_another_rank() -> None:
        while not enough.is_set():
            try:
                answers.append(other.execute("1 + 1", targets=[3]))
            except Exception as error:
                answers.append(error)
                return

    commands = threading.Thread(target=command_another_rank)
    commands.start()
    try:
        futures = [tc.submit(slowly, number) for number in range(TASKS)]
        assert wait_for(lambda: sum(future.done() for future in futures) > TASKS // 10, 30)
        assert not futures[-1].done()
        os.kill(pids[0], signal.SIGKILL)
        cluster.wait_for_engines(3, GONE_WITHIN)
        count = len(answers)
        assert [future.result(timeout=60) for future in futures] == [-number for number in range(TASKS)]
        assert wait_for(lambda: len(answers) > count + 10, 30)
    finally:
        enough.set()
        commands.join(30)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert mec.get_ids() == [1, 2, 3]
    mec.push({"a": b"x" * 1_000_000})
    assert [len(a) for a in mec.pull("a")] == [1_000_000] * 3


@OUTLIVE
def test_a_segfault_on_rank_0_is_told_and_ends_nobody_else(
    started: Callable[[Start], Cluster], start: Start
) -> None:
    cluster = started(start)
    mec = cluster.mec()
    pid = cluster.pids(mec)[0]
    with pytest.raises((errors.CompositeError, errors.EngineLost)) as caught:
        mec.execute("import ctypes; ctypes.string_at(0)", targets=[0])
    said = str(caught.value)
    assert f"engine 0 (rank 0, pid {pid} on {os.uname().nodename}) is gone" in said
    # How it ended is told by the kernel, unless its launcher was asked first on one that forgets it then.
    assert "killed by SIGSEGV" in said or "a crash" in said
    assert mec.execute("x = id", targets=[1, 2, 3]) is not None
    assert mec.pull("x") == [1, 2, 3]


def test_ranks_that_end_with_an_exit_code_leave_the_last_one_alone(started: Callable[[Start], Cluster]) -> None:
    """As ``sys.exit`` of a library in C does, or MPI_Abort of one rank."""
    cluster = started(under_ulfm)
    mec = cluster.mec()
    pids = cluster.pids(mec)
    for rank in (2, 0, 3):
        with pytest.raises((errors.CompositeError, errors.EngineLost)) as caught:
            mec.execute("import os; os._exit(7)", targets=[rank])
        assert "exit code 7" in str(caught.value)
    with pytest.raises((errors.CompositeError, errors.EngineLost)) as caught:
        # Long enough for a launcher to do what it wants to do.
        mec.execute("import os, time; time.sleep(3); os.kill(os.getpid(), 9)", targets=[1])
    assert "killed by SIGKILL" in str(caught.value)
    assert not is_running(pids[1])


BUSY = {0: KEEPS_THE_GIL, 1: SLEEPS, 2: LOOPS}
"""What ranks do; rank 3 is idle."""


@EACH_FATE
def test_ranks_do_not_outlive_their_agent(started: Callable[[Start], Cluster], start: Start) -> None:
    """Whatever they do: the controller tells who waits for them, and their stacks are in the log."""
    cluster = started(start)
    mec = cluster.mec()
    pending = occupy(cluster, mec, BUSY)
    (agent,) = cluster.agents()
    os.kill(agent, signal.SIGKILL)
    all_gone(cluster)
    for rank, result in pending.items():
        with pytest.raises((errors.CompositeError, errors.EngineLost)) as caught:
            result.get_result(timeout=30)
        assert f"engine {rank} (rank {rank}, pid " in str(caught.value)
        assert "is gone" in str(caught.value)
    cluster.wait_for_engines(0, 15)
    assert mec.get_ids() == []
    for launcher in cluster.launchers:
        launcher.wait(20)
    said = cluster.output() + cluster.engine_log()
    assert "the agent of this node is gone" in said
    if start is not under_mpi:  # whose launcher kills the others as soon as one has ended
        assert said.count("most recent call first") >= 2, said


def test_the_end_of_an_agent_is_that_of_its_node(started: Callable[[Start], Cluster]) -> None:
    """The other node goes on if its agent has the link to the controller; without that agent all end."""
    cluster = started(on_two_nodes)
    mec, tc = cluster.mec(), cluster.tc()
    (root,) = (pid for pid in cluster.agents() if cluster.links(pid))
    (other,) = (pid for pid in cluster.agents() if pid != root)
    pending = occupy(cluster, mec, {2: KEEPS_THE_GIL, 3: LOOPS})
    futures = [tc.submit(slowly, number) for number in range(200)]
    os.kill(other, signal.SIGKILL)
    cluster.wait_for_engines(2, GONE_WITHIN)
    assert mec.get_ids() == [0, 1]
    for rank, result in pending.items():
        with pytest.raises((errors.CompositeError, errors.EngineLost)) as caught:
            result.get_result(timeout=30)
        assert f"engine {rank} (rank {rank}, pid " in str(caught.value)
    mec.execute("x = id")
    assert mec.pull("x") == [0, 1]
    assert [future.result(timeout=60) for future in futures] == [-number for number in range(200)]
    os.kill(root, signal.SIGKILL)
    all_gone(cluster)
    cluster.wait_for_engines(0, 15)


def wait_for_file(folder: str) -> str:
    Path(folder, f"started{os.getpid()}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.02)
    return "done"


@pytest.mark.parametrize("start", [under_mpi, without_mpi])
def test_the_end_of_a_job_that_tells_all_its_processes_blames_no_task(
    started: Callable[[Start], Cluster], start: Start, tmp_path: Path
) -> None:
    """Batch systems send SIGTERM to each process of a job, the agent among them. It may be the first to get it."""
    from real_clusters import wait_for

    cluster = started(start)
    tc = cluster.tc()
    tasks = [tc.submit(wait_for_file, str(tmp_path)) for _ in range(4)]
    for _ in range(3):  # a task that is there when so many engines crash is given up
        assert wait_for(lambda: len(list(tmp_path.glob("started*"))) == 4, 30)
        processes = [*cluster.agents(), *cluster.pids(cluster.mec()).values()]
        assert len(processes) == 5
        for pid in processes:
            os.kill(pid, signal.SIGTERM)
        all_gone(cluster)
        cluster.wait_for_engines(0, 15)
        for file in tmp_path.glob("started*"):
            file.unlink()
        start(cluster)
        cluster.wait_for_engines(4)
    (tmp_path / "go").touch()
    assert [task.result(timeout=60) for task in tasks] == ["done"] * 4


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_an_agent_that_is_stopped_for_a_while_loses_nothing(started: Callable[[Start], Cluster]) -> None:
    from real_clusters import wait_for

    cluster = started(under_mpi)
    mec, tc = cluster.mec(), cluster.tc()
    assert tc.submit(abs, -1).result(timeout=30) == 1
    flag = cluster.home / "written"
    (running,) = occupy(cluster, mec, {2: f"import time; time.sleep(0.5); open({str(flag)!r}, 'w')"}).values()
    with stopped(*cluster.agents()):
        pending = mec.execute("x = id", block=False)
        futures = [tc.submit(slowly, number) for number in range(200)]
        assert wait_for(flag.exists, 30), "user code needs no agent"
        assert not pending.done()
        assert mec.get_ids() == [0, 1, 2, 3]
    running.get_result(timeout=30)
    pending.get_result(timeout=30)
    assert mec.pull("x") == [0, 1, 2, 3]
    assert [future.result(timeout=30) for future in futures] == [-number for number in range(200)]


@EACH_FATE
def test_an_agent_that_is_stopped_and_killed_leaves_nobody(
    started: Callable[[Start], Cluster], start: Start
) -> None:
    cluster = started(start)
    mec = cluster.mec()
    occupy(cluster, mec, BUSY)
    (agent,) = cluster.agents()
    with stopped(agent):
        os.kill(agent, signal.SIGKILL)
        all_gone(cluster)
    cluster.wait_for_engines(0, 15)


def test_the_launcher_s_end_reaches_ranks_whose_agent_is_stopped(started: Callable[[Start], Cluster]) -> None:
    from real_clusters import wait_for

    cluster = started(under_mpi)
    occupy(cluster, cluster.mec(), BUSY)
    (agent,) = cluster.agents()
    with stopped(agent):
        cluster.launchers[0].kill()
        assert wait_for(lambda: cluster.rank_processes() == [agent], GONE_WITHIN), cluster.output()
    all_gone(cluster)
    cluster.wait_for_engines(0, 15)


def test_a_launcher_that_is_stopped_holds_up_nobody(started: Callable[[Start], Cluster]) -> None:
    cluster = started(under_mpi)
    mec, tc = cluster.mec(), cluster.tc()
    with stopped(cluster.launchers[0].pid):
        mec.execute("x = mpi.COMM_WORLD.allreduce(id)")
        assert mec.pull("x") == [6] * 4
        assert tc.map(abs, range(-100, 0)) == list(range(100, 0, -1))
        mec.kill()
        assert mec.get_ids() == []
    all_gone(cluster)
    assert cluster.launchers[0].wait(20) == 0, cluster.output()


@EACH_FATE
def test_kill_reaches_a_rank_that_is_stopped(started: Callable[[Start], Cluster], start: Start) -> None:
    cluster = started(start)
    mec = cluster.mec()
    os.kill(cluster.pids(mec)[0], signal.SIGSTOP)
    mec.kill()
    all_gone(cluster)
    cluster.wait_for_engines(0, 15)


HOG = """
import resource
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
_, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, most))
hoard = []
size = 1 << 20
while size > 16_384:
    try:
        while True: hoard.append(bytes(size))
    except MemoryError:
        size //= 2
"""


def test_a_rank_without_memory_slows_nobody_and_can_be_helped(started: Callable[[Start], Cluster]) -> None:
    """Rank 0 keeps all that it may have. What it cannot do fails; the others and their clients do not notice."""
    cluster = started(under_ulfm)
    mec, tc = cluster.mec(), cluster.tc()
    tc.map(abs, range(100))
    hog = mec.execute(HOG, targets=[0], block=False)
    for _ in range(50):
        mec.execute("x = 'x' * 1_000_000", targets=[1, 2, 3])
    assert [len(x) for x in mec.pull("x", targets=[1, 2, 3])] == [1_000_000] * 3
    hog.get_result(timeout=60)
    with mec.reserve([0]):
        assert tc.map(abs, range(-500, 0)) == list(range(500, 0, -1))
    with pytest.raises(errors.CompositeError) as caught:
        mec.execute("y = bytes(20_000_000)", targets=[0])
    assert "MemoryError" in str(caught.value)
    mec.execute("x = 'y' * 1_000_000", targets=[1, 2, 3])
    mec.execute("hoard.clear()", targets=[0])
    mec.execute("y = bytes(20_000_000)", targets=[0])
    assert mec.get_ids() == [0, 1, 2, 3]
    assert mec.pull("id") == [0, 1, 2, 3]
