"""mpi4py in a program that has its own MPI: made for the same one, or a sentence before anything is loaded."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.native import samempi

FOLDER = Path(importlib.util.find_spec("mpi4py").origin).parent  # type: ignore[union-attr, arg-type]
COMPILED = sorted(FOLDER.glob("MPI.*.so"))
VERSIONS = {
    "openmpi": "Open MPI v4.1.4, package: Debian OpenMPI\0",
    "mpich": "MPICH Version:\t4.2.1\nMPICH Release\n",
}


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: str(path.name))
def test_a_compiled_mpi4py_tells_for_which_mpi_it_is(path: Path) -> None:
    kind = samempi.kind_of(path)
    assert kind in samempi.KINDS
    if path.name.count(".") > 2:  # of a wheel, which has one for each
        assert path.name.split(".")[1] == kind


def loaded(kind: str, version: str, root: Path, **environ: str) -> str:
    """What is said in a process that has not started MPI, and whether mpi4py was imported there."""
    code = (
        "import sys; from ipmpi.native import samempi\n"
        f"try: samempi.load({kind!r}, {version!r})\n"
        "except samempi.OtherMPI as error: print(error)\n"
        "print('imported:', 'mpi4py.MPI' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(root), **environ},
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.fixture(scope="module", name="ours")
def own_kind(need: Callable[[str, object], None]) -> str:
    """The kind of MPI that the mpi4py of the tests takes by itself."""
    code = "from mpi4py import MPI; print('openmpi' if 'Open MPI' in MPI.Get_library_version() else 'mpich')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    need("no MPI for mpi4py", not done.returncode)
    return done.stdout.strip()


def test_one_for_another_mpi_is_not_imported(ours: str, root: Path) -> None:
    other = "mpich" if ours == "openmpi" else "openmpi"
    said = loaded(other, VERSIONS[other], root)
    name = {"openmpi": "Open MPI v4.1.4", "mpich": "MPICH Version: 4.2.1"}[other]
    assert f"the program runs on {name}, but the mpi4py of {sys.executable} is for {samempi.KINDS[ours]} (" in said
    assert "pip install --force-reinstall mpi4py, which adapts itself" in said
    assert "imported: False" in said


def test_a_variable_that_chooses_another_mpi_is_named(ours: str, root: Path) -> None:
    other = "mpich" if ours == "openmpi" else "openmpi"
    said = loaded(ours, VERSIONS[ours], root, MPI4PY_MPIABI=other)
    assert f"is for {samempi.KINDS[other]}, as MPI4PY_MPIABI={other} says (" in said
    assert "To have them fit: unset MPI4PY_MPIABI" in said
    assert "imported: False" in said


def test_a_second_library_of_the_same_kind_is_noticed(ours: str, root: Path) -> None:
    """As in a program that was linked statically: mpi4py then loads a library in which nobody has started MPI."""
    said = loaded(ours, VERSIONS[ours], root)
    assert f"but the mpi4py of {sys.executable} has loaded another library, " in said
    assert "Link the program with MPI's shared library" in said


def test_an_mpi_that_mpi4py_does_not_know_is_named(root: Path) -> None:
    said = loaded("mpich", VERSIONS["mpich"], root, MPI4PY_MPIABI="weird")
    assert f"{sys.executable} has no mpi4py that can be used here (unsupported MPI ABI 'weird')" in said or (
        "supports no MPICH, on which this program runs" in said
    )
    assert "imported: False" in said
