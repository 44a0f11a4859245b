"""Who listens for connections where one machine is enough: the controller, and nobody else if it can be helped."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import ipmpi
from ipmpi.launch.processes.mpi import find_mpi, mpi_command

if TYPE_CHECKING:
    from real_clusters import Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

LOOPBACK = ("127.0.0.1", "::1")
PROGRAM = """
import sys
from mpi4py import MPI
assert MPI.COMM_WORLD.allreduce(1) == MPI.COMM_WORLD.size
MPI.COMM_WORLD.barrier()
if MPI.COMM_WORLD.rank == 0:  # alone: launchers may mix what several print
    print("UP", flush=True)
    sys.stdin.readline()
MPI.COMM_WORLD.barrier()
"""


def listening(process: Any) -> set[tuple[str, int]]:
    """Addresses and ports on which a process listens. (In psutil 6 the method got another name.)"""
    ask = getattr(process, "net_connections", None) or process.connections
    return {tuple(found.laddr) for found in ask(kind="tcp") if found.status == psutil.CONN_LISTEN}


def open_ports(root: psutil.Process) -> dict[int, set[tuple[str, int]]]:
    """By process id, what the processes below this one listen on beyond loopback, each port once: at its owner."""
    found: dict[int, set[tuple[str, int]]] = {}
    seen: set[tuple[str, int]] = set()
    for process in [root, *root.children(recursive=True)]:  # parents come first, and ranks inherit from launchers
        own = {place for place in listening(process) if place[0] not in LOOPBACK} - seen
        seen |= own
        if own:
            found[process.pid] = own
    return found


def test_ranks_on_one_machine_open_no_port_to_the_network(flavour: Flavour) -> None:
    command = mpi_command(
        2, launcher=flavour.launcher, python=flavour.python, root=os.geteuid() == 0, single_host=True
    )
    argv = [*command.argv[: command.argv.index("-m")], "-c", PROGRAM]
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMPI_MCA", "UCX", "FI_"))
    }
    with subprocess.Popen(
        argv, env={**environ, **command.environ}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "UP\n"
        open_to_all = open_ports(psutil.Process(process.pid))
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(20) == 0
    # prterun, mpiexec of Open MPI 4 and hydra listen on all addresses, and have no setting for that.
    assert set(open_to_all) <= {process.pid}


@pytest.mark.skipif(find_mpi() is None, reason="no mpiexec here")
def test_of_a_cluster_on_one_machine_only_controller_and_launcher_listen(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    for name in ("OMPI_MCA_btl", "OMPI_MCA_pml"):
        monkeypatch.delenv(name, raising=False)
    with ipmpi.Cluster("local", n=2, echo=None, client_ip="127.0.0.1", engine_ip="127.0.0.1") as cluster:
        cluster.wait()
        ports = open_ports(psutil.Process(cluster.pid))
        children = {child.pid: child.name() for child in psutil.Process(cluster.pid).children()}
        assert {children[pid] for pid in ports} <= {"mpiexec", "prterun", "mpirun", "hydra", "mpiexec.hydra"}


def test_of_a_cluster_without_mpi_nobody_listens_but_the_controller(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    options = {"client_ip": "127.0.0.1", "engine_ip": "127.0.0.1"}
    with ipmpi.Cluster("local", n=2, mpi="none", echo=None, **options) as cluster:
        cluster.wait()
        assert open_ports(psutil.Process(cluster.pid)) == {}
