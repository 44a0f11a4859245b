"""The log files of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ipmpi.launch.batch.registry import batch_system
from ipmpi.launch.cluster.job import job_logs
from ipmpi.launch.cluster.records import ClusterRecord


def log_files(record: ClusterRecord) -> list[Path]:
    """Return the log files, the most general ones first."""
    return [path for path in dict.fromkeys(_named(record)) if path.is_file()]


def _named(record: ClusterRecord) -> Iterator[Path]:
    folder = Path(record.log_dir)
    if record.log:
        yield Path(record.log)
    for program in ("ipcluster", "ipcontroller", "ipengine"):
        yield from sorted(folder.glob(f"{program}-{record.run}-*.log"))
    if record.batch:
        system = batch_system(record.batch)
        for job in record.jobs:
            yield from job_logs(system, folder, record.job_name, job)
