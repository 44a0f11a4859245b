"""Slurm's commands, and answers in the formats of its programs; tests/slurm has a real one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.registry import JobState, JobStatus, Shape
from ipmpi.launch.batch.slurm import SLURM

SQUEUE, SCONTROL, SACCT = SLURM.status("4711")


def local(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def of_squeue(*lines: str) -> JobStatus:
    status = SLURM.parse_status("4711", SQUEUE, "".join(f"{line}\n" for line in lines))
    assert status is not None
    return status


def test_commands() -> None:
    assert SLURM.submit(Path("/a b/job")) == ["sbatch", "--parsable", "/a b/job"]
    assert SQUEUE == ["squeue", "-h", "-t", "all", "-j", "4711", "-o", "%T|%r|%N|%S|%e|%L"]
    assert SCONTROL == ["scontrol", "-o", "show", "job", "4711"]
    assert SACCT[:7] == ["sacct", "-X", "-n", "-P", "-j", "4711", "-o"]
    assert SLURM.cancel("4711") == ["scancel", "4711"]
    assert SLURM.programs == ("sbatch", "squeue", "scancel")


@pytest.mark.parametrize("stdout", ["4711\n", "Your quota is fine.\n4711\n"])
def test_the_id(stdout: str) -> None:
    assert SLURM.job_id(stdout) == "4711"


def test_the_id_of_a_job_of_another_cluster() -> None:
    assert SLURM.job_id("4711;cluster2\n") == "4711;cluster2"
    assert SLURM.output_files("ipmpi", "4711;cluster2") == ["ipmpi-4711*.out"]


def test_no_id() -> None:
    with pytest.raises(LauncherError, match="but: nothing"):
        SLURM.job_id(" \n")


def test_a_job_that_waits() -> None:
    status = of_squeue("PENDING|Resources||2026-11-25T03:10:00|2026-11-25T04:10:00|1:00:00")
    assert status == JobStatus(
        "4711", JobState.PENDING, "PENDING", reason="Resources",
        start=local("2026-11-25T03:10:00"), end=local("2026-11-25T04:10:00"),
    )  # fmt: skip


def test_a_job_without_an_expected_start() -> None:
    status = of_squeue("PENDING|QOSMaxJobsPerUserLimit||N/A|N/A|UNLIMITED")
    assert (status.reason, status.start, status.end) == ("QOSMaxJobsPerUserLimit", None, None)


@pytest.mark.parametrize(
    ("left", "seconds"), [("30:05", 1805), ("1:00:00", 3600), ("2-01:00:01", 176401), ("UNLIMITED", None)]
)
def test_a_job_that_runs(left: str, seconds: float | None) -> None:
    status = of_squeue(f"RUNNING|None|n[1-3]|2026-11-24T22:00:00|2026-11-24T23:00:00|{left}")
    assert (status.state, status.reason, status.nodes) == (JobState.RUNNING, "", "n[1-3]")
    assert status.time_left == seconds


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("COMPLETED|None|n1|2026-11-24T22:00:00|2026-11-24T22:10:00|50:00", "completed"),
        ("CANCELLED|None|n1|2026-11-24T22:00:00|2026-11-24T22:10:00|50:00", "cancelled"),
        ("TIMEOUT|TimeLimit|n1|2026-11-24T22:00:00|2026-11-24T23:00:00|0:00", "timeout"),
        ("FAILED|NonZeroExitCode|n1|2026-11-24T22:00:00|2026-11-24T22:10:00|50:00", "failed"),
        ("OUT_OF_MEMORY|OutOfMemory|n1|2026-11-24T22:00:00|2026-11-24T22:10:00|50:00", "failed"),
        ("NODE_FAIL|NodeFail|n1|2026-11-24T22:00:00|2026-11-24T22:10:00|50:00", "node-failure"),
        ("PREEMPTED|None|n1|2026-11-24T22:00:00|2026-11-24T22:10:00|50:00", "preempted"),
    ],
)
def test_how_a_job_ended(line: str, outcome: str) -> None:
    status = of_squeue(line)
    assert (status.state, status.outcome, status.time_left) == (JobState.ENDED, outcome, None)


@pytest.mark.parametrize(
    ("native", "state"),
    [
        ("CONFIGURING", JobState.PENDING),
        ("REQUEUED", JobState.PENDING),
        ("SUSPENDED", JobState.RUNNING),
        ("COMPLETING", JobState.ENDING),
        ("SOMETHING_NEW", JobState.UNKNOWN),
    ],
)
def test_words_in_between(native: str, state: JobState) -> None:
    assert of_squeue(f"{native}|None||N/A|N/A|")[1:3] == (state, native)


def test_an_array_is_as_alive_as_its_liveliest_element() -> None:
    waits = "PENDING|Resources||N/A|N/A|1:00:00"
    first = "RUNNING|None|n1|2026-11-24T22:00:00|2026-11-24T23:00:00|10:00"
    second = "RUNNING|None|n2|2026-11-24T22:00:00|2026-11-24T23:00:00|10:00"
    done = "COMPLETED|None|n3|2026-11-24T22:00:00|2026-11-24T22:01:00|0:00"
    failed = "FAILED|NonZeroExitCode|n4|2026-11-24T22:00:00|2026-11-24T22:01:00|0:00"
    assert of_squeue(waits, first, second, done)[1:3] == (JobState.RUNNING, "RUNNING")
    assert of_squeue(waits, first, second, done).nodes == "n1,n2"
    assert of_squeue(done, waits).state is JobState.PENDING
    assert of_squeue(done, failed, done).outcome == "failed"


def test_a_job_of_scontrol() -> None:
    text = (
        "JobId=4711 JobName=ipmpi UserId=a(1000) GroupId=a(1000) MCS_label=N/A Priority=1 Nice=0 Account=(null) "
        "QOS=(null) JobState=TIMEOUT Reason=TimeLimit Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 "
        "Reboot=0 ExitCode=0:15 RunTime=01:00:24 TimeLimit=01:00:00 TimeMin=N/A SubmitTime=2026-11-24T21:59:00 "
        "StartTime=2026-11-24T22:00:00 EndTime=2026-11-24T23:00:24 Deadline=N/A Partition=debug NodeList=n[1-2] "
        "BatchHost=n1 NumNodes=2 NumCPUs=8 NumTasks=8\n"
    )
    status = SLURM.parse_status("4711", SCONTROL, text)
    assert status == JobStatus(
        "4711", JobState.ENDED, "TIMEOUT", reason="TimeLimit", start=local("2026-11-24T22:00:00"),
        end=local("2026-11-24T23:00:24"), nodes="n[1-2]", outcome="timeout",
    )  # fmt: skip


def test_a_job_of_sacct() -> None:
    text = "CANCELLED by 1000|None|n1|2026-11-24T22:00:00|2026-11-24T22:05:00\n"
    status = SLURM.parse_status("4711", SACCT, text)
    assert status is not None
    assert (status.native, status.outcome, status.nodes) == ("CANCELLED", "cancelled", "n1")


@pytest.mark.parametrize("argv", [SQUEUE, SCONTROL, SACCT])
def test_nothing_is_said_of_the_job(argv: list[str]) -> None:
    assert SLURM.parse_status("4711", argv, "\n") is None


@pytest.mark.parametrize(
    ("shape", "directives"),
    [
        (Shape(8), ["--ntasks=8", "--cpus-per-task=1"]),
        (Shape(8, 2, 4), ["--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=1"]),
        (Shape(7, 2, 4, 3), ["--nodes=2", "--ntasks=7", "--ntasks-per-node=4", "--cpus-per-task=3"]),
        (Shape(8, gpus=4, memory="64g"), ["--ntasks=8", "--cpus-per-task=1", "--gpus-per-node=4", "--mem=64G"]),
    ],
)
def test_directives_of_a_shape(shape: Shape, directives: list[str]) -> None:
    assert [line.text for line in SLURM.resources(shape)] == directives


def test_the_files_with_the_output_of_a_job() -> None:
    assert SLURM.output_files("ipmpi", "4711") == ["ipmpi-4711*.out"]
