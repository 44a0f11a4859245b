"""mpi4py inside of a program that has called ``MPI_Init`` itself: it has to use the MPI library of the program."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Final

KINDS: Final = {"openmpi": "Open MPI", "mpich": "MPICH", "mpiabi": "the ABI of the MPI standard"}
"""Libraries that mpi4py tells apart: handles and constants of one mean nothing to another."""

_SIGNS: Final = ((b"ompi_mpi_comm_world", "openmpi"), (b"libmpi_abi.so", "mpiabi"), (b"libmpi.so.12", "mpich"))
"""What is found in a compiled mpi4py."""


class OtherMPI(Exception):
    """mpi4py cannot be used in this program; says why and what to do."""


def kind_of(compiled: Path) -> str:
    """For which of ``KINDS`` an extension module was compiled; empty if nothing in it tells."""
    content = compiled.read_bytes()
    return next((kind for sign, kind in _SIGNS if sign in content), "")


def load(kind: str, version: str) -> Any:
    """Import ``mpi4py.MPI`` on the MPI of this process.

    Args:
        kind: for which of ``KINDS`` the program was compiled.
        version: what its ``MPI_Get_library_version`` says.

    Returns:
        The module ``mpi4py.MPI``.

    Raises:
        OtherMPI: it is missing, or was made for another MPI. Then it is not imported: that could end the process.
    """
    if "mpi4py.MPI" not in sys.modules:
        _check_before_import(kind, version)
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    theirs = MPI.Get_library_version()
    if not MPI.Is_initialized() or theirs.rstrip("\0\n ") != version.rstrip("\0\n "):
        raise OtherMPI(
            f"the program runs on {_short(version)}, but the mpi4py of {sys.executable} has loaded another "
            f"library, {_short(theirs)}. Link the program with MPI's shared library, and let LD_LIBRARY_PATH not "
            "lead to another one"
        )
    return MPI


def _check_before_import(kind: str, version: str) -> None:
    try:
        found = importlib.util.find_spec("mpi4py.MPI")
    except (ImportError, RuntimeError, Warning) as error:
        raise OtherMPI(f"{sys.executable} has no mpi4py that can be used here ({error})") from None
    if found is None or found.origin is None:
        raise OtherMPI(
            f"the mpi4py of {sys.executable} supports no {KINDS.get(kind, kind)}, on which this program runs"
        )
    theirs = kind_of(Path(found.origin))
    if theirs and theirs != kind:
        variable = "MPI4PY_MPIABI"
        because = f", as {variable}={os.environ[variable]} says" if variable in os.environ else ""
        pip = f"{sys.executable} -m pip install --force-reinstall"
        remedy = f"unset {variable}" if because else (
            f"{pip} mpi4py, which adapts itself to the MPI of a program, or compile it for this one: "
            f"MPICC=mpicc {pip} --no-binary mpi4py mpi4py"
        )  # fmt: skip
        raise OtherMPI(
            f"the program runs on {_short(version)}, but the mpi4py of {sys.executable} is for "
            f"{KINDS[theirs]}{because} ({found.origin}). To have them fit: {remedy}"
        )


def _short(version: str) -> str:
    return " ".join(version.split("\n")[0].split(",")[0].replace("\t", " ").split())
