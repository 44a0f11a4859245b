"""Was this process started by an MPI launcher? Told from environment variables alone.

Importing ``mpi4py.MPI`` to find out would abort the process on some login nodes, so nothing here does.
The rows and their order come from environments recorded under each launcher:

* a launcher of MPI ranks leaves variables of its own, and they are always right;
* ``SLURM_*`` variables are inherited by everything in a job. A batch script has ``SLURM_PROCID=0`` without being
  a rank, all ranks of an ``mpirun`` in it share that 0, and under hydra it is the number of the node.
  They count only inside a job step that ``srun`` started, and only when nothing more certain is there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

PSEUDO_STEPS: Final = range(0xFFFFFFF0, 0x1_0000_0000)
"""Step ids that Slurm gives to what is no launch of ranks: interactive step, batch script, extern step."""


TOGETHER: Final = "IPMPI_LAUNCH"
"""Variable for processes without a launcher that are to be one launch: ``NAME:COUNT``, both for this node."""

RANK: Final = "IPMPI_RANK"
"""Variable with the number of such a process among them."""


class LaunchedRank(NamedTuple):
    """What the launcher told this process about itself.

    Attributes:
        launcher: ``openmpi``, ``mvapich``, ``pals``, ``hydra``, ``srun-pmi2``, ``pmix``, ``srun-pmix``,
            ``srun`` or ``flux``.
        rank: number of this process among those started together, from 0.
        size: how many were started together; None if the launcher does not say.
        local_rank: number of this process among those on the same machine, or None.
        local_size: how many of them are on this machine, or None.
    """

    launcher: str
    rank: int
    size: int | None
    local_rank: int | None
    local_size: int | None


def detect(environ: Mapping[str, str]) -> LaunchedRank | None:
    """Tell rank and size from the environment, or None for a process that no launcher started as a rank."""
    for row in _ROWS:
        found = row(environ)
        if found is not None:
            return _plausible(found)
    return None


def rank_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables by which a launcher told a process that it is a rank, and where its server is.

    A program that inherits them takes itself for that rank. Settings of the user (``OMPI_MCA_btl``,
    ``HYDRA_IFACE``) and what describes a whole job (``SLURM_JOB_ID``) are not among them.
    """
    return [name for name in environ if _OF_RANKS.fullmatch(name)]


def mismatch_sentence(
    launched: LaunchedRank, comm_size: int, library: str, python: str = sys.executable
) -> str | None:
    """Explain ranks that each think they are alone, or None if launcher and MPI library agree.

    Args:
        launched: what :func:`detect` found.
        comm_size: size of ``COMM_WORLD`` as the library sees it.
        library: the text of ``MPI.Get_library_version()``.
        python: path of the interpreter that runs the engines.
    """
    if comm_size != 1 or launched.size is None or launched.size == 1:
        return None
    started = _TITLES[launched.launcher]
    short = library.strip().split("\n", 1)[0].split(",", 1)[0].split("\t", 1)[0].strip()[:80] or "another MPI"
    return (
        f"{started} started {launched.size} ranks, but each thinks it is alone: mpi4py of this Python uses "
        f"{short}, which does not understand that launcher. {_remedy(launched.launcher, short, python)} "
        "Or start the engines with --mpi none: they work, without a communicator."
    )


_OF_RANKS: Final = re.compile(
    r"OMPI_(COMM_WORLD|WORLD|UNIVERSE)_\w+|OMPI_(ARGV|COMMAND|NUM_APP_CTX|APP_CTX_NUM_PROCS|FIRST_RANKS)"
    r"|OMPI_(FILE_LOCATION|TOOL_NAME)|OMPI_MCA_(num_procs|initial_wdir|cpu_type|ess|pmix|shmem_RUNTIME_QUERY_hint)"
    r"|OMPI_MCA_(orte|ess)_\w+|OPAL_USER_PARAMS_GIVEN|PMIX_(?!MCA_)\w+|PRTE_(?!MCA_)\w+"
    r"|PMI_\w+|HYDI_\w+|MPI_LOCAL(NRANKS|RANKID)|MV2_COMM_WORLD_\w+|MPISPAWN_\w+|PALS_\w+"
    r"|SLURM_(STEP\w*|PROCID|LOCALID|NODEID|TASK_PID|GTIDS|LAUNCH_NODE_IPADDR|SRUN_\w+|PMIX?\w*|MPI_TYPE)"
    r"|IPMPI_(LAUNCH|RANK)|SLURM_(CPU_BIND\w*|DISTRIBUTION)|FLUX_(TASK_RANK|TASK_LOCAL_ID|JOB_SIZE|PMI_\w+)"
)


# --- One function per row of the table; the order of _ROWS is the precedence ------------------------------


def _number(environ: Mapping[str, str], *names: str) -> int | None:
    """The first of these variables that holds a number."""
    for name in names:
        text = environ.get(name, "").strip()
        if text.isascii() and text.isdigit():
            return int(text)
    return None


def _simple(launcher: str, rank: str, size: str, local_rank: str, local_size: str) -> Row:
    def row(environ: Mapping[str, str]) -> LaunchedRank | None:
        number = _number(environ, rank)
        if number is None:
            return None
        return LaunchedRank(
            launcher, number, _number(environ, size), _number(environ, local_rank), _number(environ, local_size)
        )

    return row


def _pals(environ: Mapping[str, str]) -> LaunchedRank | None:
    rank = _number(environ, "PALS_RANKID")
    if rank is None:
        return None
    local_rank = _number(environ, "PALS_LOCAL_RANKID", "PMI_LOCAL_RANK")
    size, local_size = _number(environ, "PMI_SIZE"), _number(environ, "PMI_LOCAL_SIZE", "PALS_LOCAL_SIZE")
    step = _slurm_step(environ)
    if step is not None and step.rank == rank:  # srun --mpi=cray_shasta: the rest is known to Slurm only
        size = step.size if size is None else size
        local_rank = step.local_rank if local_rank is None else local_rank
        local_size = step.local_size if local_size is None else local_size
    return LaunchedRank("pals", rank, size, local_rank, local_size)


def _pmi(environ: Mapping[str, str]) -> LaunchedRank | None:
    rank = _number(environ, "PMI_RANK")
    if rank is None:
        return None
    size = _number(environ, "PMI_SIZE")
    local_rank = _number(environ, "MPI_LOCALRANKID", "PMI_LOCAL_RANK")
    local_size = _number(environ, "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE")
    step = _slurm_step(environ)
    by_hydra = local_rank is not None or "HYDI_CONTROL_FD" in environ
    if step is None or by_hydra:
        return LaunchedRank("hydra", rank, size, local_rank, local_size)
    if step.rank != rank:  # some other launcher inside a job step: what Slurm says is about the step
        return LaunchedRank("hydra", rank, size, None, None)
    return LaunchedRank("srun-pmi2", rank, step.size if size is None else size, step.local_rank, step.local_size)


def _pmix(environ: Mapping[str, str]) -> LaunchedRank | None:
    rank = _number(environ, "PMIX_RANK")
    if rank is None:
        return None
    step = _slurm_step(environ)
    by_srun = environ.get("PMIX_NAMESPACE", "").startswith("slurm.pmix.")
    if step is None or not by_srun:
        return LaunchedRank("pmix", rank, None, None, None)
    return LaunchedRank("srun-pmix", rank, step.size, step.local_rank, step.local_size)


def _slurm_step(environ: Mapping[str, str]) -> LaunchedRank | None:
    """What ``srun`` says, if this environment is that of a job step with ranks."""
    step = _number(environ, "SLURM_STEP_ID", "SLURM_STEPID")
    rank = _number(environ, "SLURM_PROCID")
    if step is None or step in PSEUDO_STEPS or rank is None:
        return None
    return LaunchedRank(
        "srun", rank, _number(environ, "SLURM_STEP_NUM_TASKS"), _number(environ, "SLURM_LOCALID"), _here(environ)
    )


def _here(environ: Mapping[str, str]) -> int | None:
    """Tasks on this machine, from ``SLURM_STEP_TASKS_PER_NODE``, which reads like ``16(x3),8``."""
    counts: list[int] = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        count, _, repeat = part.strip().rstrip(")").partition("(x")
        if not count.isdigit() or not (repeat or "1").isdigit():
            return None
        counts.extend([int(count)] * min(int(repeat or "1"), 100_000))
    if len(set(counts)) == 1:
        return counts[0]
    node = _number(environ, "SLURM_NODEID")
    return counts[node] if node is not None and node < len(counts) else None


def _plausible(found: LaunchedRank) -> LaunchedRank:
    """Drop sizes that contradict the ranks: in a heterogeneous job the rank counts over all components."""
    size, local_size = found.size, found.local_size
    if size is not None and found.rank >= size:
        size = None
    if local_size is not None and found.local_rank is not None and found.local_rank >= local_size:
        local_size = None
    return found._replace(size=size, local_size=local_size)


Row = Callable[[Mapping[str, str]], LaunchedRank | None]

_ROWS: Final[tuple[Row, ...]] = (
    _simple(
        "openmpi",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    _simple(
        "mvapich",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    _pals,
    _pmi,
    _pmix,
    _slurm_step,
    _simple("flux", "FLUX_TASK_RANK", "FLUX_JOB_SIZE", "FLUX_TASK_LOCAL_ID", ""),
)

_TITLES: Final = {
    "openmpi": "Open MPI's mpiexec",
    "mvapich": "MVAPICH's mpiexec",
    "pals": "The PALS launcher",
    "hydra": "An mpiexec of the MPICH family (hydra)",
    "srun-pmi2": "srun --mpi=pmi2",
    "pmix": "A PMIx launcher",
    "srun-pmix": "srun --mpi=pmix",
    "srun": "srun",
    "flux": "Flux",
}


def _remedy(launcher: str, library: str, python: str) -> str:
    family = "Open MPI" if "open mpi" in library.lower() else "MPICH"
    if launcher.startswith("srun") or launcher == "pals":
        kind = "pmix" if family == "Open MPI" else "pmi2 (on Cray: cray_shasta)"
        return f"`srun --mpi=list` shows what srun offers; for this library use srun --mpi={kind}."
    beside = os.path.join(os.path.dirname(python) or ".", "mpiexec")
    return f"Use the mpiexec that belongs to this library: {beside} if it is there, or that of {family} in PATH."


def batch_node(environ: Mapping[str, str]) -> str:
    """Return what the batch system calls this machine, which may have another name; "" if it does not say so."""
    return environ.get("SLURMD_NODENAME", "")
