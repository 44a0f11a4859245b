"""ipcluster starts a controller again that was killed, and everybody goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.cluster import Cluster
from ipmpi.errors import ConnectionError
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.records import ClusterRecord
from tests.security.cluster import wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    yield tmp_path
    left = [path for path in (tmp_path / "security").rglob("*") if path.is_file()]
    assert left == [], "nothing stays after an orderly end"


def record_of(cluster: Cluster) -> ClusterRecord:
    record = records.load(cluster.name)
    assert record is not None
    return record


def kill(cluster: Cluster) -> float:
    """Kill the controller; return how many seconds it took until another one accepted a client."""
    former = record_of(cluster).controller
    os.kill(former, signal.SIGKILL)
    began = time.monotonic()
    wait_until(lambda: record_of(cluster).controller != former, "another one was started")
    while True:
        try:
            MultiEngineClient(record_of(cluster).furl_files["mec"]).close()
            return time.monotonic() - began
        except (ConnectionError, OSError):
            assert time.monotonic() < began + 60


def test_clients_engines_names_and_tasks_go_on(home: Path) -> None:
    with Cluster(n=2, name="sweep", echo=None) as cluster:
        mec, tc = cluster.multiengine(), cluster.task()
        mec.execute("kept = id + 10")
        journal = home / "security" / "sweep" / "controller.journal"
        assert record_of(cluster).journal == str(journal)
        assert journal.stat().st_mode & 0o777 == 0o600
        took = []
        for _ in range(2):
            tasks = tc.map(abs, range(-200, 0))
            took.append(kill(cluster))
            assert list(tasks) == list(range(200, 0, -1))
            wait_until(lambda: mec.get_ids() == [0, 1], "both engines are back")
            assert mec.pull("kept") == [10, 11]
        print(f"accepting {max(took):.2f} s after the kill, at most")


def test_without_a_journal_engines_and_furls_stay(home: Path) -> None:
    with Cluster(n=2, journal="none", echo=None) as cluster:
        mec = cluster.multiengine()
        mec.execute("kept = id + 10")
        assert record_of(cluster).journal == ""
        kill(cluster)
        with pytest.raises(ConnectionError):
            mec.pull("kept")
        again = cluster.multiengine()
        wait_until(lambda: again.get_ids() == [0, 1], "both engines are back")
        assert again.pull("kept") == [10, 11]
    assert list((home / "security").rglob("*.journal")) == []


def restart(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ipmpi.cli.ipcluster", "restart", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_restart_by_command(home: Path) -> None:
    del home
    with Cluster(n=2, name="sweep", echo=None) as cluster:
        tc = cluster.task()
        former = record_of(cluster).controller
        os.kill(former, signal.SIGSTOP)  # it does not react any more
        ended = restart("sweep")
        assert ended.returncode == 0, ended.stderr
        new = record_of(cluster).controller
        assert re.fullmatch(
            rf"The controller of the cluster 'sweep' was started again after \d+\.\d s: process {new} in place of "
            rf"{former}\.\n",
            ended.stdout,
        )
        assert tc.submit(abs, -3).result(60) == 3
    ended = restart("sweep")
    assert ended.returncode == 1
    assert "No cluster is known" in ended.stderr


def test_a_new_client_with_the_same_furl_reaches_the_new_controller(home: Path) -> None:
    del home
    with Cluster(n=1, mpi="none", echo=None) as cluster:
        cluster.wait()
        furl = record_of(cluster).furl_files["tc"]
        text = Path(furl).read_text()
        kill(cluster)
        assert Path(furl).read_text() == text
        with TaskClient(furl) as tc:
            assert tc.submit(abs, -1).result(60) == 1


@pytest.mark.parametrize("journal", [{}, {"journal": "none"}], ids=["journal", "no-journal"])
def test_added_engines_stay_and_are_counted_as_before(home: Path, journal: dict[str, str]) -> None:
    del home
    with Cluster(n=2, name="sweep", mpi="none", echo=None, **journal) as cluster:
        mec = cluster.multiengine()
        words = [sys.executable, "-m", "ipmpi.cli.ipcluster", "engines", "sweep", "-n", "1", "--mpi", "none"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as more:
            assert mec.wait_for_engines(3, timeout=60) is None
            mec.execute("kept = id + 10")
            kill(cluster)
            again = cluster.multiengine()
            again.wait_for_engines(3, timeout=60)
            assert again.pull("kept") == [10, 11, 12]
            again.kill(targets=[0])  # of others: nothing to be told by the command that has added one
            wait_until(lambda: again.get_ids() == [1, 2], "one has ended")
            assert again.execute("kept += 1", targets=2)
            more.send_signal(signal.SIGINT)
            said, _ = more.communicate(timeout=60)
            assert more.returncode == 0, said
            wait_until(lambda: again.get_ids() == [1], "the added engine has ended")
    assert "1 engine was added to the cluster 'sweep'." in said
    assert "left" not in said, said
