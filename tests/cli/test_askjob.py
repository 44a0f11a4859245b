"""The batch system is asked for the end of a job, and engines start also if it does not answer."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ipmpi.cli.askjob import ask


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first folder of PATH, for programs of the test."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return tmp_path


def program(path: Path, name: str, *lines: str) -> None:
    file = path / name
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    file.chmod(0o755)


def left_by(path: Path, name: str, environ: dict[str, str], output: str) -> float | None:
    """What is left of a job if its batch system answers so."""
    (path / "answer").write_text(output)
    program(path, name, f"cat {path}/answer")
    return ask(environ, lambda text: None)


def local(seconds: float, form: str) -> str:
    """The time so many seconds from now, in this machine's zone."""
    return time.strftime(form, time.localtime(time.time() + seconds))


SLURM = {"SLURM_JOB_ID": "17"}
PBS = {"PBS_JOBID": "12.server"}


def test_the_answer_of_squeue(path: Path) -> None:
    program(path, "squeue", 'test "$5" = 17 && echo "RUNNING|None|n1|N/A|N/A|1:00"')
    said: list[str] = []
    assert ask(SLURM, said.append) == 60
    assert said == []


@pytest.mark.parametrize(("text", "seconds"), [("1:00:00", 3600), ("0:59", 59), ("1-00:00:00", 86_400)])
def test_slurm_says_what_is_left(path: Path, text: str, seconds: float) -> None:
    assert left_by(path, "squeue", SLURM, f"RUNNING|None|n1|N/A|N/A|{text}\n") == seconds


def test_slurm_says_only_when_it_ends(path: Path) -> None:
    end = local(3600, "%Y-%m-%dT%H:%M:%S")
    left = left_by(path, "squeue", SLURM, f"RUNNING|None|n1|N/A|{end}|INVALID\n")
    assert left is not None
    assert 3580 < left <= 3600


def test_of_an_array_the_own_element_counts(path: Path) -> None:
    """The id of the first element is that of the array, so it is not asked by its id."""
    program(path, "squeue", 'test "$5" = 17_3 && echo "RUNNING|None|n1|N/A|N/A|0:20"')
    environ = {"SLURM_JOB_ID": "17", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}
    assert ask(environ, lambda text: None) == 20


NO_END = (
    "",
    "RUNNING|None|n1|N/A|NONE|UNLIMITED\n",
    "RUNNING|None|n1|N/A|N/A|NOT_SET\n",
    "error: Invalid job id\n",
)


@pytest.mark.parametrize("output", NO_END)
def test_slurm_does_not_always_know(path: Path, output: str) -> None:
    assert left_by(path, "squeue", SLURM, output) is None


def test_pbs_says_when_it_began_and_how_long_it_may_take(path: Path) -> None:
    """By its own clock: the time that it says was used may be old."""
    job = {
        "job_state": "R", "stime": local(-1200, "%a %b %d %H:%M:%S %Y"),
        "resources_used": {"walltime": "00:01:00"}, "Resource_List": {"walltime": "01:00:00", "ncpus": 4},
    }  # fmt: skip
    left = left_by(path, "qstat", PBS, json.dumps({"timestamp": 1, "Jobs": {"12.server": job}}))
    assert left is not None
    assert 2380 < left <= 2400


@pytest.mark.parametrize("name", ["stime", "start_time"])
def test_torque_has_no_json(path: Path, name: str) -> None:
    (path / "answer").write_text(
        f"Job Id: 12.server\n    Job_Name = STDIN\n    job_state = R\n    resources_used.walltime = 00:09:00\n"
        f"    {name} = {local(-600, '%a %b %d %H:%M:%S %Y')}\n    Resource_List.walltime = 01:00:00\n"
        "    Variable_List = PBS_O_HOME=/home/me,\n\tPBS_O_LANG=C\n"
    )
    program(path, "qstat", 'test "$2" = -F && { echo "illegal option" >&2; exit 2; }', f"cat {path}/answer")
    said: list[str] = []
    left = ask(PBS, said.append)
    assert left is not None
    assert 2980 < left <= 3000
    assert said == []


UNKNOWN = "qstat: Unknown Job Id 12.server\n"


@pytest.mark.parametrize("output", ["", "{", "[]", '{"Jobs": {}}', '{"Jobs": {"12": {}}}', UNKNOWN])
def test_pbs_does_not_always_know(path: Path, output: str) -> None:
    assert left_by(path, "qstat", PBS, output) is None


def test_what_it_says_instead_is_in_the_log(path: Path) -> None:
    program(path, "squeue", 'echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1')
    said: list[str] = []
    assert ask(SLURM, said.append) is None
    assert said == [
        "the end of this job is not known: Slurm does not say it (slurm_load_jobs error: Unable to contact slurm "
        "controller)"
    ]


def test_a_batch_system_that_does_not_answer_is_a_line_in_the_log(path: Path) -> None:
    program(path, "squeue", "exec sleep 30")
    said: list[str] = []
    began = time.monotonic()
    assert ask({"SLURM_JOB_ID": "7"}, said.append, patience=0.2) is None
    assert time.monotonic() - began < 10
    assert "the end of this job is not known" in said[0]
    assert "timed out" in said[0]


def test_a_program_that_is_not_there_is_a_line_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert ask({"SLURM_JOB_ID": "7"}, said.append) is None
    assert "squeue" in said[0]
    assert ask({}, said.append) is None
    assert len(said) == 1
