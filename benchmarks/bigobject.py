"""A push of one very big object: how much memory the controller needs for it, and how it answers another client.

``python -m benchmarks.bigobject FURL_FILE PID SIZE`` does it for a cluster that runs, whose controller has this
process id, and prints JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ipmpi.bench import bulk, machine
from ipmpi.bench.cluster import Target, mpi_or_none, own_cluster
from ipmpi.client import MultiEngineClient

from .bigpush import BigPush


def push(target: Target, size: int) -> BigPush:
    """Push an array of ``size`` bytes to one engine.

    Raises:
        WrongData: another size arrived.
    """
    assert target.controller_pid is not None
    with MultiEngineClient(str(target.mec_furl)) as mec:
        before = machine.resident_bytes(target.controller_pid)
        found = {each.key: each for each in bulk.measure_memory(mec, target, size, before)}
    status = found["status_during"]
    return BigPush(
        size, found["push_big"].median, found["controller_memory"].median, status.median,
        found["status_worst"].median, status.samples,
    )  # fmt: skip


def push_here(engines: int, size: int) -> BigPush:
    """The same with a cluster of our own on this machine."""
    mpi, _ = mpi_or_none()
    with own_cluster(engines, mpi) as target:
        return push(target, size)


def main(furl_file: str, pid: str, size: str) -> None:
    """Measure, and print."""
    found: dict[str, Any] = push(Target(Path(furl_file), Path(furl_file), int(pid)), int(size))._asdict()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
