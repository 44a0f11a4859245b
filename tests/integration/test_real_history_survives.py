"""The controller is killed with -9: a new client of the next one finds what others had given, and its results."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, PastCommand, TaskClient
from tests.integration.test_real_commands_survive import RealCluster
from tests.integration.test_real_journal import Killed
from tests.integration.vanishing import client_process, kill
from tests.security.cluster import Controller, engines, wait_until

pytestmark = [pytest.mark.timeout(240)]


def waits(gate: Path) -> str:
    """Code that waits until the file is there."""
    return f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"


def reached(furl: str) -> MultiEngineClient:
    """A client, as soon as the next controller listens."""
    found: list[MultiEngineClient] = []

    def connects() -> bool:
        with contextlib.suppress(errors.ConnectionError):
            found.append(MultiEngineClient(furl))
        return bool(found)

    wait_until(connects, "another controller was started")
    return found[0]


def text(mec: MultiEngineClient, since: str) -> str:
    """What was printed since then, once for each engine."""
    printed = [block for each in mec.recent_outputs(since) for block in each.output.blocks]
    return "".join(block.text * len(block.engines) for block in printed)


def by_label(mec: MultiEngineClient) -> dict[str, PastCommand]:
    """The commands of the history, by the last word of their sources, or by their methods."""
    found = mec.history()
    return {(each.source or each.method).split()[-1]: each for each in found}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealCluster]:
    """Two ranks of Open MPI, and a controller that ipcluster starts again."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    started = RealCluster(tmp_path, sys.executable)
    yield started
    started.end()


def test_a_new_client_of_the_next_controller_finds_what_was_given(cluster: RealCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = f"print('begun', flush=True)\n{waits(gate)}print('goes on')\nid * 2 # running"
    source = f"""
        import contextlib
        from mpi4py import MPI
        mec.execute("print('rank', id)\\nid + 1 # done")
        with contextlib.suppress(Exception):
            mec.execute("1 / 0 # failed", targets=1)
        mec.apply(bytes, 3_000_000)
        pending = mec.execute({running!r}, block=False)
        behind = mec.execute("print('never') # waiting", block=False)
        while "".join(pending.stdout).count("begun") < 2:
            time.sleep(0.01)
    """
    files = cluster.record.furl_files
    home: Any = SimpleNamespace(home=tmp_path, furl_file=lambda role: files[role])
    kill(client_process(home, "mec", "MultiEngineClient", source))
    with MultiEngineClient(files["mec"]) as mec:
        wait_until(lambda: mec.history()[-1].client == "gone", "it is known that the client is gone")
        before = mec.history()
    with TaskClient(files["tc"]) as tc:
        tc.submit(abs, -1)
        for _ in range(2):  # it was accepted in an earlier turn, so it is in the journal, with all before it
            tc.queue_status()
    cluster.kill()
    with reached(files["mec"]) as mec:
        found = mec.history()
        assert [each.name for each in found] == [each.name for each in before]
        assert [(each.given, each.user, each.source, each.client) for each in found] == [
            (each.given, each.user, each.source, "gone") for each in before
        ]
        named = by_label(mec)
        assert named["done"] == before[0]
        assert {name: each.state for name, each in named.items()} == {
            "done": "done", "failed": "failed", "apply": "done", "running": "running", "waiting": "failed",
        }  # fmt: skip
        done = mec.get_result(named["done"])
        assert (done.stdout, done.values) == (["rank 0\n", "rank 1\n"], ["1", "2"])
        with pytest.raises(errors.CompositeError) as caught:
            mec.get_result(named["failed"])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        for which, why in (
            ("apply", "has run there, but its answer was too large to be kept here"),
            ("waiting", "did not run: it waited when the controller was killed, and its client is gone"),
        ):
            with pytest.raises(errors.CompositeError) as caught:
                mec.get_result(named[which])
            assert why in str(caught.value.__cause__)
        pending = mec.get_result(named["running"], block=False)
        assert not pending.done()
        gate.touch()
        results = pending.result(60)
        assert (results.stdout, results.values) == (["begun\ngoes on\n"] * 2, ["0", "2"])
        assert by_label(mec)["running"].state == "done"
        outputs = text(mec, "1h")
        assert outputs.count("begun") == outputs.count("goes on") == 2
        assert "never" not in outputs
        assert "rank 1" in outputs


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Killed]:
    """A controller and two sets of one engine each."""
    killed = Killed(tmp_path)
    try:
        with engines(tmp_path, 2):
            killed.now.wait_engines(2)
            yield killed
    finally:
        killed.now.stop()


def begun(controller: Controller, code: str) -> subprocess.Popen[str]:
    """A client whose command has printed on both engines."""
    source = f"""
        pending = mec.execute({code!r}, block=False)
        while "".join(pending.stdout).count("begun") < 2:
            time.sleep(0.01)
        mec.get_ids()  # it is heard of after that
    """
    return client_process(controller, "mec", "MultiEngineClient", source)


def test_what_ended_while_no_controller_ran_and_its_client_was_gone(controller: Killed, tmp_path: Path) -> None:
    gate, ended = tmp_path / "gate", tmp_path / "ended"
    code = f"print('begun', flush=True)\n{waits(gate)}print('more')\nopen('{ended}' + str(id), 'w')\nid"
    client = begun(controller.now, code)
    controller.now.stop(signal.SIGKILL)
    kill(client)
    gate.touch()
    for engine in range(2):
        wait_until((tmp_path / f"ended{engine}").exists, "it has ended")
    controller.kill()
    with MultiEngineClient(str(controller.now.furl_file("mec"))) as mec:
        (past,) = mec.history()
        assert (past.state, list(past.engines), list(past.running)) == ("done", [0, 1], [])
        results = mec.get_result(past)
        assert (results.stdout, results.values) == (["begun\nmore\n"] * 2, ["0", "1"])


def test_who_follows_a_command_hears_of_it_from_the_next_controller(controller: Killed, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    client = begun(controller.now, f"print('begun', flush=True)\n{waits(gate)}print('more')\nid")
    with MultiEngineClient(str(controller.now.furl_file("mec"))) as mec:
        (past,) = mec.history()
        pending = mec.get_result(past, block=False)
        wait_until(lambda: "".join(pending.stdout).count("begun") == 2, "it hears what was printed")
        for _ in range(3):
            controller.kill()
        gate.touch()
        results = pending.result(60)
        assert (results.stdout, results.values) == (["begun\nmore\n"] * 2, ["0", "1"])
        (again,) = mec.history()
        assert (again.state, again.client, again.given) == ("done", "there", past.given)
        kill(client)


def test_output_that_was_missed_is_known_after_a_restart(controller: Killed, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    kill(begun(controller.now, f"print('begun', flush=True)\n{waits(gate)}print('missed')"))
    wait_until(lambda: "and its process has ended" in controller.now.log(), "it is known that the client is gone")
    gate.touch()
    controller.kill()
    with MultiEngineClient(str(controller.now.furl_file("mec"))) as mec:
        mec.get_result(mec.history()[-1])
        shown = text(mec, "last")
        assert shown.count("missed") == 2
        assert "begun" not in shown
