"""Batch systems by name, and those that other packages add."""

from __future__ import annotations

import dataclasses
import runpy
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.joboptions import JobOptions, Kind
from ipmpi.launch.batch.jobscript import render
from ipmpi.launch.batch.pbs import PBS
from ipmpi.launch.batch.registry import BatchSystem, JobState, batch_system, batch_systems
from ipmpi.launch.batch.slurm import SLURM

PLUG_IN = """\
from dataclasses import replace
from ipmpi.launch.batch.slurm import SLURM
FAST = replace(SLURM, name="fast", title="Fast Slurm", submitting=("fastbatch", "{script}"))
WRONG = "a text"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed next to the others; its entry points are to be written."""
    (tmp_path / "fast_batch.py").write_text(PLUG_IN)
    folder = tmp_path / "fast_batch-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: fast-batch\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder / "entry_points.txt"


def test_slurm_and_pbs_are_there() -> None:
    assert {"slurm", "pbs"} <= set(batch_systems())
    assert batch_system("slurm") is SLURM


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(LauncherError, match=r"there is no batch system 'lsf'; there are: .*pbs.*slurm"):
        batch_system("lsf")


def test_a_package_adds_one_by_an_entry_point(package: Path) -> None:
    package.write_text("[ipmpi.batch_systems]\nfast = fast_batch:FAST\n")
    assert batch_system("fast").submit(Path("/s")) == ["fastbatch", "/s"]
    assert batch_system("pbs").title == "PBS"


@pytest.mark.parametrize(
    ("point", "complaint"),
    [
        ("fast_batch:ABSENT", "cannot be loaded: AttributeError: .*ABSENT"),
        ("no_such_module:FAST", "cannot be loaded: ModuleNotFoundError"),
        ("fast_batch:WRONG", "is no BatchSystem but a str"),
    ],
)
def test_a_broken_plug_in_is_named(package: Path, point: str, complaint: str) -> None:
    package.write_text(f"[ipmpi.batch_systems]\nfast = {point}\n")
    with pytest.raises(LauncherError, match=f"'fast' of the package fast-batch.*{complaint}") as info:
        batch_systems()
    assert "pip uninstall fast-batch" in str(info.value)
    assert metadata.distribution("fast-batch")


def test_programs_are_looked_for_in_path(tmp_path: Path) -> None:
    assert SLURM.missing(str(tmp_path)) == ["sbatch", "squeue", "scancel"]
    for name in SLURM.programs:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert SLURM.is_here(str(tmp_path))
    (tmp_path / "squeue").unlink()
    assert not SLURM.is_here(str(tmp_path))


@pytest.mark.parametrize("id", ["", "-x", "12 34", "12;", "12;-x", "12;rm x", ";rm", "$(id)"])
def test_what_is_no_id_gets_into_no_command(id: str) -> None:
    for system in (SLURM, PBS):
        with pytest.raises(LauncherError, match="is not the id of a job"):
            system.cancel(id)
    with pytest.raises(LauncherError, match="is not the id of a job"):
        PBS.cancel("12;cluster")  # it has no others


def test_a_record_is_all_that_a_new_one_needs() -> None:
    needed = {
        field.name
        for field in dataclasses.fields(BatchSystem)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert needed == {
        *("name", "title", "prefix", "directives", "resources", "shell", "output", "gone"),
        *("submitting", "asking", "cancelling", "read_id", "read_status"),
    }


@pytest.fixture
def grid_engine(root: Path) -> BatchSystem:
    """The example of the how-to."""
    names = runpy.run_path(str(root / "docs" / "howto" / "gridengine.py"))
    system = names["GRID_ENGINE"]
    assert isinstance(system, BatchSystem)
    return system


QSTAT = """\
job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID
-----------------------------------------------------------------------------------------------------------------
   4711 0.55500 ipmpi      a            r     11/24/2026 22:00:00 all.q@n1                           8
   4712 0.00000 ipmpi      a            qw    11/24/2026 22:00:00                                    8
"""


def test_the_example_of_the_howto_reads_its_batch_system(grid_engine: BatchSystem) -> None:
    qstat, qacct = grid_engine.status("4711")
    running = grid_engine.parse_status("4711", qstat, QSTAT)
    waiting = grid_engine.parse_status("4712", qstat, QSTAT)
    ended = grid_engine.parse_status("4711", qacct, "jobnumber    4711\nfailed       0\nexit_status  1\n")
    assert running is not None
    assert waiting is not None
    assert ended is not None
    assert (running.state, waiting.state) == (JobState.RUNNING, JobState.PENDING)
    assert (ended.state, ended.outcome) == (JobState.ENDED, "failed")
    assert grid_engine.parse_status("4713", qstat, QSTAT) is None
    assert grid_engine.job_id("4711.1-16:1\n") == "4711"


@pytest.mark.parametrize("kind", ["engines", "array"])
def test_the_example_of_the_howto_makes_scripts(grid_engine: BatchSystem, tmp_path: Path, kind: Kind) -> None:
    launcher = tmp_path / "mpiexec"
    launcher.write_text("#!/bin/sh\necho HYDRA build details:\n")
    launcher.chmod(0o755)
    options = JobOptions(kind=kind, n=16, walltime=60, python=str(tmp_path / "python"))
    text = render(grid_engine, options).text
    assert "#$ -l h_rt=0:01:00\n" in text
    assert ("#$ -t 1-16\n" in text) == (kind == "array")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=10)
