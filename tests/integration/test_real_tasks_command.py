"""``ipcluster tasks`` against a real cluster: what people see, and the files with results."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, TaskClient
from tests.integration.test_real_journal import Killed
from tests.security.cluster import Controller, controller, engines, environment, wait_until

pytestmark = [pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    home = tmp_path_factory.mktemp("cluster")
    with controller(home) as running, engines(home, 1):
        running.wait_engines(1)
        yield running


@pytest.fixture
def tc(cluster: Controller) -> Iterator[TaskClient]:
    with TaskClient(str(cluster.furl_file("tc"))) as made:
        yield made


def tasks(cluster: Controller, *words: str, folder: Path | None = None) -> tuple[int, str]:
    """The exit code of a command, and what it has printed."""
    furl = str(cluster.furl_file("tc"))
    done = subprocess.run(
        [sys.executable, "-m", "ipmpi.cli.ipcluster", "tasks", *words, "--furl-file", furl],
        env=environment(cluster.home), cwd=folder or cluster.home, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def square_or_fail(number: int) -> np.ndarray:
    if number == 3:
        raise ValueError("three is not liked")
    return np.full(2, number * number)


def test_results_are_fetched_into_files(cluster: Controller, tc: TaskClient, tmp_path: Path) -> None:
    futures = [tc.submit(square_or_fail, number, name="squares") for number in range(6)]
    wait_until(lambda: all(future.done() for future in futures), "the end of all tasks")
    code, said = tasks(cluster, "list")
    assert code == 0, said
    header, row = said.splitlines()
    assert header.split() == ["NAME", "SUBMITTED", "BY", "WAITING", "RUNNING", "DONE", "FAILED", "CLIENT"]
    assert re.fullmatch(r"squares  \d{4}-\d\d-\d\d \d\d:\d\d  \S+@\S+ +0 +0 +5 +1 +there", row)
    assert [header.index(word) for word in ("DONE", "FAILED")] == [row.index(" 5 ") + 1, row.index(" 1 ") + 1]

    code, said = tasks(cluster, "show", "squares")
    assert code == 0, said
    assert re.search(r"^squares: 6 tasks, submitted on .*\n.*whose client is there$", said, re.MULTILINE)
    assert re.search(r"^ +5 done$", said, re.MULTILINE)

    code, said = tasks(cluster, "fetch", "squares", folder=tmp_path)
    assert (code, said) == (0, "squares.pkl: 5 results, 1 failed\n")
    with open(tmp_path / "squares.pkl", "rb") as file:
        found = pickle.load(file)
    assert found["name"] == "squares"
    assert [None if each is None else each.tolist() for each in found["results"]] == [
        [0, 0], [1, 1], [4, 4], None, [16, 16], [25, 25],
    ]  # fmt: skip
    assert list(found["errors"]) == [3]
    assert "ValueError: three is not liked" in found["errors"][3]

    code, said = tasks(cluster, "fetch", "squares", "-o", "found.npz", folder=tmp_path)
    assert (code, said) == (0, "found.npz: 5 results, 1 failed\n")
    arrays = np.load(tmp_path / "found.npz")
    assert arrays["results"].tolist() == [[0, 0], [1, 1], [4, 4], [16, 16], [25, 25]]
    assert arrays["numbers"].tolist() == [0, 1, 2, 4, 5]

    assert tasks(cluster, "forget", "squares") == (0, "squares: 6 tasks were forgotten\n")
    code, said = tasks(cluster, "list")
    assert (code, said) == (0, "There are none: no tasks with a name, and none of clients that are gone.\n")


def test_a_map_is_fetched_when_it_has_ended(cluster: Controller, tc: TaskClient, tmp_path: Path) -> None:
    results = tc.imap(abs, range(-20, 0), name="mapped")
    code, said = tasks(cluster, "fetch", "mapped", "--wait", "-o", "m.npz", folder=tmp_path)
    assert (code, said) == (0, "m.npz: 20 results, 0 failed\n")
    assert np.load(tmp_path / "m.npz")["results"].tolist() == list(range(20, 0, -1))
    assert list(results) == list(range(20, 0, -1))
    tc.forget("mapped")


def test_what_waits_is_cancelled(cluster: Controller, tc: TaskClient, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait(path: str) -> str:
        import os

        while not os.path.exists(path):
            time.sleep(0.01)
        return "ran"

    first = tc.submit(wait, str(gate), name="slow")
    others = [tc.submit(wait, str(gate), name="slow") for _ in range(50)]
    wait_until(lambda: tc.queue_status()["pending"] > 0, "the first runs")
    code, said = tasks(cluster, "fetch", "slow", folder=tmp_path)
    assert code == 1
    assert re.search(r"51 of the tasks 'slow' have not ended: give --wait to wait for them, or come back", said)
    code, said = tasks(cluster, "cancel", "slow")
    assert (code, said) == (0, "slow: what had not started is cancelled, and what has ended is kept.\n")
    wait_until(lambda: all(other.done() for other in others), "others are cancelled")
    assert all(other.cancelled() for other in others)
    gate.touch()
    assert first.result(60) == "ran"
    tc.forget("slow")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "sweeep"], r"there are no tasks named 'sweeep'; see: ipcluster tasks list"),
        (["fetch", "odd", "-o", "no/such/folder.pkl"], r"no/such/folder.pkl cannot be written: No such file"),
        (["fetch", "odd", "-o", "odd.npz"], r"the results are not numbers or arrays: fetch them into a .pkl file"),
        (["fetch"], r"fetch needs the name of the tasks; see: ipcluster tasks list"),
    ],
    ids=["unknown", "no folder", "no numbers", "no name"],
)
def test_errors_tell_what_to_do(
    cluster: Controller, tc: TaskClient, tmp_path: Path, words: list[str], told: str
) -> None:
    tc.submit(str.upper, "a", name="odd").result(60)
    code, said = tasks(cluster, *words, folder=tmp_path)
    tc.forget("odd")
    assert code != 0
    assert re.search(told, said), said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


# --- tasks of furls that were given out ------------------------------------------------------------------------


def pid_of_engine() -> int:
    import os

    time.sleep(0.05)
    return os.getpid()


def test_tasks_of_a_furl_that_ends_are_cancelled(cluster: Controller, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait(path: str, ran: str) -> None:
        import os

        os.close(os.open(ran, os.O_CREAT))
        while not os.path.exists(path):
            time.sleep(0.01)

    with MultiEngineClient(str(cluster.furl_file("mec"))) as mec:
        made = mec.share("tasks")
        with TaskClient(made.furl) as theirs:
            futures = [theirs.submit(wait, str(gate), str(tmp_path / f"{i}"), name="theirs") for i in range(50)]
            wait_until(lambda: (tmp_path / "0").exists(), "the first runs")
            mec.revoke(made.id)
            with pytest.raises(errors.FurlEnded, match="it was revoked"):
                futures[0].result(60)
        gate.touch()
        with TaskClient(str(cluster.furl_file("tc"))) as tc:
            assert tc.submit(abs, -1).result(60) == 1
            wait_until(lambda: tc.queue_status()["pending"] + tc.queue_status()["scheduled"] == 0, "nothing waits")
    assert len([path for path in tmp_path.iterdir() if path != gate]) < 20, "what engines had runs to its end"


def test_bounds_hold_after_the_client_and_the_controller_were_killed(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    try:
        with engines(tmp_path, 1), engines(tmp_path, 1):
            killed.now.wait_engines(2)
            with MultiEngineClient(str(killed.now.furl_file("mec"))) as mec:
                mec.execute("import os; pid = os.getpid()")
                allowed = mec.pull("pid", targets=[0])[0]
                made = mec.share("tasks", engines=[0])
            theirs = TaskClient(made.furl)
            first = theirs.submit(pid_of_engine, name="bounded")
            [theirs.submit(pid_of_engine, name="bounded") for _ in range(100)]
            assert first.result(60) == allowed
            theirs.close()  # named tasks go on
            killed.kill()
            killed.now.wait_engines(2)
            with TaskClient(made.furl) as again:
                found = again.resume("bounded")
                assert isinstance(found, list)
                assert {future.result(60) for future in found} == {allowed}
            with TaskClient(str(killed.now.furl_file("tc"))) as others:
                assert others.history() == []
    finally:
        killed.now.stop()
