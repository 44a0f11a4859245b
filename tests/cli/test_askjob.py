"""The batch system is asked for the end of a job, and engines start also if it does not answer."""

from __future__ import annotations

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


def test_the_answer_of_squeue(path: Path) -> None:
    program(path, "squeue", 'test "$*" = "-h -j 7 -o %A|%L|%e" && echo "7|1:00|N/A"')
    said: list[str] = []
    assert ask({"SLURM_JOB_ID": "7"}, said.append) == 60
    assert said == []


def test_qstat_is_asked_again_without_json(path: Path) -> None:
    began = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - 10))
    refuse = 'test "$2" = -F && { echo "illegal option" >&2; exit 2; }'
    say = f'printf "  stime = {began}\\n  Resource_List.walltime = 00:01:00\\n"'
    program(path, "qstat", refuse, 'test "$2" = 7.server || exit 1', say)
    said: list[str] = []
    left = ask({"PBS_JOBID": "7.server"}, said.append)
    assert left is not None
    assert 45 < left <= 51
    assert said == ["qstat -f -F json 7.server does not say when this job ends: 'illegal option'"]


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
