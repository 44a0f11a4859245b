"""The doctor and explain, on a real Slurm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from real_slurm import Slurm

ROOT = Path(__file__).resolve().parents[2]
OPENMPI, MPICH = sys.executable, "mpich"


def run(slurm: Slurm, python: str, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """A sub-command of ipcluster: its exit code, and its findings by their checks."""
    environ = {**slurm.environ, "IPYTHONDIR": str(slurm.folder / "doctor"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, "-m", "ipmpi.cli.ipcluster", *words, "--json"],
        env=environ, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("python", "launcher", "survive"),
    [(OPENMPI, "srun --mpi=pmix", False), (MPICH, "srun --mpi=pmi2", True)],
    ids=["pmix", "pmi2"],
)
def test_srun_and_library_that_fit(
    python: str, launcher: str, survive: bool, slurm: Slurm, request: pytest.FixtureRequest
) -> None:
    if python == MPICH:
        python = request.getfixturevalue("mpich_python")
    code, found = run(slurm, python, "doctor", "--launcher", launcher)
    assert code == 0, found
    assert found["match"]["level"] == "ok"
    assert found["srun-mpi"]["level"] == "ok"
    assert found["fault-tolerance"]["level"] == ("ok" if survive else "note"), found


@pytest.mark.mpi
def test_srun_without_mpi(slurm: Slurm, mpich_python: str) -> None:
    code, found = run(slurm, mpich_python, "doctor", "--launcher", "srun --mpi=none")
    assert code == 1
    assert found["match"]["text"].startswith("srun started 2 ranks, but each thinks it is alone")
    assert "srun --mpi=pmi2" in found["match"]["fix"]


def test_a_job_that_is_held_and_one_that_waits_for_its_time(slurm: Slurm) -> None:
    held = slurm.run("sbatch", "--parsable", "--hold", "-o", "/dev/null", "--wrap", "true")
    later = slurm.run("sbatch", "--parsable", "--begin=now+2hours", "-o", "/dev/null", "--wrap", "true")
    try:
        code, found = run(slurm, OPENMPI, "explain", held)
        assert code == 0
        assert found["job-waits"]["text"] == "It waits: you held it (JobHeldUser)."
        assert found["job-waits"]["fix"] == f"scontrol release {held}"
        code, found = run(slurm, OPENMPI, "explain", later)
        assert "not to start before a certain time" in found["job-waits"]["text"]
        assert "Slurm expects to start it at" in found["job-start"]["text"]
    finally:
        slurm.cancel(held)
        slurm.cancel(later)
    code, found = run(slurm, OPENMPI, "explain", held)
    assert found["job-ended"]["text"].startswith("It was cancelled")
