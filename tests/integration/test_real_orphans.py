"""Ends, wanted and unwanted: nobody stays behind, and clients are told who is gone.

What the MPIs do when a rank that is not 0 is killed: see test_a_killed_rank_is_told.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from ipmpi import errors
from tests.processes import is_running

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient
    from ipmpi.client.session.results import PendingResult

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

GONE_WITHIN = 10.0

# What a rank is doing when it happens. Of the functions in C, one lets other threads run and one does not.
SLEEPS = "import time; time.sleep(300)"
SORTS = "import numpy\na = numpy.random.random(3_000_000)\nwhile True: numpy.sort(a)"
KEEPS_THE_GIL = "sum(range(10**14))"

# The start of a program that opens a terminal of its own, and what it does then.
TERMINAL = "import fcntl, os, subprocess, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
AS_A_SHELL = TERMINAL + "subprocess.Popen(sys.argv[1:]).wait()"
BY_ITSELF = TERMINAL + "os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: that of the person, and that of the programs."""
    ends = os.openpty()
    yield ends
    for end in ends:
        os.close(end)


def in_terminal(cluster: Cluster, terminal: tuple[int, int], program: str) -> subprocess.Popen[bytes]:
    """Start three ranks in a terminal, by such a program."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *cluster.command(3)],
        env=cluster.environ, stdin=terminal[1], stdout=terminal[1], stderr=terminal[1],
    )  # fmt: skip
    cluster.launchers.append(process)
    cluster.wait_for_engines(3)
    return process


def occupy(cluster: Cluster, mec: MultiEngineClient, *codes: str) -> list[PendingResult]:
    """Have ranks 1, 2, ... run these; returns when they do."""
    from real_clusters import wait_for

    flag = cluster.home / "occupied"
    flag.mkdir()
    ready = f"open({str(flag)!r} + f'/{{id}}', 'w').close()\n"
    pending = [mec.execute(ready + code, [rank], block=False) for rank, code in enumerate(codes, 1)]
    assert wait_for(lambda: len(list(flag.iterdir())) == len(codes), 30)
    return pending


def all_gone(cluster: Cluster) -> None:
    from real_clusters import wait_for

    before = time.monotonic()
    assert wait_for(lambda: not cluster.rank_processes(), GONE_WITHIN), cluster.output()
    print(f"gone after {time.monotonic() - before:.1f} s")


@pytest.mark.parametrize("victim", ["launcher", "rank 0"])
def test_nobody_stays_behind(flavour: Flavour, new_cluster: Callable[..., Cluster], victim: str) -> None:
    cluster = new_cluster(flavour)
    mec = cluster.start(4)
    occupy(cluster, mec, SLEEPS, SORTS, KEEPS_THE_GIL)
    os.kill(cluster.launchers[0].pid if victim == "launcher" else cluster.pids(mec)[0], signal.SIGKILL)
    all_gone(cluster)
    cluster.wait_for_engines(0, 15)


def test_nobody_stays_behind_a_terminal(
    flavour: Flavour, new_cluster: Callable[..., Cluster], terminal: tuple[int, int]
) -> None:
    cluster = new_cluster(flavour)
    shell = in_terminal(cluster, terminal, AS_A_SHELL)
    occupy(cluster, cluster.mec(), SLEEPS, KEEPS_THE_GIL)
    shell.kill()
    all_gone(cluster)


def test_ctrl_c_at_the_terminal_ends_all(
    flavour: Flavour, new_cluster: Callable[..., Cluster], terminal: tuple[int, int]
) -> None:
    cluster = new_cluster(flavour)
    in_terminal(cluster, terminal, BY_ITSELF)
    os.write(terminal[0], b"\x03")
    all_gone(cluster)
    cluster.wait_for_engines(0, 15)


def check_lost(error: errors.KernelError, engine: int, pid: int) -> None:
    said = str(error)
    assert f"engine {engine} (rank {engine}, pid {pid} on {os.uname().nodename}) is gone" in said


def test_a_killed_rank_is_told(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    """By default all three MPIs then end the whole set; what the client hears comes first."""
    cluster = new_cluster(flavour)
    mec = cluster.start(3)
    pids = cluster.pids(mec)
    (pending,) = occupy(cluster, mec, SLEEPS)
    queued = mec.execute("x = 1", targets=[1], block=False)
    assert mec.queue_status(targets=1)[0][1]["queue"]  # it has arrived
    before = time.monotonic()
    os.kill(pids[1], signal.SIGKILL)
    for result in (pending, queued):
        with pytest.raises((errors.CompositeError, errors.EngineLost)) as info:
            result.get_result(timeout=30)
        check_lost(info.value, 1, pids[1])
        assert "EngineLost" in str(info.value)
    assert time.monotonic() - before < GONE_WITHIN
    all_gone(cluster)
    cluster.wait_for_engines(0, 15)


RECOVERY = {"openmpi": ["--with-ft", "ulfm"], "debian": ["--enable-recovery"]}


@pytest.mark.parametrize("name", RECOVERY)
def test_with_recovery_the_others_go_on(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], name: str
) -> None:
    """The options that ipcluster gives."""
    cluster = new_cluster(flavour_named(name))
    mec = cluster.start(4, *RECOVERY[name])
    pids = cluster.pids(mec)
    _, pending = occupy(cluster, mec, "", SLEEPS)
    os.kill(pids[2], signal.SIGKILL)
    with pytest.raises((errors.CompositeError, errors.EngineLost)) as info:
        pending.get_result(timeout=30)
    check_lost(info.value, 2, pids[2])
    cluster.wait_for_engines(3, 15)
    assert mec.get_ids() == [0, 1, 3]
    mec.push({"a": b"x" * 1_000_000})
    mec.execute("y = len(a) + id")
    assert mec.pull("y") == [1_000_000, 1_000_001, 1_000_003]
    with pytest.raises(errors.InvalidEngineID, match="2"):
        mec.execute("x = 1", targets=[2])
    mec.kill()
    all_gone(cluster)


@pytest.mark.parametrize("name", RECOVERY)
def test_with_recovery_the_others_outlive_rank_0(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], name: str
) -> None:
    """Commands to them, tasks on them, and what ran on them: as if nothing had happened."""
    cluster = new_cluster(flavour_named(name))
    mec = cluster.start(4, *RECOVERY[name])
    _, running = occupy(cluster, mec, KEEPS_THE_GIL, "import time; time.sleep(3); kept = id")
    pids = cluster.pids(mec)
    os.kill(pids[0], signal.SIGKILL)
    cluster.wait_for_engines(3, 15)
    assert mec.get_ids() == [1, 2, 3]
    mec.execute("x = id", targets=[3])
    running.get_result(timeout=30)
    assert mec.pull("kept", targets=[2]) == [2]
    with pytest.raises(errors.InvalidEngineID, match="0"):
        mec.execute("x = 1", targets=[0])
    cluster.launchers[0].kill()
    all_gone(cluster)


def quiet(cluster: Cluster) -> None:
    """Mpiexec had nothing to complain about."""
    text = cluster.output()
    for word in ("Traceback", "MPI_ABORT", "abort", "BAD TERMINATION", "prterun", "ORTE", "non-zero", "exited"):
        assert word not in text, text


@pytest.mark.parametrize(("how", "busy"), [("engines", True), ("controller", False)])
def test_kill_is_a_clean_end(flavour: Flavour, new_cluster: Callable[..., Cluster], how: str, busy: bool) -> None:
    from real_clusters import wait_for

    cluster = new_cluster(flavour)
    mec = cluster.start(3)
    pending = occupy(cluster, mec, SLEEPS, SLEEPS) if busy else []
    mec.kill(controller=how == "controller")
    for result in pending:
        with pytest.raises((errors.CompositeError, errors.EngineLost)) as caught:
            result.get_result(timeout=30)
        assert "it was ended by kill" in str(caught.value)
    assert cluster.launchers[0].wait(20) == 0, cluster.output()
    quiet(cluster)
    assert wait_for(lambda: not cluster.rank_processes(), GONE_WITHIN)
    if how == "controller":
        assert cluster.controller.wait(15) == 0, cluster.output()
    else:
        assert mec.get_ids() == []
        with pytest.raises(errors.NoEnginesRegistered):
            mec.execute("x = 1")


def test_kill_reaches_a_set_with_a_rank_that_keeps_the_gil(
    flavour: Flavour, new_cluster: Callable[..., Cluster]
) -> None:
    """That rank hears nothing; the others do not wait for it for ever, and the launcher ends it with them."""
    cluster = new_cluster(flavour)
    mec = cluster.start(3)
    occupy(cluster, mec, SLEEPS, KEEPS_THE_GIL)
    mec.kill()
    all_gone(cluster)


def test_kill_of_one_engine_after_the_other(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    """The process of a killed engine stays, or MPI would end the others; the last one takes all with it."""
    cluster = new_cluster(flavour)
    mec = cluster.start(3)
    pids = cluster.pids(mec)
    mec.kill(targets=[1])
    assert mec.get_ids() == [0, 2]
    mec.execute("x = id")
    assert mec.pull("x") == [0, 2]
    with pytest.raises(errors.InvalidEngineID, match="1"):
        mec.execute("x = 1", targets=[1])
    mec.kill(targets=[0])
    assert mec.get_ids() == [2]
    mec.push({"a": b"x" * 1_000_000})
    assert [len(a) for a in mec.pull("a")] == [1_000_000]
    # Longer than a rank waits for the others in MPI_Finalize.
    mec.execute("import time; time.sleep(6)")
    assert all(is_running(pid) for pid in pids.values())
    mec.kill(targets=[2])
    assert cluster.launchers[0].wait(20) == 0, cluster.output()
    quiet(cluster)


def test_the_controller_stops_its_engines_on_sigterm(
    flavour: Flavour, new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour)
    cluster.start(2)
    cluster.controller.terminate()
    assert cluster.controller.wait(15) == 0
    assert cluster.launchers[0].wait(20) == 0, cluster.output()
    quiet(cluster)
