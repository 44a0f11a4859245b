"""``ipcluster explain``: why a job waits, which engines are missing, and what failed."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .. import furl
from ..client import MultiEngineClient
from ..environment.walltime import moment
from ..errors import FurlError, KernelError, LauncherError
from ..furl import CLUSTER_NAME, ipython_dir
from ..launch.batch.batchsystem import job_number
from ..launch.batch.nodelist import expand_nodes
from ..launch.batch.queue import Queue
from ..launch.batch.registry import BatchSystem, JobState, JobStatus, batch_system, batch_systems
from ..launch.cluster import records
from ..launch.cluster.job import job_logs
from ..launch.cluster.logs import log_files
from ..launch.cluster.records import ClusterRecord
from ..launch.doctor import diagnostics as f
from ..launch.doctor.check_engines import check_presence
from ..launch.doctor.check_job import check_job
from ..launch.doctor.check_ranks import LogFacts, check_losses, check_ranks, check_time, failing_log
from ..launch.doctor.diagnostics import Diagnostic
from ..launch.doctor.logfiles import read_logs, read_losses
from . import argtypes
from .options import system_name
from .printing import show, show_diagnostics

LINES: Final = 20
_JOB: Final = re.compile(r"\d+(\[\d*\])?(_\d+)?(\.[\w.-]+)?(;[\w.-]+)?")
CLUSTER: Final = "Cluster"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster explain",
        description="Say why a job waits and how long still, how it ended, which engines of a cluster are "
        "missing, and show the end of the log that tells what failed. The exit code is 1 if something failed.",
    )
    p.add_argument(
        "what", nargs="?", type=_cluster_or_job, default="", metavar="NAME|JOB",
        help="a cluster (see ipcluster list; default: the one there is), or the id of a job",
    )  # fmt: skip
    p.add_argument(
        "--batch", type=system_name, default="", metavar="SYSTEM",
        help="of a job: slurm, pbs (default: the one here)",
    )  # fmt: skip
    p.add_argument(
        "--logdir", type=argtypes.path, default=None, metavar="DIR", help="where the log files of a job are (logs)"
    )
    p.add_argument("--lines", type=_lines, default=LINES, metavar="N", help=f"of the failing log ({LINES})")
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    return p


_lines: Final = argtypes.number("log_lines", "a number of lines", argtypes.digits, 0, 10_000)


def _cluster_or_job(text: str) -> str:
    if text and CLUSTER_NAME.fullmatch(text) is None and _JOB.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither the name of a cluster nor the id of a job")
    return argtypes.line(text)


@dataclass
class Report:
    """Diagnostics, the log that shows the failure, and how many other logs end alike."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    log: LogFacts | None = None
    alike: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``ipcluster explain``; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        stray = None if options.what or records.clusters() else explain_controller()
        record = None if stray is not None else _record(options.what)
        if stray is not None:
            report = stray
        elif record is not None:
            report = explain_cluster(record, time.time())
        else:
            system = _system(options.batch, options.what)
            report = explain_job(system, options.what, options.logdir, time.time())
    except KernelError as error:
        print(f"ipcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _print(report, options.lines, as_json=options.json)
    return f.exit_code(report.diagnostics)


def _print(report: Report, lines: int, *, as_json: bool) -> None:
    log = report.log
    shown = [] if log is None or not lines else list(log.lines[-lines:])
    if as_json:
        told = None if log is None else {"path": log.path, "lines": shown, "alike": report.alike}
        show(json.dumps({"findings": [each.as_dict() for each in report.diagnostics], "log": told}, indent=1))
        return
    show_diagnostics(report.diagnostics)
    if log is not None and shown:
        more = f" ({report.alike} more end alike)" if report.alike else ""
        show("\n".join([f"\nThe last lines of {log.path}{more}:", *(f"    {line}" for line in shown)]))


# --- the argument --------------------------------------------------------------------------------------------


def _record(what: str) -> ClusterRecord | None:
    """Return the record of the given cluster or job; None for a job that belongs to no cluster.

    Raises:
        LauncherError: neither a cluster nor a job.
    """
    if not what:
        return records.find()
    known = records.load(what) if CLUSTER_NAME.fullmatch(what) else None
    if known is not None:
        return known  # also one whose process has died
    if _JOB.fullmatch(what) is None:
        return records.find(what)
    own, number = records.living(), job_number(what)
    owners = [record for record in own if number in {job_number(job) for job in record.jobs}]
    return owners[0] if owners else None


def _system(name: str, job: str) -> BatchSystem:
    """Return the batch system of a job: the given one, or the one that is installed."""
    if name:
        return batch_system(name)
    here = [system for system in batch_systems().values() if system.is_here()]
    if len(here) == 1:
        return here[0]
    names = ", ".join(sorted(system.name for system in here or batch_systems().values()))
    found = "there are several batch systems here" if here else "there is no batch system on this machine"
    raise LauncherError(
        f"{found}, so job {job} cannot be asked about. Name one with --batch ({names}), on the machine from which "
        "the job was submitted"
    )


# --- a job ---------------------------------------------------------------------------------------------------


def explain_job(system: BatchSystem, job: str, folder: Path | None, now: float) -> Report:
    """Explain a job, by its batch system and its output."""
    status = _status(system, job)
    report = Report(check_job(system.name, system.title, status, now))
    if status.state is JobState.PENDING:
        return report
    logs: list[LogFacts] = []
    kept = ipython_dir() / "log"
    places = [Path("logs"), Path(), *sorted(kept.glob("*/"))] if folder is None else [folder]
    for place in places:
        logs = logs or read_logs(job_logs(system, place, "*", job))
    if status.outcome not in ("completed", "cancelled", "timeout", "preempted"):
        _add_log(report, logs, [], failed=status.outcome == "failed")
    if status.outcome == "failed" and report.log is None:
        looked_at = [place for place in places if place.parent != kept] + [kept] * (folder is None)
        where = ", ".join(str(place.absolute()) for place in looked_at)
        text, fix = f"What it printed is not in {where}.", "Name the folder: ipcluster explain JOB --logdir DIR"
        report.diagnostics.append(f.note(f"Job {status.id}", "job-output", text, fix.replace("JOB", job)))
    return report


def _status(system: BatchSystem, job: str) -> JobStatus:
    """Return the status of a job; if it is unknown, that of the job array with this number."""
    queue = Queue(system)
    status = queue.status(job)
    array = system.as_array(job)
    if array and status.state is JobState.ENDED and not status.outcome:
        found = queue.status(array)
        return found if found.outcome or found.state is not JobState.ENDED else status
    return status


def _add_log(
    report: Report, logs: Sequence[LogFacts], engines: Sequence[dict[str, Any]], *, failed: bool = False
) -> None:
    """Add the log that shows the failure; for a failed job, its output in any case."""
    found = failing_log(logs, engines)
    if found is not None:
        report.log, report.alike = found
    elif failed:
        report.log = next((log for log in logs if log.kind == "output" and log.lines), None)


# --- a controller that was started by hand ---------------------------------------------------------------------


def explain_controller() -> Report | None:
    """Explain the controller of the default furl files, if it replies."""
    try:
        with MultiEngineClient() as mec:
            engines = list(mec.cluster_info()["engines"])
    except KernelError:
        return None
    text = "A controller runs that was not started by ipcluster, so its jobs and log files are not known."
    report = Report([f.note(CLUSTER, "cluster", text, "Ask about a job by its id: ipcluster explain JOB")])
    if engines:
        # The requested number of engines is unknown.
        report.diagnostics += check_ranks(len(engines), engines) + check_time(engines)
    else:
        report.diagnostics += check_presence([], [], {})
    return report


# --- a cluster -----------------------------------------------------------------------------------------------


def explain_cluster(record: ClusterRecord, now: float) -> Report:
    """Explain a cluster: its process, jobs, engines and logs."""
    report = Report(_describe(record, now))
    if record.ssh:
        text = f"It is on {record.ssh}; what its jobs and logs say can be seen there only."
        fix = f"ssh {record.ssh} ipcluster explain {record.far_name or record.name}"
        report.diagnostics.append(f.note(CLUSTER, "cluster-far", text, fix))
    statuses = _jobs(record)
    if record.batch:
        system = batch_system(record.batch)
        for status in statuses:
            report.diagnostics += check_job(system.name, system.title, status, now)
    engines, diagnostic = _registered(record)
    report.diagnostics += diagnostic
    logs = read_logs(log_files(record)) if record.log_dir and not record.ssh else []
    waits = bool(statuses) and statuses[-1].state is JobState.PENDING
    if not diagnostic:
        nodes = [node for status in statuses for node in expand_nodes(status.nodes)]
        report.diagnostics += check_ranks(record.n, engines, nodes, logs, starting=waits and not engines)
        if not record.batch:  # else the batch system has reported it
            report.diagnostics += check_time(engines)
        if len(engines) < record.n and not record.ssh:
            report.diagnostics += check_losses(read_losses(logs), engines)
    if len(engines) < record.n and not waits:
        _add_log(report, logs, engines, failed=bool(statuses) and statuses[-1].outcome == "failed")
    return report


def _describe(record: ClusterRecord, now: float) -> list[Diagnostic]:
    engines = f"{record.n} engine{'s' * (record.n != 1)}"
    text = f"{record.name}: {record.kind}, {engines}, started {moment(record.started, now)} on {record.host}"
    alive = record.is_alive()
    if alive is False:
        fix = f"Start it again; what was queued in its controller is lost. Its logs are in {record.log_dir}"
        return [f.problem(CLUSTER, "cluster", f"{text}. Its process {record.pid} has ended without a word.", fix)]
    where = "" if alive or not record.pid else "; from here it cannot be seen whether its process still runs"
    return [f.ok(CLUSTER, "cluster", f"{text}{where}.")]


def _jobs(record: ClusterRecord) -> list[JobStatus]:
    """Return the status of all jobs that have not ended, and of the last one."""
    if not record.batch or record.ssh:
        return []
    queue = Queue(batch_system(record.batch))
    found = [queue.status(job) for job in record.jobs[-8:]]
    return [status for status in found[:-1] if status.state is not JobState.ENDED] + found[-1:]


def _registered(record: ClusterRecord) -> tuple[list[dict[str, Any]], list[Diagnostic]]:
    """Return the registered engines, or why the controller cannot be asked."""
    path = record.furl_files.get("mec", "")
    try:
        with MultiEngineClient(str(furl.load(Path(path), "mec") if path else "")) as mec:
            return list(mec.cluster_info()["engines"]), []
    except FurlError as error:
        text, fix = (
            f"The controller cannot be asked: {error}.",
            "It writes the file when it is ready: wait a moment.",
        )
    except KernelError as error:
        text, fix = f"The controller cannot be asked: {error}", "ipcluster doctor tells more about the way to it."
    return [], [f.problem(CLUSTER, "controller", text, fix)]


if __name__ == "__main__":
    sys.exit(main())
