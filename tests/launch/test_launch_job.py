"""Files of a job that is the engines of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.launch.batch import batch_system
from ipmpi.launch.job import job_logs


@pytest.mark.parametrize(
    ("system", "job", "own", "others"),
    [
        ("slurm", "123", ["run-123.out", "ipengine-123-77.log"], ["run-1234.out", "ipengine-1234-7.log"]),
        ("slurm", "123", ["run-123_0.out", "run-123_1.out", "ipengine-123-0-7.log"], ["ipengine-1230-0-7.log"]),
        ("slurm", "123_4", ["run-123_4.out", "ipengine-123-4-7.log"], ["run-123_40.out", "ipengine-123-40-7.log"]),
        ("pbs", "12.server", ["run.o12", "ipengine-12-12.log"], ["run.o123", "ipengine-123-4.log"]),
        ("pbs", "12.server", ["12.login.OU", "ipengine-12-12.log"], ["123.login.OU", "112.login.OU"]),
        ("pbs", "17[].server", ["17[0].login.OU", "17[1].login.OU"], ["170.login.OU", "1.login17.OU"]),
        ("pbs", "12[].server", ["run.o12.0", "run.o12.1", "ipengine-12-0-9.log"], ["run.o120.0"]),
    ],
)
def test_logs_of_jobs_whose_numbers_begin_alike_are_told_apart(
    tmp_path: Path, system: str, job: str, own: list[str], others: list[str]
) -> None:
    for name in [*own, *others]:
        (tmp_path / name).write_text("text\n")
    for pattern in ("run", "*"):
        assert [path.name for path in job_logs(batch_system(system), tmp_path, pattern, job)] == own
