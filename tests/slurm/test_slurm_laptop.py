"""From a laptop through a login node to batch nodes: a real OpenSSH server, and a real Slurm behind it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import psutil
import pytest

# Tests are imported by path (importlib), so the helper beside them is not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from real_slurm import wait_for

import ipmpi
from tests.reach.conftest import NAME, Server, find_sshd

if TYPE_CHECKING:
    from real_slurm import Slurm

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def login_node(
    slurm: Slurm, need: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """An sshd whose users may submit jobs. What they write there is seen by all nodes."""
    folder = slurm.folder / "login"
    folder.mkdir()
    server = Server(folder, find_sshd(need), SLURM_CONF=slurm.environ["SLURM_CONF"])
    monkeypatch.setenv("IPMPI_SSH", server.client)
    yield server
    server.stop()


def test_a_laptop_steers_batch_nodes_also_when_ssh_breaks(
    slurm: Slurm, login_node: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    said: list[str] = []
    with ipmpi.Cluster(
        "slurm", n=6, nodes=3, time="0:10:00", ssh=f"{NAME}:{login_node.remote}", engine_ip=slurm.address,
        client_ip="127.0.0.1", echo=said.append,
    ) as cluster:  # fmt: skip
        mec, tc = cluster.multiengine(), cluster.task()
        assert [engine["host"] for engine in mec.cluster_info()["engines"]] == ["n1", "n1", "n2", "n2", "n3", "n3"]
        tasks = [tc.submit(pow, n, 2) for n in range(100)]
        array = numpy.arange(8_000_000.0)
        pushed = mec.push({"array": array}, block=False)
        os.kill(ssh_of(cluster), signal.SIGKILL)
        pushed.get_result()
        mec.execute("total = mpi.COMM_WORLD.allreduce(array.sum())")
        assert mec.pull("total") == [6 * array.sum()] * 6
        assert tc.gather(tasks) == [n * n for n in range(100)]
        (job,) = cluster.jobs
        assert slurm.state(job) == "RUNNING"
    assert login_node.logins() == 2, "one, and one more after ssh was killed"
    assert wait_for(lambda: slurm.state(job) in ("CANCELLED", "COMPLETED"), 30), "the job ends with the cluster"


def ssh_of(cluster: ipmpi.Cluster) -> int:
    """The process of ssh that the cluster's ipcluster has."""
    (found,) = [
        child.pid
        for child in psutil.Process(cluster.pid).children(recursive=True)
        if Path(child.exe()).name == "ssh"
    ]
    return found


def test_a_cluster_from_python_on_the_login_node(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    home = slurm.folder / "python"
    monkeypatch.setenv("IPYTHONDIR", str(home))
    monkeypatch.setenv("SLURM_CONF", slurm.environ["SLURM_CONF"])
    for name in set(os.environ) - set(slurm.environ):
        monkeypatch.delenv(name)
    with ipmpi.Cluster("slurm", n=2, time="0:10:00", engine_ip=slurm.address, client_ip="127.0.0.1") as cluster:
        assert cluster.multiengine().apply(lambda: 6 * 7) == [42, 42]
