"""Batch systems by name, and those that other packages add."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch import BatchSystem, batch_system, batch_systems
from ipmpi.launch.slurm import SLURM

PLUG_IN = """\
from dataclasses import replace
from ipmpi.launch.slurm import SLURM
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


@pytest.mark.parametrize("id", ["", "-x", "12 34", "12;rm", "$(id)"])
def test_what_is_no_id_gets_into_no_command(id: str) -> None:
    with pytest.raises(LauncherError, match="is not the id of a job"):
        SLURM.cancel(id)


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
