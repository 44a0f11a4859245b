"""``ipcluster slurm``, ``ipcluster pbs`` and the like: a controller here, and engines in a job."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ipmpi.cli import argtypes, localdisk, options, remote
from ipmpi.cli.detach import detach
from ipmpi.cli.monitor import MonitoredController
from ipmpi.cli.supervise import Supervisor
from ipmpi.errors import LauncherError
from ipmpi.furl import ipython_dir
from ipmpi.launch.batch import packedenvironment
from ipmpi.launch.batch.joboptions import MEMORY, JobOptions
from ipmpi.launch.batch.jobscript import render
from ipmpi.launch.batch.registry import BatchSystem, batch_system
from ipmpi.launch.cluster.cluster import ClusterRun
from ipmpi.launch.cluster.controller import EventReader
from ipmpi.launch.cluster.job import Job
from ipmpi.launch.cluster.lifecycle import Plan
from ipmpi.launch.cluster.records import DEFAULT_NAME
from ipmpi.launch.processes import restarts
from ipmpi.launch.processes.process import Signals
from ipmpi.launch.processes.scratch import log_folder, mounts

AS_OFTEN_AS_NEEDED: Final = 1_000_000


def _memory(text: str) -> str:
    """An amount of memory, for argparse."""
    if text and not MEMORY.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory: write it like 500M or 64G")
    return text


_WORDS: Final = (
    (("-q", "--queue", "--partition"), "queue", "NAME", argtypes.word, "queue or partition"),
    (("-A", "--account"), "account", "NAME", argtypes.word, "project that pays for the job"),
    (("--qos",), "qos", "NAME", argtypes.word, "quality of service"),
    (("--constraint",), "constraint", "WORD", argtypes.word, "which kind of node"),
    (("--memory",), "memory", "SIZE", _memory, "memory of each node, like 64G"),
    (
        ("--launcher",),
        "launcher",
        "NAME",
        argtypes.path_name,
        "what starts the ranks: auto, srun, mpirun, mpiexec, or a path (auto)",
    ),
    (("--proxy",), "proxy", "URL", argtypes.url, "HTTP proxy through which engines reach the controller"),
)
_NUMBERS: Final = (
    ("--nodes", "nodes", "number of nodes"),
    ("--per-node", "per_node", "engines on each node"),
    ("--cores-per-engine", "cores_per_engine", "cores, and threads, of each engine (1)"),
    ("--gpus", "gpus_per_node", "GPUs of each node, shared among its engines"),
)
_LISTS: Final = (
    ("--directive", "extra_directives", "TEXT", "a further directive, without its prefix: --directive='-C nvme'"),
    ("--skip-directive", "skipped_directives", "TEXT", "leave out directives that contain this text"),
    (
        "--prologue",
        "prologue",
        "LINE",
        "a line of shell before the engines start: --prologue='module load python'",
    ),
)


def main(command: str, words: Sequence[str]) -> int:
    """Run a cluster whose engines are a job; returns the exit code."""
    system = batch_system(command)
    parsed = parser(command).parse_args(words)
    if parsed.ssh:
        return remote.main(command, words, parsed)
    if parsed.logdir is None and not os.environ.get("IPYTHONDIR"):
        with contextlib.suppress(OSError):  # the current folder may have been deleted
            parsed.log_base = log_folder(Path.cwd(), ipython_dir().expanduser(), mounts())
    if parsed.dry_run:
        return _show(system, job_options(parsed, parsed.name or DEFAULT_NAME))
    if parsed.detach and parsed.status_fd is None:
        until = "up" if parsed.wait_engines else "submitted"
        return detach([command, *words], options.early_log_dir(parsed), until)
    asked = job_options(parsed, parsed.name or DEFAULT_NAME)
    n = asked.n or asked.nodes * asked.per_node
    with Signals() as signals, options.claimed(parsed, command, n) as record:
        launch = options.launch_furl(
            parsed, record, n, seconds=None if parsed.array else parsed.walltime, asks=True
        )
        asked = job_options(parsed, record.name)
        # In a job, the controller has the furl of all engines; elsewhere, what lies on nodes is for this launch.
        asked = asked if parsed.in_job else replace(asked, engine_furl_file=launch.file)
        job = Job(system, asked, record.run)
        record.batch, record.job_name = command, job.options.name
        told: EventReader
        if parsed.in_job:
            told = MonitoredController(
                record.furl_files, lambda path: _is_new(path, job, record.started), only_new=False
            )
        else:
            told = options.controller(parsed, record, launch)
        cluster = ClusterRun(told, job, signals, parsed.lifeline_fd)
        plan = Plan(
            job.n, parsed.timeout, engines_wait=job.waits, batch=True,
            walltime=parsed.walltime, resubmit=parsed.resubmit, restarts=0 if parsed.in_job else parsed.restarts,
        )  # fmt: skip
        return Supervisor(cluster, plan, options.reporter(parsed), record, options.mec_arguments(parsed)).run()


def parser(command: str = "slurm") -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog=f"ipcluster {command}",
        description="Start a controller here and submit a job with N engines. It stays in the foreground, says "
        "what the job waits for, and stops all on Ctrl-C, unless --detach is given.",
        allow_abbrev=False,
    )
    add_job_options(p)
    what = p.add_mutually_exclusive_group()
    what.add_argument("--in-job", action="store_true", help="put the controller into the job, too")
    what.add_argument(
        "--array", action="store_true", help="a job array for tasks, of single engines or --per-node N in each"
    )
    p.add_argument("--dry-run", action="store_true", help="print the job script, and why it is so; submit nothing")
    p.add_argument(
        "--resubmit", nargs="?", type=argtypes.count, const=AS_OFTEN_AS_NEEDED, default=0, metavar="N",
        help="submit the job again when it has reached its walltime or was preempted, N times (without N: as "
        "often as needed); tasks that wait go on",
    )  # fmt: skip
    p.add_argument("--wait-engines", action="store_true", help="with --detach: return when the engines are there")
    p.add_argument(
        "--timeout", type=argtypes.seconds, default=300.0, metavar="SECONDS",
        help="for the engines to come once the job runs (300)",
    )  # fmt: skip
    remote.add_options(p)
    options.add_cluster_options(p)
    return p


def add_job_options(p: argparse.ArgumentParser) -> None:
    """Add the options of jobs."""
    p.add_argument("-n", "--n", "--num", type=argtypes.engine_number, default=0, metavar="N", help="engines")
    for name, target, text in _NUMBERS:
        p.add_argument(name, dest=target, type=argtypes.engine_number, default=None, metavar="N", help=text)
    p.add_argument(
        "--time", "--walltime", dest="walltime", type=argtypes.job_walltime, default=None, metavar="TIME",
        help="how long the job may last: 90m, 1h30m, 1:30:00, or 1-12:00:00 with days",
    )  # fmt: skip
    for names, target, metavar, kind, text in _WORDS:
        p.add_argument(*names, dest=target, type=kind, default=None, metavar=metavar, help=text)
    p.add_argument("--mpi", choices=["auto", "mpi4py", "none"], default="auto", help="none: each engine by itself")
    p.add_argument(
        "--srun-mpi", choices=["auto", "pmix", "pmi2", "cray_shasta", "none"], default="auto",
        help="how srun connects the ranks (auto: by the MPI of this Python)",
    )  # fmt: skip
    options.add_launcher_options(p)
    for name, target, metavar, text in _LISTS:
        p.add_argument(
            name, dest=target, action="append", type=argtypes.some_line, default=[], metavar=metavar, help=text
        )
    p.add_argument(
        "-s", "--template", "--pbs-script", "--slurm-script", dest="template", type=argtypes.path, default=None,
        metavar="FILE", help="a template of your own for the job script",
    )  # fmt: skip
    p.add_argument(
        "--warn-before", type=argtypes.whole_seconds, default=120, metavar="SECONDS",
        help="signal the engines so long before the end, where the batch system can (120)",
    )  # fmt: skip
    p.add_argument(
        "--restarts", type=argtypes.count_or_none, default=restarts.DEFAULT, metavar="N",
        help="start engines again that have all ended, in the same job, so often "
        f"({restarts.DEFAULT}): as when one has died and their launcher has ended the others; tasks wait",
    )  # fmt: skip
    p.add_argument(
        "--stage-env", type=argtypes.path, default=None, metavar="FILE",
        help="copy the environment to each node first, from a file that ipcluster pack has written",
    )  # fmt: skip
    p.add_argument("--requeue", action="store_true", help="have the job started again when a node fails")


def _is_new(furl_file: Path, job: Job, since: float) -> bool:
    """Return whether the controller in the job has written it; clocks of file servers may differ."""
    try:
        return bool(job.job) and furl_file.stat().st_mtime > since - 60
    except OSError:
        return False


def job_options(parsed: argparse.Namespace, name: str) -> JobOptions:
    """Return the options of the job script of a cluster.

    Raises:
        LauncherError: options that exclude each other.
    """
    if parsed.in_job and parsed.resubmit:
        raise LauncherError(
            "--resubmit needs a controller that outlives the job, to keep the tasks that wait: leave out --in-job"
        )
    if parsed.in_job and parsed.admit == "ask":
        raise LauncherError(
            "with --in-job, engines come by the furl of all engines and would have to be admitted: leave out "
            "--admit ask, or --in-job"
        )
    journal: list[str] = []
    if parsed.in_job and parsed.journal not in ("", localdisk.NONE):
        if not (parsed.client_port and parsed.engine_port):
            raise LauncherError(
                "--journal with --in-job needs --client-port and --engine-port, because nobody but the next job "
                "can go on with it"
            )
        journal = ["--journal", str(localdisk.local_place(parsed.journal).absolute())]
    if parsed.array and parsed.mpi == "mpi4py" and (parsed.per_node or 1) == 1:
        raise LauncherError(
            "each engine of a job array is by itself, unless an element has several (--per-node N): leave out "
            "--array, or --mpi mpi4py"
        )
    return replace(
        engines_job(parsed, options.furl_file(parsed, "engine", name), options.log_dir(parsed, name)),
        kind="cluster" if parsed.in_job else "array" if parsed.array else "engines",
        name=parsed.name or "ipmpi",
        controller_args=(*options.controller_arguments(parsed, name), *journal),
    )


def engines_job(parsed: argparse.Namespace, engine_furl_file: Path, log_dir: Path) -> JobOptions:
    """Return the job options of :func:`add_job_options`."""
    names = [target for _, target, *_ in _WORDS] + [target for _, target, _ in _NUMBERS]
    given: dict[str, Any] = {name: getattr(parsed, name) for name in names if getattr(parsed, name)}
    given |= {target: tuple(getattr(parsed, target)) for _, target, _, _ in _LISTS}
    return JobOptions(
        n=parsed.n,
        walltime=parsed.walltime,
        srun_mpi=parsed.srun_mpi,
        mpi=parsed.mpi,
        comm=parsed.comm,
        on_loss=parsed.on_loss or "",
        launcher_options=tuple(parsed.launcher_options),
        fault_tolerance=parsed.fault_tolerance,
        gpu_order=parsed.gpu_order or "",
        engine_furl_file=engine_furl_file,
        log_dir=log_dir,
        warn_before=parsed.warn_before,
        template=parsed.template,
        requeue=parsed.requeue,
        restarts=parsed.restarts,
        stage_env=_packed(parsed.stage_env),
        **given,
    )


def _packed(archive: Path | None) -> Path | None:
    if archive is None:
        return None
    archive = archive.expanduser().absolute()
    packedenvironment.check(archive, packedenvironment.this_interpreter())
    return archive


def _show(system: BatchSystem, asked: JobOptions) -> int:
    script = render(system, asked)
    print(script.text)
    width = min(48, max(len(line) for line, _ in script.reasons))
    print("Why it is so:")
    for line, why in script.reasons:
        print(f"  {line:{width}s}  {why}" if why else f"  {line}")
    return 0
