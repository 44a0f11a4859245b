"""Commands that run while their process does other things, and what a job makes of their answers."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.batchsystem import JobState, JobStatus
from ipmpi.launch.batch.joboptions import JobOptions
from ipmpi.launch.batch.queue import Queue
from ipmpi.launch.batch.slurm import SLURM
from ipmpi.launch.cluster import job as jobs
from ipmpi.launch.cluster.happenings import JobNews
from ipmpi.launch.cluster.job import Job
from ipmpi.launch.processes.process import Signals
from ipmpi.launch.processes.runningsteps import RunningSteps, Steps


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def until_over(underway: RunningSteps[str], signals: Signals) -> None:
    deadline = time.monotonic() + 30
    while not underway.look():
        assert select.select([signals], [], [], max(0.0, min(deadline, underway.deadline) - time.monotonic()))
        assert time.monotonic() < deadline
        signals.read()


def test_one_command_follows_the_other_and_the_end_of_each_is_an_event() -> None:
    def steps() -> Steps[str]:
        first = yield python("import os; print(os.environ['ADDED'])")
        second = yield python("import sys; sys.exit('what is wrong')")
        try:
            yield ["/nowhere/at-all"]
        except FileNotFoundError as error:
            return f"{first.stdout}{first.returncode}{second.stderr}{second.returncode}{error.filename}"
        return ""

    with Signals() as signals:
        underway = RunningSteps(steps(), {"ADDED": "this"})
        assert not underway.look()
        until_over(underway, signals)
    assert underway.result() == "this\n0what is wrong\n1/nowhere/at-all"


def test_a_command_that_takes_too_long_is_killed_and_its_steps_are_told() -> None:
    def steps() -> Steps[str]:
        try:
            yield python("import time; time.sleep(600)")
        except subprocess.TimeoutExpired as error:
            return f"too long: {error.timeout:g}"
        return ""

    with Signals() as signals:
        underway = RunningSteps(steps(), {}, patience=0.2)
        until_over(underway, signals)
    assert underway.result() == "too long: 0.2"


def test_what_steps_raise_is_raised_for_whoever_asks() -> None:
    def steps() -> Steps[str]:
        raise LauncherError("this is no id")
        yield []

    underway = RunningSteps(steps(), {})
    assert underway.is_over
    with pytest.raises(LauncherError, match="this is no id"):
        underway.result()


GONE = JobStatus("7", JobState.ENDED, "", reason="Slurm does not know it any more")
PENDING = JobStatus("7", JobState.PENDING, "PENDING")


def submitted() -> Job:
    job = Job(SLURM, JobOptions(n=2), "1", Queue(SLURM))
    job.jobs.append("7")
    return job


def told(job: Job, status: JobStatus, now: float) -> list[object]:
    return list(job._understand(status, now))


def test_a_job_has_ended_when_the_batch_system_says_twice_that_it_does_not_know_it() -> None:
    job = submitted()
    assert told(job, PENDING, 0) == [JobNews(PENDING)]
    assert told(job, GONE, 1) == []
    assert told(job, GONE, 1 + jobs.UNKNOWN_AGAIN / 2) == []
    assert told(job, PENDING, 4) == [JobNews(PENDING)]
    assert told(job, GONE, 5) == []
    assert told(job, GONE, 5 + jobs.UNKNOWN_AGAIN) == [JobNews(GONE)]


def test_a_job_that_was_taken_just_now_may_not_be_known_for_longer() -> None:
    job = submitted()
    assert told(job, GONE, 1) == []
    assert told(job, GONE, 1 + jobs.UNKNOWN_AT_FIRST - 1) == []
    assert told(job, GONE, 1 + jobs.UNKNOWN_AT_FIRST) == [JobNews(GONE)]


@pytest.mark.parametrize(
    ("last", "cancelled"),
    [
        (None, True),
        (PENDING, True),
        (GONE, True),
        (JobStatus("7", JobState.ENDED, "COMPLETED", outcome="completed"), False),
    ],
)
def test_a_job_is_cancelled_unless_its_outcome_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: JobStatus | None, cancelled: bool
) -> None:
    scancel = tmp_path / "scancel"
    scancel.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/cancelled\n')
    scancel.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    job = submitted()
    if last is not None:
        told(job, last, 0)
    with Signals() as signals:
        job.end()
        while job.is_ending:
            list(job.news(0, False))
            select.select([signals], [], [], 1)
            signals.read()
    assert job.problems() == []
    assert (tmp_path / "cancelled").exists() is cancelled
