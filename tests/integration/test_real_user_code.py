"""Code of users that does to its process what programs do, and must not harm the engine or the next one's task."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi import errors

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

SINGLETON = """
import subprocess, sys
done = subprocess.run(
    [sys.executable, "-c", "from mpi4py import MPI; print(MPI.COMM_WORLD.size)"],
    capture_output=True, text=True, timeout=30)
said = done.stdout + done.stderr[-500:]
"""


def test_a_program_that_uses_mpi_can_be_started(cluster: Cluster) -> None:
    mec = cluster.mec()
    mec.execute(SINGLETON, targets=[0, 3])
    assert mec.pull("said", targets=[0, 3]) == ["1\n", "1\n"]
    mec.execute("total = mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull("total") == [4] * 4


def test_forked_children_do_not_come_back(cluster: Cluster) -> None:
    mec = cluster.mec()
    code = """
import os, sys
child = os.fork()
if not child:
    sys.exit(3)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
    mec.execute(code)
    assert mec.pull("code") == [3] * 4
    assert [len(engines) for engines in mec.queue_status()] == [2] * 4


def test_a_message_that_a_task_left_does_not_reach_the_next(cluster: Cluster) -> None:
    def leaves(comm: Any) -> None:
        if comm.rank == 0:
            comm.isend("of the task before", 1, tag=7)
        comm.barrier()

    def reads(comm: Any) -> Any:
        if comm.rank == 0:
            comm.send("mine", 1, tag=7)
        return comm.gather(comm.recv(source=0, tag=7) if comm.rank == 1 else None)

    for _ in range(3):
        cluster.tc().submit(leaves, ranks=4).result(timeout=60)
        back = cluster.tc().submit(reads, ranks=4).result(timeout=60)
        assert back == [None, "mine", None, None]


def test_a_task_that_does_not_end_is_let_go(cluster: Cluster) -> None:
    go = cluster.home / "go"

    def stubborn(path: str) -> None:
        import contextlib
        import os
        import time

        while True:
            with contextlib.suppress(BaseException):  # "try again", wherever it is interrupted
                while not os.path.exists(path):
                    time.sleep(0.05)
                return

    mec, tc = cluster.mec(), cluster.tc()
    timed = tc.submit(stubborn, str(go), timeout=0.5)
    assert isinstance(timed.exception(timeout=20), errors.TaskTimeout)
    (running,) = [lane["pending"] for _, lane in mec.queue_status() if lane["pending"] != "None"]
    assert running.endswith("stubborn, a task that was told to end and has not")
    cancelled = tc.submit(stubborn, str(go))
    while not tc.queue_status()["pending"]:
        time.sleep(0.01)
    assert cancelled.cancel(running=True, grace=0.5)
    assert cancelled.done()
    go.touch()
    assert tc.map(abs, range(-100, 0)) == list(range(100, 0, -1))
    deadline = time.monotonic() + 20
    while any(lane["pending"] != "None" for _, lane in mec.queue_status()):
        assert time.monotonic() < deadline, mec.queue_status()
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["openmpi", "mpich"])
def test_abort_in_a_command_is_no_success(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], name: str
) -> None:
    mec = new_cluster(flavour_named(name)).start(2)
    with pytest.raises((errors.CompositeError, ConnectionError)):
        mec.execute("mpi.COMM_WORLD.Abort(3)", targets=[1])


SPAWN = """
import sys
from mpi4py import MPI
child = "from mpi4py import MPI; up = MPI.Comm.Get_parent(); up.gather(MPI.COMM_WORLD.rank); up.Disconnect()"
between = MPI.COMM_WORLD.Spawn(sys.executable, ["-c", child], maxprocs=2)
got = between.gather(None, root=MPI.ROOT if MPI.COMM_WORLD.rank == 0 else MPI.PROC_NULL)
between.Disconnect()
"""


@pytest.mark.parametrize("name", ["openmpi", "mpich"])
def test_ranks_can_start_further_processes_of_mpi(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], name: str
) -> None:
    mec = new_cluster(flavour_named(name)).start(2)
    mec.execute(SPAWN)
    assert mec.pull("got") == [[0, 1], None]


def test_a_spawn_that_would_wait_for_ever_says_how_it_can_work(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    environ = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm"}  # as ipcluster has it on one machine
    mec = new_cluster(flavour_named("openmpi"), **environ).start(2)
    with pytest.raises(errors.CompositeError) as info:
        mec.execute(SPAWN)
    assert len(info.value.exceptions) == 2
    for error in info.value.exceptions:
        assert isinstance(error, errors.KernelError)
        assert "OMPI_MCA_btl=self,sm,tcp in its environment" in str(error)
    mec.execute("total = mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull("total") == [2, 2]


def test_settings_of_a_communicator_end_with_their_task(cluster: Cluster) -> None:
    def sets(comm: Any) -> None:
        from mpi4py import MPI

        comm.Set_errhandler(MPI.ERRORS_ARE_FATAL)
        comm.Set_name("of the task before")

    def looks(comm: Any) -> tuple[bool, bool]:
        from mpi4py import MPI

        return comm.Get_errhandler() == MPI.ERRORS_RETURN, comm.Get_name() == "of the task before"

    tc = cluster.tc()
    tc.submit(sets, ranks=4).result(timeout=60)
    assert tc.submit(looks, ranks=4).result(timeout=60) == (True, False)
