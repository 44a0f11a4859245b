"""Programs with a loop of their own, steered while they run, under each MPI."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient

sys.path.insert(0, str(Path(__file__).parent))
from real_clusters import Cluster, Flavour, is_running, wait_for

PROGRAM = str(Path(__file__).with_name("steered_program.py"))
RANKS = 8


def launch(cluster: Cluster, ranks: int, *args: object, **environ: str) -> subprocess.Popen[bytes]:
    """Start the program, and do not wait for it."""
    argv = cluster.command(ranks, program=(PROGRAM,), args=[str(each) for each in args])
    return cluster.launch(argv, **environ)


def final(cluster: Cluster, number: int = 0) -> tuple[str, int]:
    """What a program has computed, and after how many steps."""
    text = (cluster.home / f"engines{number}.out").read_text()
    found = re.search(r"final (\w+) after (\d+)", text)
    assert found, f"{text}\n{cluster.output()}"
    return found[1], int(found[2])


def agent_log(cluster: Cluster) -> str:
    """What the agents of the program have logged."""
    return "\n".join(path.read_text() for path in cluster.home.glob("log/*/ipprogram-*.log"))


def steps(mec: MultiEngineClient) -> list[int]:
    """The last step of each rank, at some moment."""
    return list(mec.pull("step"))


@pytest.fixture(params=["openmpi", pytest.param("mpich", marks=pytest.mark.mpich)])
def controller(
    request: pytest.FixtureRequest,
    flavour_named: Callable[[str], Flavour],
    new_cluster: Callable[..., Cluster],
) -> Cluster:
    """A controller for programs of an MPI."""
    return new_cluster(flavour_named(request.param))


def test_commands_are_performed_at_one_step_on_all_ranks(controller: Cluster) -> None:
    """Whatever ranks are doing: each has delays of its own, and messages under way that need both sides."""
    program = launch(controller, RANKS, 100_000, 0.01)
    controller.wait_for_engines(RANKS)
    mec = controller.mec()
    seen = []
    for _ in range(15):
        told = steps(mec)
        assert len(set(told)) == 1, told
        seen.append(told[0])
    assert seen == sorted(seen)
    assert len(set(seen)) > 5, "the program goes on between them"
    # Of commands for one rank, too, no rank is beyond the step.
    (one,) = mec.pull("step", targets=[3])
    assert steps(mec)[0] >= one
    assert {engine["program"] for engine in mec.cluster_info()["engines"]} == {"steered_program.py"}
    printed = mec.execute("print('hello from', comm.allreduce(1), 'ranks')")
    assert [each.stdout for each in printed] == [f"hello from {RANKS} ranks\n"] * RANKS
    # Ended engines are a program that goes on without being steered.
    mec.kill()
    controller.wait_for_engines(0)
    assert program.poll() is None
    assert wait_for(lambda: not controller.agents(), 10)
    assert program.poll() is None
    assert "it goes on" in (controller.home / "engines0.out").read_text()
    os.killpg(program.pid, signal.SIGTERM)


def test_a_program_outlives_its_controller_and_finds_another_one(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    program = launch(cluster, 4, 100_000, 0.01)
    cluster.wait_for_engines(4)
    pids = cluster.pids(cluster.mec())
    cluster.controller.kill()
    cluster.controller.wait()
    assert all(is_running(pid) for pid in pids.values())
    cluster._records.clear()
    os.close(cluster._lifeline)
    cluster.controller = cluster._start_controller()
    cluster.wait_for_engines(4)
    mec = cluster.mec()
    assert cluster.pids(mec) == pids
    assert len(set(steps(mec))) == 1
    # Its agent dies: nobody steers any more, and the program does not notice.
    (agent,) = cluster.agents()
    os.kill(agent, signal.SIGKILL)
    cluster.wait_for_engines(0)
    assert all(is_running(pid) for pid in pids.values())
    os.killpg(program.pid, signal.SIGTERM)


def test_without_a_controller_a_program_runs_as_ever(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    """It computes the same, and what came with it is gone when it has ended."""
    cluster = new_cluster(flavour_named("openmpi"))
    results = []
    for number, environ in enumerate(({"IPMPI_STEERING": "off"}, {"IPYTHONDIR": str(cluster.home / "nobody")})):
        assert launch(cluster, 2, 200, 0, **environ).wait(60) == 0
        results.append(final(cluster, number))
    assert results[0] == (results[0][0], 200)
    assert results[0] == results[1]
    assert wait_for(lambda: not cluster.agents(), 10)
