"""Options that several sub-commands of ``ipcluster`` have."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ipmpi.cli import argtypes, journalplace
from ipmpi.cli.reporter import Reporter
from ipmpi.errors import LauncherError
from ipmpi.furl import ipython_dir
from ipmpi.launch.batch.registry import batch_systems
from ipmpi.launch.cluster import defaultfurls, records
from ipmpi.launch.cluster.controller import ControllerProcess
from ipmpi.launch.cluster.launchfurl import LaunchFurl, launch_furl_file
from ipmpi.launch.cluster.records import ClusterRecord
from ipmpi.protocol.losses import LOSS_MODES

_PASSED_ON: Final = (
    ("--client-ip", "IP", argtypes.host, "address the controller listens on for clients"),
    ("--client-port", "N", argtypes.port,
     "its port; with a fixed port, furls stay valid from one start to the next"),
    ("--client-location", "HOST", argtypes.hosts,
     "address that clients use to reach the controller, written into their furls"),
    ("--engine-ip", "IP", argtypes.host, "address the controller listens on for engines"),
    ("--engine-port", "N", argtypes.port, "its port"),
    ("--engine-location", "HOST", argtypes.hosts, "address that engines use to reach the controller"),
    ("--multiengine-furl-file", "FILE", argtypes.path_name, "where to write the furl of MultiEngineClient"),
    ("--task-furl-file", "FILE", argtypes.path_name, "where to write the furl of TaskClient"),
    ("--monitor-furl-file", "FILE", argtypes.path_name, "where to write the furl of monitors (read only)"),
    ("--admit", "all|ask", argtypes.admission,
     "ask: engines that nobody expects wait until they are admitted (ipcluster admit)"),
    ("--scheduler", "ORDER", argtypes.scheduler,
     "in which order tasks are given to engines: fifo, lifo, priority, or MODULE:CLASS"),
)  # fmt: skip
"""Options that ipcluster passes on to ipcontroller: name, metavar, type, help."""


def add_cluster_options(p: argparse.ArgumentParser) -> None:
    """Add the options of every command that starts a controller."""
    p.add_argument(
        "--name", type=argtypes.new_cluster_name, default="", metavar="NAME",
        help="name of the cluster, for `ipcluster stop NAME`, MultiEngineClient(name=NAME) and the like",
    )  # fmt: skip
    add_log_option(p)
    p.add_argument("--detach", action="store_true", help="leave the cluster running in the background")
    p.add_argument("--status-fd", type=int, default=None, help=argparse.SUPPRESS)
    p.add_argument("--lifeline-fd", type=int, default=None, help=argparse.SUPPRESS)
    p.add_argument("--own-log", default="", help=argparse.SUPPRESS)
    add_controller_options(p)


def add_log_option(p: argparse.ArgumentParser) -> None:
    """Add the option for log files."""
    p.add_argument(
        "--logdir", type=argtypes.path, default=None, metavar="DIR", help="log files (~/.ipython/log/NAME)"
    )
    p.set_defaults(log_base=None)  # parent of the clusters' folders, if not ~/.ipython/log


def add_controller_options(p: argparse.ArgumentParser) -> None:
    """Add the options that are passed on to ``ipcontroller``."""
    p.add_argument(
        "--engine-furl-file", type=argtypes.path, default=None, metavar="FILE", help="the engines' furl"
    )
    p.add_argument(
        "-r", dest="reuse", action="store_true",
        help="reuse furl files of the last start; needs both ports, and is what happens with these anyway",
    )  # fmt: skip
    for name, metavar, kind, text in _PASSED_ON:
        p.add_argument(name, type=kind, metavar=metavar, default=None, help=text)
    journalplace.add_journal_option(p)


def add_launcher_options(p: argparse.ArgumentParser) -> None:
    """Add the options about the launcher, and the order of GPUs."""
    p.add_argument(
        "--launcher-option", dest="launcher_options", action="append", type=argtypes.launcher_option, default=[],
        metavar="TEXT", help="a further option of mpiexec, mpirun or srun: --launcher-option='--cpu-bind cores'",
    )  # fmt: skip
    p.add_argument(
        "--fault-tolerance", choices=["auto", "on", "off"], default="auto",
        help="whether ranks of Open MPI go on when one dies (auto: if they are on one machine; between machines "
        "it rules out UCX and libfabric)",
    )  # fmt: skip
    add_set_options(p)
    p.add_argument(
        "--gpu-order", type=argtypes.gpu_order, default=None, metavar="N,N,...",
        help="in which order the engines of a node get its GPUs: 3,2,1,0",
    )  # fmt: skip


def add_set_options(p: argparse.ArgumentParser) -> None:
    """Add the options about the ranks of a set, however it is started."""
    p.add_argument(
        "--comm", choices=["plain", "polled"], default="plain",
        help="polled: waits of MPI.COMM_WORLD end when another rank fails, as those of comm do; small collectives "
        "take longer",
    )  # fmt: skip
    p.add_argument(
        "--any-node", action="store_true",
        help="let these engines in wherever they are: where machines have other names than the batch system knows",
    )  # fmt: skip
    p.add_argument(
        "--on-loss", choices=LOSS_MODES, default=None,
        help="what becomes of the others when an engine dies. shrink: they go on, if their launcher lets them "
        "(the default); abort: they end; restart: all are started again, with the names of the last snapshot",
    )  # fmt: skip


def set_arguments(parsed: argparse.Namespace) -> list[str]:
    """Return the arguments of ``ipengine`` for :func:`add_set_options`."""
    polled = ["--comm", parsed.comm] if parsed.comm != "plain" else []
    return [*polled, *(["--on-loss", parsed.on_loss] if parsed.on_loss else [])]


def system_name(text: str) -> str:
    """The name of a batch system, for argparse."""
    if text and text not in batch_systems():
        there = ", ".join(sorted(batch_systems()))
        raise argparse.ArgumentTypeError(f"there is no batch system {text!r}; there are: {there}")
    return text


def rank_arguments(parsed: argparse.Namespace) -> list[str]:
    """Return the arguments of engines about the GPUs of this machine, and about their set."""
    told = parsed.gpu_order or parsed.gpus_per_node
    return [*(["--gpus", str(told)] if told else []), *set_arguments(parsed)]


def log_dir(parsed: argparse.Namespace, name: str) -> Path:
    """Return the folder of a cluster's log files."""
    given: Path | None = parsed.logdir
    if given is not None:
        return given.expanduser().absolute()
    base: Path | None = parsed.log_base
    return records.log_folder(name) if base is None else base / name


def early_log_dir(parsed: argparse.Namespace) -> Path:
    """Return the log folder of a cluster without a name yet."""
    return (parsed.logdir or parsed.log_base or ipython_dir() / "log").expanduser().absolute()


@contextlib.contextmanager
def claimed(parsed: argparse.Namespace, kind: str, n: int) -> Iterator[ClusterRecord]:
    """Yield the record of a new cluster, which reserves its name until it has ended.

    Raises:
        LauncherError: the name is not available.
    """

    def make(name: str) -> ClusterRecord:
        return ClusterRecord(
            name=name,
            kind=kind,
            n=n,
            unnamed=not parsed.name,
            log_dir=str(log_dir(parsed, name)),
            furl_files={role: str(furl_file(parsed, role, name)) for role in records.ROLES},
            keeps_furls=keeps_furl(parsed),
        )

    record = records.claim(parsed.name, make)
    try:
        _move_own_log(parsed, record)
        yield record
    finally:
        if not record.left_behind:
            if record.unnamed:
                defaultfurls.release(record.name)
            records.forget(record.name, record.pid)


def _move_own_log(parsed: argparse.Namespace, record: ClusterRecord) -> None:
    """Move the output file of a detached ipcluster to the folder of its cluster."""
    if not parsed.own_log:
        return
    path = Path(record.log_dir) / f"ipcluster-{record.run}.log"
    with contextlib.suppress(OSError):  # else it stays where it is
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(parsed.own_log, path)
        parsed.own_log = str(path)
    record.log, record.events = parsed.own_log, f"{parsed.own_log}.events"


def reporter(parsed: argparse.Namespace) -> Reporter:
    """Return the reporter for the cluster."""
    return Reporter(parsed.status_fd, Path(f"{parsed.own_log}.events") if parsed.own_log else None)


def furl_file(parsed: argparse.Namespace, role: str, name: str) -> Path:
    """Return the furl file of a role: the given one, or by the cluster's name."""
    given = getattr(parsed, f"{records.ROLES[role]}_furl_file")
    return Path(given).expanduser().absolute() if given else records.furl_files(name)[role]


def mec_arguments(parsed: argparse.Namespace) -> str:
    """Return the arguments of ``MultiEngineClient`` for the cluster, as source text."""
    if parsed.multiengine_furl_file:
        return repr(str(Path(parsed.multiengine_furl_file).expanduser()))
    return f"name={parsed.name!r}" if parsed.name else ""


def controller_arguments(parsed: argparse.Namespace, name: str) -> list[str]:
    """Return the arguments of ``ipcontroller``.

    Raises:
        LauncherError: ``-r`` without ports.
    """
    if parsed.reuse and not (parsed.client_port and parsed.engine_port):
        raise LauncherError(
            "To reuse furl files, you must also set the client and engine ports using the --client-port and "
            "--engine-port options."
        )
    own = {f"--{records.ROLES[role]}-furl-file": path for role, path in records.furl_files(name).items()}
    passed: list[str] = []
    for option, *_ in _PASSED_ON:
        value = getattr(parsed, option.lstrip("-").replace("-", "_")) or own.get(option)
        if value is not None:
            passed += [option, str(value)]
    return passed


def keeps_furl(parsed: argparse.Namespace) -> bool:
    """Return whether the engines' furl stays valid for the next controller."""
    return bool(parsed.engine_port)


def launch_furl(
    parsed: argparse.Namespace,
    record: ClusterRecord,
    n: int,
    *,
    seconds: float | None = None,
    local: bool = False,
    nodes: tuple[str, ...] | None = None,
    asks: bool = False,
) -> LaunchFurl:
    """Return the furl of the engines of this cluster.

    Args:
        parsed: the command line.
        record: of the cluster.
        n: number of the engines.
        seconds: how long their job may last.
        local: whether all are on this machine.
        nodes: the machines that they run on; None if these are not known yet, or do not matter.
        asks: whether their launch can say that later.
    """
    path = launch_furl_file(furl_file(parsed, "engine", record.name), record.run)
    asks, nodes = (False, None) if parsed.any_node else (asks, nodes)
    return LaunchFurl(f"{record.name}-{record.run}", path, n, seconds, local, nodes, asks)


def controller(
    parsed: argparse.Namespace, record: ClusterRecord, launch: LaunchFurl | None = None
) -> ControllerProcess:
    """Return the controller with the given options, which gives out the furl of a launch.

    Raises:
        LauncherError: ``-r`` without ports.
        ControllerStartError: the journal cannot be where it was asked for.
    """
    keeps = keeps_furl(parsed) and bool(parsed.client_port)
    journal = journalplace.chosen(parsed.journal, record.name, is_new=not keeps)
    if journal.note:
        reporter(parsed).say(f"ipcluster: {journal.note}")
    words = controller_arguments(parsed, record.name)
    if journal.path is not None:
        words += ["--journal", str(journal.path)]
        record.journal = str(journal.path)
    return ControllerProcess(
        furl_file(parsed, "engine", record.name),
        Path(record.log_dir),
        words,
        run=record.run,
        keeps_furl=keeps_furl(parsed),
        launch=launch,
    )
