"""The controller is killed with -9 while ranks run commands, with others queued behind: everything ends as if not.

The long form: ``IPMPI_COMMAND_KILLS=200 pytest tests/integration/test_real_commands_survive.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, PendingResult
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.controllerends import MOST, WITHIN
from ipmpi.launch.cluster.records import ClusterRecord
from tests.security.cluster import environment, wait_until

KILLS = int(os.environ.get("IPMPI_COMMAND_KILLS", "3"))
QUEUED = 20
MPICH = os.environ.get("IPMPI_MPICH_PYTHON", "")

pytestmark = pytest.mark.timeout(180 + 30 * KILLS)

ALLOWED = {name: value for name, value in os.environ.items() if name.startswith("OMPI_ALLOW")}

NOTE = """
def note(number, seconds=0.0):
    import os, time
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, b"%d %d\\n" % (number, id))
    os.close(descriptor)
    time.sleep(seconds)

from mpi4py import MPI
"""


class RealCluster:
    """A cluster of two ranks that ipcluster runs, whose controller can be killed."""

    def __init__(self, home: Path, python: str) -> None:
        self._log = open(home / "ipcluster.log", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, "-m", "ipmpi.cli.ipcluster", "-n", "2", "--name", "sweep", "--restarts", "0"],
            env=environment(
                home, {name: value for name, value in os.environ.items() if name.startswith("OMPI_ALLOW")}
            ),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        wait_until(self.is_up, "the cluster is up", 60)

    def is_up(self) -> bool:
        assert self.process.poll() is None, Path(self._log.name).read_text()
        record = records.load("sweep")
        return record is not None and record.up is not None

    @property
    def record(self) -> ClusterRecord:
        record = records.load("sweep")
        assert record is not None
        return record

    def kill(self) -> None:
        os.kill(self.record.controller, signal.SIGKILL)

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0, Path(self._log.name).read_text()
        self._log.close()


@pytest.fixture(
    params=["openmpi", pytest.param("mpich", marks=pytest.mark.skipif(not MPICH, reason="no IPMPI_MPICH_PYTHON"))],
)
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RealCluster]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    started = RealCluster(tmp_path, MPICH if request.param == "mpich" else sys.executable)
    yield started
    started.end()


@pytest.fixture
def mec(cluster: RealCluster) -> Iterator[MultiEngineClient]:
    with MultiEngineClient(cluster.record.furl_files["mec"]) as mec:
        mec.execute(NOTE)
        yield mec


def test_running_and_queued_commands_end_once_and_in_order(
    cluster: RealCluster, mec: MultiEngineClient, tmp_path: Path
) -> None:
    for cycle in range(KILLS):
        if KILLS >= MOST:
            time.sleep(WITHIN / MOST + 1)  # ipcluster gives up a controller that ends more often
        path = tmp_path / f"ran-{cycle}"
        mec.execute(f"path = {str(path)!r}")
        first = mec.execute("note(0, 0.7 + id); print('rank', id)", block=False)
        together = "total = MPI.COMM_WORLD.allreduce({}); note({})"
        others = [mec.execute(together.format(number, number), block=False) for number in range(1, QUEUED)]
        total = mec.pull("total", block=False)
        wait_until(lambda path=path: path.exists() and len(path.read_text().split("\n")) == 3, "both run")
        cluster.kill()
        later = mec.execute(f"note({QUEUED})", block=False)
        shown = str(first.get_result(60))
        assert shown.count("rank 0\n") == shown.count("rank 1\n") == 1, shown
        for pending in (*others, later):
            pending.get_result(60)
        assert total.get_result(60) == [2 * (QUEUED - 1)] * 2
        ran = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
        for engine in (0, 1):
            assert [number for number, where in ran if where == engine] == list(range(QUEUED + 1))
        assert mec.get_ids() == [0, 1]


def failed(pending: PendingResult) -> set[str]:
    """The types of the exceptions that a call has raised on its engines."""
    with pytest.raises(errors.CompositeError) as raised:
        pending.get_result(60)
    return {kind.__name__ for kind, *_ in raised.value.elist}


FAILS = """
import os, time
note(1)
while not os.path.exists(path + ".go"):
    time.sleep(0.01)
print("before")
note(1)
1 / 0
"""


def test_what_ended_while_no_controller_ran_is_told(
    cluster: RealCluster, mec: MultiEngineClient, tmp_path: Path
) -> None:
    path = tmp_path / "ran"
    mec.execute(f"path = {str(path)!r}")
    failing = mec.execute(FAILS, block=False)
    cleared = mec.execute("note(2)", block=False)
    mec.queue_status()  # answered when it is queued
    path.with_suffix(".go").touch()
    wait_until(lambda: path.exists() and path.read_text().count("\n") == 4, "both are about to fail")
    cluster.kill()
    assert failed(failing) == {"ZeroDivisionError"}
    assert failed(cleared) == {"QueueCleared"}
    assert {line.split()[0] for line in path.read_text().splitlines()} == {"1"}


def test_bodies_are_sent_again_as_they_were(cluster: RealCluster, mec: MultiEngineClient) -> None:
    small, large = np.arange(1000), np.arange(200_000)
    running = mec.execute("import time; time.sleep(1)", block=False)
    pushes = [mec.push({"small": small}, block=False), mec.push({"large": large}, block=False)]
    sums = mec.pull(("small", "large"), block=False)
    cluster.kill()
    small[:] = 0
    for pending in (running, *pushes):
        pending.get_result(60)
    try:
        got = sums.get_result(60)
    except errors.ConnectionError:
        got = mec.pull(("small", "large"))
    for a, b in got:
        assert a.sum() == 999 * 500
        assert b.sum() == large.sum()
