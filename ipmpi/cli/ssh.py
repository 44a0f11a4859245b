"""``ipcluster ssh``: a controller here, and engines on other machines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ipmpi.cli import argtypes, options
from ipmpi.cli.detach import detach
from ipmpi.cli.local import supervise
from ipmpi.launch.cluster.hosts import HostEngines, HostOptions, read_clusterfile, read_hosts
from ipmpi.launch.cluster.lifecycle import Plan
from ipmpi.launch.processes.process import Signals


def main(words: Sequence[str]) -> int:
    """Run ``ipcluster ssh``; returns its exit code."""
    parsed = parser().parse_args(words)
    hosts = parsed.hosts or read_clusterfile(parsed.clusterfile)
    if parsed.detach and parsed.status_fd is None:
        return detach(["ssh", *words], options.early_log_dir(parsed), "up")
    with Signals() as signals, options.claimed(parsed, "ssh", sum(hosts.values())) as record:
        launch = options.launch_furl(parsed, record, sum(hosts.values()))
        engines = HostEngines(
            HostOptions(
                hosts,
                log_dir=Path(record.log_dir),
                run=record.run,
                engine_furl_file=launch.file,
                mpi=parsed.mpi,
                remote=parsed.remote or "ipcluster",
                timeout=parsed.timeout,
                arguments=tuple(options.set_arguments(parsed)),
            )
        )
        plan = Plan(engines.n, parsed.timeout, engines_wait=True)
        return supervise(parsed, record, signals, engines, plan, launch)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster ssh",
        description="Start a controller here, and engines on other machines by ssh, which must not need a "
        "password (keys or an agent). ipmpi has to be installed there. IPMPI_SSH names another ssh, with options.",
    )
    where = p.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--hosts", type=argtypes.checked("engines_on_hosts", read_hosts), default=None,
        metavar="H1:2,H2:4", help="hosts, and how many engines on each",
    )  # fmt: skip
    where.add_argument(
        "--clusterfile", type=argtypes.some_path, default=None, metavar="FILE",
        help="a file with these, TOML or like engines = {'h1': 2, 'h2': 4}",
    )  # fmt: skip
    p.add_argument("--mpi", choices=["auto", "mpi4py", "none"], default="auto", help="none: each engine by itself")
    p.add_argument(
        "--remote", type=argtypes.command, default="ipcluster", metavar="COMMAND",
        help="what runs ipcluster there (ipcluster)",
    )  # fmt: skip
    options.add_set_options(p)
    p.add_argument("--timeout", type=argtypes.seconds, default=60.0, metavar="SECONDS", help="for the start (60)")
    options.add_cluster_options(p)
    return p
