"""Programs with a loop of their own, steered while they run, under each MPI."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient, Simulation
from ipmpi.errors import EngineLost

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
    assert [each["stdout"] for each in printed] == [f"hello from {RANKS} ranks\n"] * RANKS
    # Ended engines are a program that goes on without being steered.
    mec.kill()
    controller.wait_for_engines(0)
    assert program.poll() is None
    assert wait_for(lambda: not controller.agents(), 10)
    assert program.poll() is None
    assert "it goes on" in (controller.home / "engines0.out").read_text()
    os.killpg(program.pid, signal.SIGTERM)


def steer_at_random(sim: Simulation, times: int, chance: random.Random) -> dict[int, float]:
    """Pause, step, change and go on; return the changes of ``nu`` by step. All ranks are always at one step."""
    changes: dict[int, float] = {}
    for _ in range(times):
        what = chance.choice(("pause", "resume", "step", "change", "change", "look"))
        if what == "change":
            nu = chance.random()
            changes[sim.change({"nu": nu})] = nu
        elif what == "step":
            sim.step(chance.randrange(1, 4))
        elif what == "look":
            states = sim._values("state")
            assert len({(state["step"], state["params"]["nu"]) for state in states}) == 1
        else:
            getattr(sim, what)()
    return changes


def test_a_run_that_was_steered_equals_one_with_the_changes_in_its_script(controller: Cluster) -> None:
    """Bit by bit; and so does one that repeats the record."""
    first = launch(controller, 4, 100_000, 0.003)
    controller.wait_for_engines(4)
    sim = controller.mec().simulation()
    assert "4 ranks, running" in repr(sim)
    changes = steer_at_random(sim, 25, random.Random(1))
    sim.pause()
    assert "paused at" in repr(sim)
    record = sim.record()
    stopped = sim.stop()
    assert first.wait(30) == 0
    wanted = final(controller)
    assert wanted[1] == stopped
    assert repr(sim) == "<simulation steered_program.py: ended>"
    with pytest.raises(EngineLost, match="has ended, or is not steered any more"):
        sim.pause()

    script = ",".join(f"{step}:{nu}" for step, nu in changes.items())
    assert launch(controller, 4, stopped, 0, script, IPMPI_STEERING="off").wait(60) == 0
    assert final(controller, 1) == wanted
    record.save(controller.home / "run.record")
    again = {"TEST_REPLAY": str(controller.home / "run.record"), "IPYTHONDIR": str(controller.home / "nobody")}
    assert launch(controller, 4, stopped, 0, **again).wait(60) == 0
    assert final(controller, 2) == wanted


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
