"""Clusters with one home folder: each has furl files and log files of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.launchfurl import launch_furl_file
from tests.cli.running import REAL, ROOT, WITH_FAKE_BATCH, WITH_FAKES, Batch, Run
from tests.security.cluster import LOOPBACK, controller, wait_until

HERE = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1", "--mpi", "none")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def controller_pid() -> int:
    """Of the cluster that a client without a name finds."""
    with MultiEngineClient() as mec:
        mec.execute("import os; parent = os.getppid()")
        (parent,) = set(mec.pull("parent"))
        return int(parent)


@pytest.mark.slow
def test_the_default_names_are_those_of_the_newest_cluster_and_are_given_back(
    ipcluster: Callable[..., Run], home: Path
) -> None:
    first = ipcluster("-n", "1", *HERE, command=REAL)
    first.until("kill -INT")
    assert controller_pid() == first.process.pid
    second = ipcluster("-n", "1", *HERE, command=REAL)
    second.until("kill -INT")
    ipcluster("-n", "1", *HERE, "--name", "aside", command=REAL).until("kill -INT")
    assert "mec = client.MultiEngineClient()" in second.text
    assert controller_pid() == second.process.pid
    for name in ("default", "default-2", "aside"):
        with MultiEngineClient(name=name) as mec:
            assert mec.get_ids() == [0]
    second.process.send_signal(signal.SIGINT)
    assert second.ends() == 0
    assert controller_pid() == first.process.pid
    first.process.send_signal(signal.SIGINT)
    assert first.ends() == 0
    left = {str(path.relative_to(home / "security")) for path in home.glob("security/**/*.furl")}
    (launch,) = {name for name in left if name.startswith("aside/ipengine-")}
    assert left - {launch} == {f"aside/ipcontroller-{role}.furl" for role in ("engine", "mec", "tc", "monitor")}


def test_clusters_that_are_started_at_once_do_not_mix(ipcluster: Callable[..., Run], home: Path) -> None:
    runs = [ipcluster("-n", "2", "--mpi", "none") for _ in range(4)]
    for run in runs:
        run.until("kill -INT")
    there = records.living()
    assert sorted(record.name for record in there) == ["default", "default-2", "default-3", "default-4"]
    assert {record.pid for record in there} == {run.process.pid for run in runs}
    ports = {Path(record.furl_files["engine"]).read_text() for record in there}
    assert len(ports) == 4
    # Each has the log files of its own two engines.
    for record in there:
        assert len(list((home / "log" / record.name).glob(f"ipengine-{record.run}-*.log"))) == 2


def test_a_job_that_waited_joins_the_cluster_that_submitted_it(fake: Batch, ipcluster: Callable[..., Run]) -> None:
    fake.set("hold")
    waiting = fake("-n", "1", "--detach")
    assert waiting.ends() == 0
    (record,) = records.living()
    ipcluster("-n", "1", "--mpi", "none").until("kill -INT")
    script = next(Path(record.log_dir).glob("*.fake")).read_text()
    furl_file = launch_furl_file(Path(record.furl_files["engine"]), record.run)
    assert f"FURL_FILE={furl_file}\n" in script
    others = [each for each in records.living() if each.name != record.name]
    assert record.furl_files["engine"] not in {each.furl_files["engine"] for each in others}
    stopped = ipcluster("stop", record.name, command=WITH_FAKES, **fake.environ)
    assert stopped.ends() == 0, stopped.text


@pytest.mark.slow
def test_the_job_of_added_engines_is_known_when_their_process_was_killed(
    fake: Batch, ipcluster: Callable[..., Run]
) -> None:
    ipcluster("-n", "1", *HERE, command=REAL).until("kill -INT")
    (record,) = records.living()
    fake.set("hold")
    added = ipcluster("engines", "--kind", "fake", "-n", "3", command=WITH_FAKE_BATCH, **fake.environ)
    added.until("Submitted job 1 to Fake")
    added.process.send_signal(signal.SIGKILL)
    added.ends()
    listed = ipcluster("list", command=WITH_FAKE_BATCH, **fake.environ)
    assert listed.ends() == 0
    row = next(line for line in listed.text.splitlines() if line.startswith("default+2 "))
    assert row.split()[:4] == ["default+2", "fake", "3", "dead"]
    assert row.split()[-1] == "1"
    stopped = ipcluster("stop", "default+2", command=WITH_FAKE_BATCH, **fake.environ)
    assert stopped.ends() == 0, stopped.text
    assert fake.state() == "CANCELLED"
    assert [each.name for each in records.living()] == ["default"]
    assert Path(record.furl_files["engine"]).exists()


# --- started by hand ---------------------------------------------------------------------------------------


def test_a_controller_and_an_engine_by_hand_print_what_they_do_and_keep_it(home: Path) -> None:
    """As the original has it: all of the components have log files."""
    with controller(home, [*LOOPBACK, "--name", "mine"]) as running:
        path = home / "log" / "mine" / f"ipcontroller-{os.uname().nodename}-{running.pid}.log"
        wait_until(lambda: "Controller is ready" in path.read_text(), "its log")
        assert "Controller is ready" in running.log()
        assert MultiEngineClient(name="mine").get_ids() == []
        command = [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none", "--name", "mine"]
        engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.wait_engines(1)
    printed, _ = engine.communicate(timeout=30)
    (log,) = (home / "log" / "mine").glob(f"ipengine-{os.uname().nodename}-{engine.pid}.log")
    for text in (printed, log.read_text()):
        assert "engine registration succeeded, got id: 0" in text


def test_where_no_log_file_can_be_written_it_is_printed_all_the_same(home: Path) -> None:
    """As on compute nodes whose home folder is read-only."""
    (home / "log").write_text("this is no folder")
    with controller(home) as running:
        wait_until(lambda: "Controller is ready" in running.log(), "what it prints")


def test_a_controller_by_hand_gives_back_the_furl_files_of_another(home: Path) -> None:
    with controller(home) as first:
        before = first.furl("mec")
        with controller(home) as second:
            assert second.furl("mec") != before
        assert first.furl("mec") == before


SAME_PID = """
import os, sys
from pathlib import Path
from ipmpi.cli.logs import start_log
assert os.getpid() == 1
path = start_log(sys.argv[1], "ipengine", int(sys.argv[2]) if len(sys.argv) > 2 else None)
import logging
logging.getLogger("ipengine").info("said by %s", sys.argv[1:])
print(path.name)
"""


@pytest.mark.parametrize(("ranks", "suffixes"), [(["0", "1"], ["0-1.log", "1-1.log"]), ([], ["1.log", "1.2.log"])])
def test_processes_with_the_same_pid_do_not_write_to_the_same_log(
    home: Path, need: Callable[[str, object], None], ranks: list[str], suffixes: list[str]
) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    need("a pid namespace", subprocess.run([*apart, "true"], check=False).returncode == 0)
    names = []
    for number in range(2):
        done = subprocess.run(
            [*apart, sys.executable, "-c", SAME_PID, f"{home}/log/ipengine-", *ranks[number : number + 1]],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        names.append(done.stdout.strip())
    assert names == [f"ipengine-{os.uname().nodename}-{suffix}" for suffix in suffixes]
    for name in names:
        assert (home / "log" / name).read_text().count("said by") == 1
