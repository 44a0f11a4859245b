"""``ipcluster engines``: add engines to a running cluster."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from ipmpi.cli import argtypes, options
from ipmpi.cli.batch import add_job_options, engines_job
from ipmpi.cli.local import are_here, engine_options, nodes
from ipmpi.cli.monitor import MonitoredController
from ipmpi.cli.reporter import Reporter
from ipmpi.cli.supervise import Supervisor
from ipmpi.client.engines.sharing import begin_launch, end_launch
from ipmpi.client.session.connecting import connect
from ipmpi.errors import FurlError, KernelError, LauncherError
from ipmpi.exits import how_it_ended
from ipmpi.furl import FILE_BYTES, Furl, load, load_furl_or_file, save, security_dir
from ipmpi.launch.batch.registry import batch_system
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.cluster import ClusterRun
from ipmpi.launch.cluster.happenings import EnginesEnded, StopRequest
from ipmpi.launch.cluster.job import Job
from ipmpi.launch.cluster.launch import Launch
from ipmpi.launch.cluster.launchfurl import launch_furl_file
from ipmpi.launch.cluster.lifecycle import Plan
from ipmpi.launch.cluster.local import LocalEngines
from ipmpi.launch.cluster.records import ClusterRecord
from ipmpi.launch.processes.process import Signals

LOCAL: Final = ("local", "mpiexec", "mpirun")


def main(words: Sequence[str]) -> int:
    """Run ``ipcluster engines``; returns its exit code."""
    parsed = parser().parse_args(words)
    if parsed.furl_file:
        with _furl_file(parsed.furl_file) as path, Signals() as signals:
            lifeline = 0 if parsed.furl_file == "-" else None
            run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
            started = _local(parsed, path, options.log_dir(parsed, _name_of(path)), run)
            return _run_alone(ClusterRun(None, started, signals, lifeline), Reporter())
    record = records.find(parsed.name.partition("+")[0])
    if record.ssh:
        raise LauncherError(
            f"The cluster {record.name!r} is on {record.ssh}: log in there, and type "
            f"ipcluster engines {record.far_name} -n {parsed.n or 'N'}"
        )
    with Signals() as signals, _addition(parsed, record) as own, _launch_furl(parsed, own) as path:
        engines = _engines(parsed, own, path)
        told = MonitoredController(
            record.furl_files, Path.exists, only_new=True,
            tell_nodes=None if parsed.any_node else partial(_begin_launch, parsed, own),
        )  # fmt: skip
        batch = isinstance(engines, Job)
        if batch:
            _warn_of_loopback(record)
        plan = Plan(engines.n, parsed.timeout, engines_wait=True, batch=batch, walltime=parsed.walltime)
        return Supervisor(ClusterRun(told, engines, signals), plan, Reporter(), own, adds=True).run()


@contextlib.contextmanager
def _addition(parsed: argparse.Namespace, cluster: ClusterRecord) -> Iterator[ClusterRecord]:
    """A record of these engines and their job, for other commands."""

    def make(name: str) -> ClusterRecord:
        return ClusterRecord(
            name=name,
            kind=_kind(parsed, cluster),
            n=parsed.n or (parsed.nodes or 0) * (parsed.per_node or 0),
            log_dir=str(options.log_dir(parsed, cluster.name)),
            furl_files=cluster.furl_files,
            batch="" if _kind(parsed, cluster) in LOCAL else _kind(parsed, cluster),
            job_name=cluster.job_name or "ipmpi",
        )

    record = records.claim(f"{cluster.name}+", make)
    try:
        yield record
    finally:
        if not record.left_behind:
            records.forget(record.name, record.pid)


def _warn_of_loopback(record: ClusterRecord) -> None:
    """Warn if engines on other machines cannot reach the controller."""
    hosts = [host for host, _ in load(Path(record.furl_files["engine"]), "engine").hints]
    if all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts):
        print(
            f"ipcluster: the controller of {record.name!r} listens for engines on its own machine only; those of "
            "a job on other machines will not reach it. For that it has to be started with --engine-ip 0.0.0.0",
            file=sys.stderr,
            flush=True,
        )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster engines",
        description="Add a set of engines to a cluster that runs. It stays in the foreground, and ends with the "
        "cluster; Ctrl-C ends these engines only. Engines are started as those of the cluster are: on this "
        "machine, or as a job. The options about jobs are those of `ipcluster slurm`.",
    )
    p.add_cluster_name()
    p.add_argument(
        "--furl-file", type=argtypes.furl_or_path, default="", metavar="FILE",
        help="engines on this machine for the controller of this furl file; - reads the furl from standard "
        "input, and the engines end with that",
    )  # fmt: skip
    p.add_argument(
        "--kind", type=_kind_named, default="", metavar="KIND",
        help="local, or a batch system (as the cluster is)",
    )  # fmt: skip
    add_job_options(p)
    p.add_argument(
        "--timeout", type=argtypes.seconds, default=60.0, metavar="SECONDS",
        help="for the engines to come once they are started (60)",
    )  # fmt: skip
    options.add_log_option(p)
    return p


def _kind_named(text: str) -> str:
    return text if text in LOCAL else options.system_name(text)


def _kind(parsed: argparse.Namespace, cluster: ClusterRecord) -> str:
    """Return the kind of start: the requested one, or that of the cluster."""
    return parsed.kind or cluster.batch or "local"


@contextlib.contextmanager
def _launch_furl(parsed: argparse.Namespace, own: ClusterRecord) -> Iterator[Path]:
    """Yield a file with a furl that is worth these engines only."""
    _check_number(own.n)
    path = launch_furl_file(Path(own.furl_files["engine"]), own.run)
    where = None if own.batch or parsed.any_node else nodes(parsed)
    save(path, Furl.parse(_begin_launch(parsed, own, where)))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        # The controller may have ended.
        with (
            contextlib.suppress(KernelError, ValueError, OSError),
            contextlib.closing(connect(own.furl_files["mec"], "mec")) as session,
        ):
            end_launch(session, _launch_name(own))


def _launch_name(own: ClusterRecord) -> str:
    return f"{own.name}-{own.run}"


def _begin_launch(parsed: argparse.Namespace, own: ClusterRecord, where: tuple[str, ...] | None) -> str:
    """Tell the controller of these engines, or later on which nodes their job runs; return their furl."""
    lasts = None if parsed.walltime is None else float(parsed.walltime)
    local = not own.batch and are_here(parsed)
    with contextlib.closing(connect(own.furl_files["mec"], "mec")) as session:
        return begin_launch(session, _launch_name(own), own.n, lasts, local=local, nodes=where)


def _engines(parsed: argparse.Namespace, own: ClusterRecord, furl_file: Path) -> Launch:
    log_dir = Path(own.log_dir)
    if not own.batch:
        return _local(parsed, furl_file, log_dir, own.run)
    asked = replace(engines_job(parsed, furl_file, log_dir), name=own.job_name)
    return Job(batch_system(own.batch), asked, own.run)


def _check_number(n: int | None) -> None:
    if not n:
        raise LauncherError("how many engines? Say -n N")


def _local(parsed: argparse.Namespace, furl_file: Path, log_dir: Path, run: str) -> LocalEngines:
    _check_number(parsed.n)
    arguments = [] if parsed.walltime is None else ["--walltime", f"{parsed.walltime}s"]
    return LocalEngines(engine_options(parsed, furl_file, log_dir, run, True, arguments))


@contextlib.contextmanager
def _furl_file(given: str) -> Iterator[Path]:
    """Yield the furl file; a temporary one for a furl from standard input."""
    if given != "-":
        load_furl_or_file(given, "engine")
        yield Path(given).expanduser().absolute()
        return
    path = security_dir() / f"engines-{os.getpid()}.furl"
    save(path, _read_furl())
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _name_of(furl_file: Path) -> str:
    """Return the cluster to which a furl file belongs, by its folder."""
    return furl_file.parent.name if furl_file.parent.parent == security_dir().absolute() else records.DEFAULT_NAME


def _read_furl() -> Furl:
    """Read one line of standard input, unbuffered, since its end is still to be detected."""
    line = b""
    while not line.endswith(b"\n") and len(line) < FILE_BYTES:
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    found = load_furl_or_file(line.decode("ascii", "replace"), "engine") if b"://" in line else None
    if found is None:
        raise FurlError("standard input does not begin with a furl, as in: ipcluster engines --furl-file - < FILE")
    return found


def _run_alone(cluster: ClusterRun, reporter: Reporter) -> int:
    """Run engines without information from the controller, until they end or are stopped."""
    cluster.start()
    cluster.start_engines()
    for line in cluster.engines.said():
        reporter.say(line)
    failed = ""
    try:
        while cluster.living():
            for happening in cluster.wait(None):
                if isinstance(happening, StopRequest):
                    return 0
                if isinstance(happening, EnginesEnded) and happening.asked:
                    if not happening.left:
                        reporter.say(f"{happening.asked[0].upper()}{happening.asked[1:]}.")
                        cluster.start_engines(f"they are started again: {happening.asked}")
                elif isinstance(happening, EnginesEnded) and happening.code:
                    failed = f"{happening.title} ended ({how_it_ended(happening.code)})."
    finally:
        cluster.stop(polite=False)
        cluster.close()
    if failed:
        reporter.complain(failed)
        reporter.show_logs(cluster.engines.logs(), cluster.engines.log_dir)
    return 1 if failed else 0
