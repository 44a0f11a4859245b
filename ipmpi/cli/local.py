"""``ipcluster local``: a controller and its engines on this machine, with one command."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from ipmpi.cli import argtypes, options
from ipmpi.cli.detach import detach
from ipmpi.cli.supervise import Supervisor
from ipmpi.launch.batch.allocation import allocation, in_allocation
from ipmpi.launch.cluster.cluster import ClusterRun
from ipmpi.launch.cluster.launch import Launch
from ipmpi.launch.cluster.launchfurl import LaunchFurl
from ipmpi.launch.cluster.lifecycle import Plan
from ipmpi.launch.cluster.local import EngineOptions, LocalEngines
from ipmpi.launch.cluster.records import ClusterRecord
from ipmpi.launch.processes import restarts
from ipmpi.launch.processes.mpi import names_machines
from ipmpi.launch.processes.process import Signals


def main(command: str, words: Sequence[str]) -> int:
    """Run ``ipcluster local``; returns its exit code."""
    parsed = parser(command).parse_args(words)
    if parsed.detach and parsed.status_fd is None:
        return detach([command, *words], options.early_log_dir(parsed), "up")
    keep_engines_here(parsed)
    with Signals() as signals, options.claimed(parsed, "local", parsed.n) as record:
        waits = options.keeps_furl(parsed)
        launch = options.launch_furl(parsed, record, parsed.n, local=are_here(parsed), nodes=nodes(parsed))
        engines = LocalEngines(engine_options(parsed, launch.file, Path(record.log_dir), record.run, waits))
        plan = Plan(parsed.n, parsed.timeout, engines_wait=waits, restarts=parsed.restarts)
        return supervise(parsed, record, signals, engines, plan, launch)


def keep_engines_here(parsed: argparse.Namespace) -> None:
    """Let the controller listen for engines on loopback, if all engines are on this machine.

    In an allocation on a login node, even of a single machine, engines are elsewhere.
    """
    asked = parsed.engine_ip or parsed.engine_port is not None or parsed.engine_location
    if are_here(parsed) and not asked:
        parsed.engine_ip = "localhost"


def are_here(parsed: argparse.Namespace) -> bool:
    """Return whether all engines are on this machine."""
    return not (in_allocation(os.environ) or names_machines(launcher_words(parsed)))


def nodes(parsed: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the machines that the engines may be on; None if they are not known."""
    here = os.uname().nodename
    if are_here(parsed):
        return (here,)
    job = allocation(os.environ)
    if job is None or not job.nodes or names_machines(launcher_words(parsed)):
        return None
    return (here, *job.nodes)


def launcher_words(parsed: argparse.Namespace) -> tuple[str, ...]:
    """Return the options of the launcher, as words."""
    return tuple(word for text in parsed.launcher_options for word in shlex.split(text))


def parser(command: str = "local") -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog=f"ipcluster {command}",
        description="Start a controller and N engines on this machine, and stop them together. "
        "The engines are the ranks of one MPI job, unless --mpi none is given.",
    )
    p.add_argument(
        "kind",
        nargs="?",
        default="local",
        choices=["local", "mpiexec", "mpirun"],
        help="all three do the same: engines on this machine, started by mpiexec",
    )
    p.add_argument("-n", "--n", "--num", type=argtypes.engine_number, default=2, metavar="N", help="engines (2)")
    p.add_argument(
        "--mpi", choices=["auto", "mpi4py", "none"], default="auto", help="none: plain processes without MPI"
    )
    p.add_argument(
        "--launcher", type=argtypes.path_name, default="auto", metavar="PATH", help="the mpiexec to use"
    )
    options.add_launcher_options(p)
    p.add_argument(
        "--gpus", dest="gpus_per_node", type=argtypes.engine_number, default=None, metavar="N",
        help="GPUs of this machine, shared among its engines",
    )  # fmt: skip
    p.add_argument("--timeout", type=argtypes.seconds, default=60.0, metavar="SECONDS", help="for the start (60)")
    p.add_argument(
        "--restarts", type=argtypes.count_or_none, default=restarts.DEFAULT, metavar="N",
        help=f"start engines again that have all ended, so often ({restarts.DEFAULT}); tasks wait for them",
    )  # fmt: skip
    options.add_cluster_options(p)
    return p


def engine_options(
    parsed: argparse.Namespace, furl_file: Path, log_dir: Path, run: str, waits: bool, more: Sequence[str] = ()
) -> EngineOptions:
    """Return the options of the engines."""
    return EngineOptions(
        parsed.n, log_dir, run, furl_file, parsed.mpi, parsed.launcher or "auto", waits, parsed.timeout,
        fault_tolerance=parsed.fault_tolerance, launcher_options=launcher_words(parsed),
        arguments=(*more, *options.rank_arguments(parsed)),
    )  # fmt: skip


def supervise(
    parsed: argparse.Namespace,
    record: ClusterRecord,
    signals: Signals,
    engines: Launch,
    plan: Plan,
    launch: LaunchFurl,
) -> int:
    """Run a controller and these engines until one of them ends; return the exit code."""
    cluster = ClusterRun(options.controller(parsed, record, launch), engines, signals, parsed.lifeline_fd)
    furl = options.mec_arguments(parsed)
    return Supervisor(cluster, plan, options.reporter(parsed), record, furl, log_files=log_files).run()


def log_files(record: ClusterRecord) -> list[str]:
    """Return lines about the log files."""
    return [f"Log files: {record.log_dir}/*-{record.run}-*.log"]
