"""``ipcluster restart``: a new controller for a cluster that runs; engines and clients go on."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from typing import Final

import psutil

from ipmpi.cli import argtypes
from ipmpi.client.session.connecting import connect
from ipmpi.errors import KernelError, LauncherError
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.records import ClusterRecord

WITHIN: Final = 60.0
"""Seconds for the new controller to answer; it takes less than two unless the machine is very busy."""

_LOOK: Final = 0.05


def main(words: Sequence[str]) -> int:
    """Run ``ipcluster restart``; return its exit code."""
    record = records.find(parser().parse_args(words).name)
    began = time.monotonic()
    former = _controller(record)
    with contextlib.suppress(ProcessLookupError):
        os.kill(former, signal.SIGKILL)
    new = _successor(record, former)
    journal = "" if record.journal else " There is no journal, so tasks and commands that waited are lost."
    print(
        f"The controller of the cluster {record.name!r} was started again after {time.monotonic() - began:.1f} s: "
        f"process {new} in place of {former}.{journal}"
    )
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster restart",
        description="End the controller of a cluster, even if it does not react, and start it again with the same "
        "furls. Engines keep their names and what they run, and clients go on.",
    )
    p.add_cluster_name()
    return p


def _controller(record: ClusterRecord) -> int:
    """Return the process id of a cluster's controller, which its ipcluster process will start again.

    Raises:
        LauncherError: nobody would start it again, or it is not on this machine.
    """
    if record.ssh:
        raise LauncherError(
            f"The cluster {record.name!r} is on {record.ssh}: ssh {record.ssh} ipcluster restart {record.far_name}"
        )
    if not record.is_here:
        raise LauncherError(f"The cluster {record.name!r} is run on {record.host}: log in there")
    if not record.controller:
        raise LauncherError(
            f"The controller of the cluster {record.name!r} is in its job: only the job can start it"
        )
    if record.is_alive() is False:
        raise LauncherError(
            f"The process that ran the cluster {record.name!r} has ended, and its controller and engines with it. "
            f"What is left of it is removed by: ipcluster stop {record.name}"
        )
    with contextlib.suppress(psutil.Error):  # it has just ended, so it is being started again anyway
        if psutil.Process(record.controller).ppid() != record.pid:
            raise LauncherError(f"process {record.controller} is not the controller of {record.name!r} any more")
    return record.controller


def _successor(record: ClusterRecord, former: int) -> int:
    """Wait until another controller answers; return its process id."""
    until = time.monotonic() + WITHIN
    while time.monotonic() < until:
        time.sleep(_LOOK)
        now = records.load(record.name)
        if now is None or now.pid != record.pid:
            raise LauncherError(f"The cluster {record.name!r} has ended: ipcluster logs {record.name}")
        if now.controller != former:
            with contextlib.suppress(KernelError, ValueError, OSError):
                connect(now.furl_files["monitor"], "monitor").close()
                return now.controller
    raise LauncherError(
        f"The new controller of the cluster {record.name!r} does not answer. What it says: ipcluster logs "
        f"{record.name}"
    )
