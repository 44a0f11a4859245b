"""The end of a job, with real ranks: time left, functions before the end, warnings, tasks that outlive jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from ipmpi.environment import walltime

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

# Engines cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    from real_clusters import wait_for

    assert wait_for(condition, seconds)


def typed(source: str, name: str) -> Any:
    """A function as from a prompt: its globals are the names of the engine."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(source, names)
    return names[name]


def notices(mec: MultiEngineClient) -> list[str]:
    return list(mec._calls.session.notices)


def test_a_function_before_the_end_may_call_mpi(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    """All ranks call it at one place in the order of commands, though their queues are not equally long."""
    cluster = new_cluster(flavour)
    mec = cluster.start(3, args=["--walltime", "0:30"])
    left = mec.time_left()
    assert left is not None
    assert 0 < left < 30
    assert all(engine["time_left"] <= left for engine in mec.cluster_info()["engines"])
    ends = mec.apply(lambda: os.environ["IPMPI_JOB_END"])
    assert len(set(ends)) == 1
    mec.execute("import time\nlog = []\ntotal = mpi.COMM_WORLD.allreduce")
    now = mec.time_left()
    assert now is not None
    mec.before_walltime(typed("def save(): log.append(('save', total(1)))", "save"), seconds=now - 1)
    commands = []
    saved = False
    while not saved:
        commands.append(mec.execute(f"time.sleep(0.01 * id); log.append({len(commands)}); total(1)", block=False))
        commands.append(mec.execute("time.sleep(0.01)", targets=[2], block=False))
        saved = len(commands) > 4 and any(("save", 3) in log for log in mec.pull("log", targets=[0]))
    for command in commands:
        command.get_result()
    first, *others = mec.pull("log")
    assert first.count(("save", 3)) == 1
    assert others == [first, first]


def test_the_warning_of_a_batch_system(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    """SIGUSR1 reaches all ranks through the launcher; the functions are called once, and a failure is told."""
    cluster = new_cluster(flavour)
    mec = cluster.start(3)
    assert mec.time_left() is None
    mec.execute("calls = []")
    mec.before_walltime(typed("def save(): calls.append(mpi.COMM_WORLD.allreduce(1))", "save"))
    mec.before_walltime(typed("def fail():\n    raise OSError('disk full')", "fail"), targets=[0, 1])
    if flavour.name == "debian":
        for pid in cluster.pids(mec).values():
            os.kill(pid, signal.SIGUSR1)
    else:
        cluster.launchers[0].send_signal(signal.SIGUSR1)
    until(lambda: len(notices(mec)) == 2)
    failed, warned = sorted(notices(mec))
    assert failed == "before_walltime(fail) failed on engines 0-1: OSError: disk full"
    assert warned == "the batch system warns that the job of engines 0-2 ends soon"
    assert mec.pull("calls") == [[3]] * 3
    assert mec.get_ids() == [0, 1, 2], "a warning ends nothing"


def test_one_rank_alone_can_be_warned(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(flavour)
    mec = cluster.start(2)
    mec.execute("calls = []")
    mec.before_walltime(typed("def save(): calls.append(mpi.COMM_WORLD.allreduce(1))", "save"))
    os.kill(cluster.pids(mec)[1], signal.SIGUSR1)
    until(lambda: mec.pull("calls") == [[2], [2]])


def test_a_warning_comes_up_a_tree_of_nodes(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    """Rank 11 hangs on rank 1; the end is known to all ranks, by the first one's account."""
    cluster = new_cluster(flavour_named("openmpi"))
    argv = cluster.command(12, program=(str(Path(__file__).parent / "disguised_nodes.py"),))
    leaders = ",".join(map(str, range(12)))
    end = str(int(time.time() + 3600))
    cluster.launch(argv, IPMPI_TEST_LEADERS=leaders, IPMPI_JOB_END=end, SLURM_JOB_ID="4711")
    cluster.wait_for_engines(12)
    mec = cluster.mec()
    assert {engine["job"] for engine in mec.cluster_info()["engines"]} == {"4711"}
    assert all(3500 < left <= 3600 for left in mec.apply(walltime.left))
    mec.execute("calls = []")
    mec.before_walltime(typed("def save(): calls.append(mpi.COMM_WORLD.allreduce(1))", "save"))
    os.kill(cluster.pids(mec)[11], signal.SIGUSR1)
    until(lambda: mec.pull("calls") == [[12]] * 12)
    until(lambda: notices(mec))
    assert notices(mec)[0].startswith("the batch system warns that job 4711 of engines 0-11 ends soon (in 3")


def test_leaders_that_each_dial_all_know_the_end(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    program = (str(Path(__file__).parent / "disguised_nodes.py"),)
    argv = cluster.command(4, program=program, args=["--walltime", "1:00:00"])
    cluster.launch(argv, IPMPI_TEST_LEADERS="0,0,2,2", IPMPI_TEST_FIREWALL="1")
    cluster.wait_for_engines(4)
    engines = cluster.mec().cluster_info()["engines"]
    assert len({engine["set"] for engine in engines}) == 2
    assert all(3500 < engine["time_left"] <= 3600 for engine in engines)


def test_an_engine_without_mpi(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    cluster.launch([cluster.flavour.python, "-m", "ipmpi.cli.ipengine", "--mpi=none", "--walltime=30"])
    cluster.wait_for_engines(1)
    mec = cluster.mec()
    mec.before_walltime(lambda folder=str(tmp_path): Path(folder, "saved").touch(), seconds=29.5)
    until((tmp_path / "saved").exists)


def test_without_the_controller_functions_are_called_all_the_same(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster(flavour_named("mpich"))
    mec = cluster.start(2, args=["--walltime", "8"])

    def save(folder: str = str(tmp_path)) -> None:
        Path(folder, f"saved{os.getpid()}").touch()

    mec.before_walltime(save, seconds=6)
    cluster.controller.kill()
    until(lambda: len(list(tmp_path.glob("saved*"))) == 2)


# --- tasks -----------------------------------------------------------------------------------------------------


def wait_for_file(folder: str, started: str, go: str) -> str:
    Path(folder, f"{started}{os.getpid()}").touch()
    while not Path(folder, go).exists():
        time.sleep(0.02)
    return "done"


def run_until_the_job_ends(
    cluster: Cluster, folder: Path, mec: MultiEngineClient, end: Callable[[int], None]
) -> None:
    """Two tasks begin on two ranks, and the ranks are ended, the one that dials last."""
    until(lambda: len(list(folder.glob("started*"))) == 2)
    pids = cluster.pids(mec)
    end(pids[1])
    end(pids[0])
    cluster.wait_for_engines(0)
    cluster.launchers[-1].wait(30)
    for file in folder.glob("started*"):
        file.unlink()


def test_tasks_outlive_more_jobs_than_a_culprit_would(
    flavour: Flavour, new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    """A job that ends is no sign against the tasks that ran in it, and uses no retry."""
    cluster = new_cluster(flavour)
    tc = cluster.tc()
    tasks = [tc.submit(wait_for_file, str(tmp_path), "started", "go") for _ in range(2)]
    for number in range(4):
        mec = cluster.start(2)
        # Open MPI 4's mpirun kills its ranks right after SIGTERM: on a busy machine they cannot say goodbye.
        if number % 2 or flavour.name == "debian":
            run_until_the_job_ends(cluster, tmp_path, mec, lambda pid: os.kill(pid, signal.SIGTERM))
        else:
            run_until_the_job_ends(cluster, tmp_path, mec, lambda _: cluster.launchers[-1].terminate())
    (tmp_path / "go").touch()
    cluster.start(2)
    assert tc.gather(tasks) == ["done", "done"]


def test_one_rank_after_the_other_is_told_to_end(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    tc = cluster.tc()
    tasks = [tc.submit(wait_for_file, str(tmp_path), "started", "go") for _ in range(2)]

    def end(pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        if pid == cluster.pids(mec).get(1):
            cluster.wait_for_engines(1)

    for _ in range(3):
        mec = cluster.start(2, "--with-ft", "ulfm")
        run_until_the_job_ends(cluster, tmp_path, mec, end)
    (tmp_path / "go").touch()
    cluster.start(2)
    assert tc.gather(tasks) == ["done", "done"]


def test_a_set_that_is_killed_at_its_end_is_no_sign_either(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    alone = [cluster.flavour.python, "-m", "ipmpi.cli.ipengine", "--mpi=none", "--walltime=40"]
    tc = cluster.tc()
    task = tc.submit(wait_for_file, str(tmp_path), "started", "go")
    for _ in range(3):
        engine = cluster.launch(alone)
        cluster.wait_for_engines(1)
        until(lambda: list(tmp_path.glob("started*")))
        engine.kill()
        cluster.wait_for_engines(0)
        for file in tmp_path.glob("started*"):
            file.unlink()
    (tmp_path / "go").touch()
    cluster.launch(alone)
    assert task.result(timeout=60) == "done"


def test_a_task_that_does_not_fit_waits_for_a_longer_job(
    flavour: Flavour, new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour)
    cluster.start(2, args=["--walltime", "1:00"])
    tc = cluster.tc()
    long = tc.submit(os.getpid, expected=600)
    short = tc.submit(os.getpid, expected=5)
    assert tc.submit(os.getpid).result(timeout=30)
    assert short.result(timeout=30)
    assert not long.done()
    (text,) = tc._session.notices
    assert (
        text == "getpid, expected to take 600 s, waits for other engines: the jobs of the present ones end before"
    )
    cluster.launch(cluster.command(1, args=["--walltime", "1:00:00"]))
    assert long.result(timeout=60)


def test_wrong_walltime_and_gpus_are_told(flavour_named: Callable[[str], Flavour]) -> None:
    python = flavour_named("openmpi").python
    for option, text in (
        ("--walltime=1w", "'1w' is no time: write it like 90m,"),
        ("--gpus=none", "'none' are no GPUs"),
    ):
        done = subprocess.run(
            [python, "-m", "ipmpi.cli.ipengine", option], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert text in done.stderr


def test_gpus_are_shared_among_the_ranks_of_a_node(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(flavour)
    mec = cluster.start(2, args=["--gpus", "4"])
    assert mec.apply(lambda: os.environ["CUDA_VISIBLE_DEVICES"]) == ["0,1", "2,3"]
