"""Programs with a loop of their own, steered while they run, under each MPI."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi.client import MultiEngineClient, ProgramMonitor, Simulation
from ipmpi.errors import ClientError, CommandTimeout, CompositeError, ConnectionError, EngineLost, FurlError
from tests.ports import fixed_port
from tests.processes import is_running

sys.path.insert(0, str(Path(__file__).parent))
from real_clusters import Cluster, Flavour, wait_for

PROGRAM = str(Path(__file__).with_name("steered_program.py"))
ON_NODES = str(Path(__file__).with_name("steered_on_nodes.py"))
RANKS = 4
REQUESTS = int(os.environ.get("IPMPI_STEER_REQUESTS", "25"))
"""Pauses, changes and looks by chance, of one run; 1,000 of them take some minutes."""


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


@pytest.mark.timeout(120 + 2 * REQUESTS)
def test_a_run_that_was_steered_equals_one_with_the_changes_in_its_script(controller: Cluster) -> None:
    """Bit by bit; and so does one that repeats the record."""
    first = launch(controller, 4, 100_000, 0.003)
    controller.wait_for_engines(4)
    sim = controller.mec().simulation()
    assert "4 ranks, running" in repr(sim)
    changes = steer_at_random(sim, REQUESTS, random.Random(1))
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


def test_a_program_on_several_nodes_that_is_paused_when_its_controller_is_killed(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    program = cluster.launch(cluster.command(6, program=(ON_NODES,), args=["100000", "0.003"]))
    cluster.wait_for_engines(6)
    assert len(cluster.agents()) == 3
    sim = cluster.mec().simulation()
    steer_at_random(sim, 15, random.Random(2))
    watch = sim.watch("residual")
    _ = sim.resume()
    assert next(watch).step < next(watch).step
    sim.pause()
    cluster.controller.kill()
    cluster.controller.wait()
    printed = cluster.home / "engines0.out"
    sentence = "the controller has not been reachable for 10 s: the program goes on"
    assert wait_for(lambda: sentence in printed.read_text(), 40)
    assert printed.read_text().count(sentence) == 1, "rank 0 says it"
    cluster._records.clear()
    os.close(cluster._lifeline)
    cluster.controller = cluster._start_controller()
    cluster.wait_for_engines(6)
    again = cluster.mec().simulation()
    assert not again.is_paused
    again.stop()
    assert program.wait(30) == 0


def test_a_program_outlives_its_controller_and_finds_another_one(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    """With fixed ports it has the same furl, and everybody has the ids of before."""
    ports = ("--client-port", str(fixed_port()), "--engine-port", str(fixed_port()))
    cluster = new_cluster(flavour_named("openmpi"), ports)
    program = launch(cluster, 4, 100_000, 0.01)
    cluster.wait_for_engines(4)
    furl, pids = Path(cluster.files["multiengine_furl_file"]).read_text(), cluster.pids(cluster.mec())
    cluster.controller.kill()
    cluster.controller.wait()
    assert all(is_running(pid) for pid in pids.values())
    cluster._records.clear()
    os.close(cluster._lifeline)
    cluster.controller = cluster._start_controller()
    cluster.wait_for_engines(4)
    assert Path(cluster.files["multiengine_furl_file"]).read_text() == furl
    mec = cluster.mec()
    assert cluster.pids(mec) == pids
    at = mec.simulation().pause()
    assert mec.simulation().step(2) == at + 2
    mec.simulation().resume()
    assert len(set(steps(mec))) == 1
    # Its agent dies: nobody steers any more, and the program does not notice.
    (agent,) = cluster.agents()
    os.kill(agent, signal.SIGKILL)
    cluster.wait_for_engines(0)
    assert all(is_running(pid) for pid in pids.values())
    os.killpg(program.pid, signal.SIGTERM)


AWKWARD = str(Path(__file__).with_name("awkward_program.py"))


def look_on(cluster: Cluster) -> None:
    """Watch the awkward program with the furl of monitors, and try what that does not permit."""
    monitor_furl = Path(cluster.files["engine_furl_file"]).with_name("ipcontroller-monitor.furl")
    with ProgramMonitor(monitor_furl) as monitor:
        assert repr(monitor) == "<monitor of awkward_program.py: 3 ranks>"
        with pytest.raises(ClientError, match="the program has published no 'nothing' "):
            monitor.watch("nothing")
        with pytest.raises(ClientError, match=r"monitor may watch numbers and arrays of NumPy, .* of type list"):
            monitor.watch("table")
        with monitor.watch("shared", every=10, reduce="max") as most, monitor.watch("shared", every=10) as plain:
            by_step = dict(itertools.islice(plain, 20))
            until = max(by_step)  # they do not begin at the same step
            there = itertools.takewhile(lambda sample: sample[0] <= until, most)
            seen = [(step, value) for step, value in there if step in by_step]
        assert seen
        assert all(value == by_step[step] + 2 for step, value in seen)
    with pytest.raises(FurlError, match="monitor"):
        Simulation(monitor_furl)


def test_values_are_watched_by_several_clients_until_the_program_ends(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    program = cluster.launch(cluster.command(3, program=(AWKWARD,), args=["1"]))
    cluster.wait_for_engines(3)
    sim, other = cluster.mec().simulation(), cluster.mec().simulation()
    with pytest.raises(ClientError, match="the program has published no 'nothing' "):
        sim.watch("nothing")
    with pytest.raises(
        ClientError, match=r"rank 1 says: the program has published no 'only_here' .*\(rank 0 has it"
    ):
        sim.watch("only_here", reduce="max")
    with pytest.raises(ClientError, match="table is not a number that can be watched"):
        sim.watch("table")
    with pytest.raises(ClientError, match=r"rank 1 says: huge is not a number .*\(rank 0 has it"):
        sim.watch("huge")
    plain = sim.watch("shared", every=10)
    reduced = {name: other.watch("shared", every=10, reduce=name) for name in ("max", "min", "sum", "mean")}
    by_step = {name: dict(itertools.islice(watch, 8)) for name, watch in reduced.items()}
    own = dict(itertools.islice(plain, 12))
    for step in set.intersection(set(own), *map(set, by_step.values())):
        value = own[step]
        assert [by_step[name][step] for name in reduced] == [value + 2, value, 3 * value + 3, value + 1]
    assert all(step % 10 == 9 for step in own)
    assert "<watch of shared: " in repr(plain)
    plain.stop()
    assert len(list(plain)) < 1_000, "it ends"
    # A change of one rank's mind is a change of nobody's.
    with pytest.raises(TypeError, match="dt is of type float"):
        sim.dt = "small"
    assert sim.dt == 1.0
    with pytest.raises(
        ClientError, match=r"n is not the same on all ranks \(int on engine 0; float on engines 1-2\)"
    ):
        sim.n = 3
    assert [state["params"]["n"] for state in sim._values("state")] == [1, 1.5, 1.5]
    with pytest.raises(
        AttributeError, match=r"'step' of a simulation cannot be assigned: only its parameters \(dt, n\)"
    ):
        sim.step = 3  # type: ignore[method-assign, assignment]
    with pytest.raises(AttributeError, match="'dtt' is no parameter of this program"):
        sim.dtt = 3
    assert "dt" in dir(sim)
    with pytest.raises(ClientError, match="has no function that writes a checkpoint"):
        sim.checkpoint()
    look_on(cluster)
    sim.stop()
    assert program.wait(30) == 0
    assert list(reduced["max"])[-1].step > 10
    assert "ended" in repr(reduced["max"])


def test_ranks_that_tick_unequally_are_told_of_and_the_program_goes_on(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    program = cluster.launch(cluster.command(2, program=(AWKWARD,), args=["2"]))
    cluster.wait_for_engines(2)
    mec = cluster.mec()
    assert wait_for(lambda: min(place.tick for place in Simulation._places(_view(mec)).values()) > 20, 20)
    begun = Simulation._places(_view(mec))
    with pytest.raises(CompositeError) as caught:
        mec.pull("shared")
    for kind, value, _ in caught.value.elist:
        assert kind is CommandTimeout
        assert re.search(
            r"rank 0 did not come there.*ranks do not tick equally often.*all ranks go on", str(value)
        )
    assert wait_for(lambda: Simulation._places(_view(mec))[1].tick > begun[1].tick + 50, 20), "it goes on"
    # Ctrl-C, or a timeout of the client, withdraws what has not begun.
    with pytest.raises(CompositeError) as caught:
        mec.execute("x = 1", timeout=0.3)
    assert {kind for kind, _, _ in caught.value.elist} == {CommandTimeout}
    begun = Simulation._places(_view(mec))
    assert wait_for(lambda: Simulation._places(_view(mec))[1].tick > begun[1].tick + 50, 20), "it goes on"
    os.killpg(program.pid, signal.SIGTERM)


def _view(mec: MultiEngineClient) -> Any:
    """A handle of the ranks that asks them nothing."""
    return SimpleNamespace(engines=mec[mec.get_ids()], program="")


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


ATTACHED = str(Path(__file__).with_name("attached_program.py"))


def attach_as(cluster: Cluster, mode: str) -> subprocess.Popen[bytes]:
    """Start three ranks that attach in this way."""
    return cluster.launch(cluster.command(3, program=(ATTACHED,), args=[mode]))


def test_ranks_that_attach_in_another_way_than_others_keep_nobody_waiting(controller: Cluster) -> None:
    assert attach_as(controller, "thread").wait(60) == 0
    said = controller.output()
    assert "ipmpi: the program runs without being steered: on rank 1, attach() was called in a thread" in said
    assert said.count("ipmpi:") == 1
    assert all(f"rank {rank} ends" in said for rank in range(3))


@pytest.mark.parametrize("mode", ["twice", "then all", "part"])
def test_of_several_attaches_the_first_one_counts(controller: Cluster, mode: str) -> None:
    """Also of a part of the ranks; those that have attached to nothing compute as ever."""
    program = attach_as(controller, mode)
    ranks = 3 if mode == "twice" else 2
    controller.wait_for_engines(ranks)
    sim = controller.mec().simulation()
    assert len(sim) == ranks
    at = sim.pause()
    assert sim.step(3) == at + 3
    assert sim.engines.pull("size") == [ranks] * ranks
    sim.stop()
    assert program.wait(60) == 0
    assert controller.output().count("attach() was called before") == {"twice": 3, "then all": 1, "part": 0}[mode]


def test_parts_of_a_launch_are_programs_of_their_own(controller: Cluster) -> None:
    program = attach_as(controller, "halves")
    controller.wait_for_engines(3)
    with pytest.raises(
        ClientError, match=r"2 programs .*\(attached_program\.py\), under one name.*attach\(program="
    ):
        controller.mec().simulation()
    os.killpg(program.pid, signal.SIGTERM)


def agents_below(cluster: Cluster) -> list[int]:
    """The agents of a program that have no link to the controller."""
    logs = [path.read_text() for path in cluster.home.glob("log/*/ipprogram-*.log")]
    found = [re.search(r"pid (\d+), the agent", text) for text in logs if "Using furl file" not in text]
    return [int(each[1]) for each in found if each]


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_a_node_agent_below_the_root_is_killed(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], paused: bool
) -> None:
    """Its ranks run on without being steered, the others are steered still, and nobody waits for them in MPI."""
    cluster = new_cluster(flavour_named("openmpi"))
    program = cluster.launch(cluster.command(6, program=(ON_NODES,), args=["1000000", "0.003"]))
    cluster.wait_for_engines(6)
    sim = cluster.mec().simulation()
    watch = sim.watch("residual", reduce="sum")
    next(watch)
    if paused:
        sim.pause()
    os.kill(agents_below(cluster)[0], signal.SIGKILL)
    cluster.wait_for_engines(4)
    left = r"engines (2-3|4-5) of the program .* left it, and engines 0-.* did not: call client\.Simulation"
    with pytest.raises(EngineLost, match=left):
        sim.pause()
    rest = cluster.mec().simulation()
    assert len(rest) == 4
    assert rest.is_paused == paused, "those who have been paused hold until they are let go"
    rest.resume()
    at = rest.step_number
    assert wait_for(lambda: rest.step_number > at + 100, 60), "all ranks go on, as each of them needs the others"
    assert list(watch), "what has come before, and then it ends"
    watch.stop()
    at = rest.pause()
    assert rest.step(2) == at + 2
    for what in (lambda: rest.change({"nu": 0.1}), rest.stop, rest.checkpoint, lambda: rest.watch("residual")):
        with pytest.raises(ClientError, match=r"only .* of the 6 ranks of the program .* can still be steered"):
            what()
    assert rest.nu == 0.5
    rest.resume()
    at = rest.step_number
    assert wait_for(lambda: rest.step_number > at + 100, 60)
    said = (cluster.home / "engines0.out").read_text()
    alone = re.findall(r"rank [24] and others on .* is not steered any more \(the agent .* is gone\)", said)
    assert len(alone) == paused, "a rank that runs has no need to look"
    os.killpg(program.pid, signal.SIGTERM)


def test_a_program_that_ends_while_it_is_paused_or_makes_steps(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    program = launch(cluster, 2, 1_000_000, 0.003)
    cluster.wait_for_engines(2)
    sim = cluster.mec().simulation()
    watch = sim.watch("residual")
    sim.pause()
    os.killpg(program.pid, signal.SIGKILL)
    program.wait(30)
    cluster.wait_for_engines(0)
    for what in (sim.resume, sim.step, sim.checkpoint, lambda: sim.change({"nu": 0.1}), lambda: sim.is_paused):
        with pytest.raises(EngineLost, match=r"program steered_program\.py has ended, or is not steered any more"):
            what()
    assert len(list(watch)) < 1_000, "it ends"
    assert sim.has_ended
    assert wait_for(lambda: not cluster.agents(), 30)
    # Steps that do not come any more.
    program = launch(cluster, 2, 300, 0.02)
    cluster.wait_for_engines(2)
    sim = cluster.mec().simulation()
    with pytest.raises(EngineLost, match=r"program steered_program\.py has ended(, or| before step)"):
        sim.step(1_000)
    assert program.wait(30) == 0
    assert final(cluster, 1)[1] == 300


def test_a_controller_that_is_killed_during_pause(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    """The call ends with an error, and the program goes on by itself, to its end."""
    cluster = new_cluster(flavour_named("openmpi"))
    program = launch(cluster, 2, 6, 4)
    cluster.wait_for_engines(2)
    sim = cluster.mec().simulation()
    killed = threading.Timer(0.2, cluster.controller.kill)
    killed.start()

    def pause_and_resume() -> None:
        while True:  # nearly all of the time, it waits for ranks to end their steps
            sim.pause()
            sim.resume()

    with pytest.raises(ConnectionError, match="controller"):
        pause_and_resume()
    killed.join()
    cluster.controller.wait()
    assert program.wait(90) == 0
    assert final(cluster)[1] == 6
