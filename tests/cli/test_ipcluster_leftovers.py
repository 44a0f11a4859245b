"""``ipcluster`` where the environment has variables of a job that is over, or of another launcher's rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ipmpi

REAL = [sys.executable, "-m", "ipmpi.cli.ipcluster"]


@pytest.fixture
def leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job of PBS, which has removed its list of machines, and of a step of Slurm around it."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    left = {"PBS_JOBID": "12.login", "PBS_NODEFILE": str(tmp_path / "gone"), "PMI_RANK": "3", "PMI_FD": "9"}
    for name, value in left.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("leftovers")
def test_they_are_left_out_of_account_and_ipcluster_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    with ipmpi.Cluster("local", n=1, mpi="none", echo=said.append) as cluster:
        mec = cluster.multiengine()
        names = mec.apply(lambda: sorted(__import__("os").environ))[0]
        assert not [name for name in names if name.startswith(("PBS_", "PMI_"))]
    (log,) = (tmp_path / "ipython").rglob("ipcluster-python-*.log")
    why = f"its list of machines ({tmp_path}/gone) is gone"
    assert f"The PBS_* variables of PBS's job 12.login are left out of account: {why}." in log.read_text()


@pytest.mark.usefixtures("leftovers")
def test_the_doctor_names_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [*REAL, "doctor", "--mpi", "none"], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    text = " ".join(done.stdout.split())
    assert "The environment has PBS's job 12.login (PBS_* variables), and this process is not in it" in text
    assert "unset ${!PBS_@}" in text


def test_a_start_that_fails_names_them(tmp_path: Path) -> None:
    """Where it cannot be seen that the job is over."""
    launcher = tmp_path / "mpiexec"
    launcher.write_text("#!/bin/sh\necho ssh: Could not resolve hostname node17 >&2\nexit 255\n")
    launcher.chmod(0o755)
    (tmp_path / "nodes").write_text("node17\n")
    environ = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython"), "PBS_NODEFILE": str(tmp_path / "nodes")}
    done = subprocess.run(
        [*REAL, "-n", "2", "--launcher", str(launcher)],
        env={**environ, "PBS_JOBID": "12.login"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "The environment has PBS's job 12.login on node17 (PBS_* variables)" in done.stderr
    assert "unset ${!PBS_@}" in done.stderr
