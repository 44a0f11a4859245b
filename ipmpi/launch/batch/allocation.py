"""The job in which this process is, by its environment; and what is left there of jobs that are over.

Launchers of MPI go by these variables: inside a job, ``mpiexec`` starts ranks on the job's machines. They are also
inherited where they mislead: by a terminal that outlives the job it was opened in (tmux, an editor's server), by
``ssh`` into a node, by another job that is submitted from this one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ipmpi.environment import mpienv
from ipmpi.launch.batch.nodelist import expand_nodes


class Allocation(NamedTuple):
    """A job, as the environment has it.

    Attributes:
        title: the batch system, as it is called in sentences.
        prefix: what the names of its variables begin with.
        job: its id.
        nodes: its machines, as far as the environment says.
    """

    title: str
    prefix: str
    job: str
    nodes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """How to call it: ``Slurm's job 123 on node17``."""
        more = f" and {len(self.nodes) - 3} more" if len(self.nodes) > 3 else ""
        where = f" on {', '.join(self.nodes[:3])}{more}" if self.nodes else ""
        return f"{self.title}'s job {self.job}{where}"

    @property
    def unset(self) -> str:
        """What to type to be rid of it, in bash."""
        return f"unset ${{!{self.prefix}@}}"


_OTHERS: Final = ("LSB_JOBID", "PE_HOSTFILE", "FLUX_URI", "PALS_APID")
"""Of batch systems about which no more is known here."""

_SETTINGS: Final = (
    *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"),
    *("PBS_SERVER", "PBS_DEFAULT", "PBS_EXEC", "PBS_CONF_FILE", "PBS_HOME", "PBS_PRIMARY", "PBS_SECONDARY"),
)
"""Variables that begin alike, and are about the machine and not about a job."""


def allocation(environ: Mapping[str, str]) -> Allocation | None:
    """The job of Slurm or PBS that the environment tells of, or None."""
    job = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID", "")
    if job:
        nodes = expand_nodes(environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST", ""))
        return Allocation("Slurm", "SLURM_", job, tuple(nodes))
    nodefile = environ.get("PBS_NODEFILE", "")
    job = environ.get("PBS_JOBID", "") or ("?" if nodefile else "")
    return Allocation("PBS", "PBS_", job, tuple(_in_file(nodefile))) if job else None


def in_allocation(environ: Mapping[str, str]) -> bool:
    """Whether this process is inside a job of a batch system, so that mpiexec may reach other machines."""
    return allocation(environ) is not None or any(environ.get(name) for name in _OTHERS)


def machines(environ: Mapping[str, str]) -> int | None:
    """On how many machines mpiexec starts ranks; None if that is not known."""
    if not in_allocation(environ):
        return 1
    found = allocation(environ)
    if found is None:
        return None
    if found.nodes:
        return len(found.nodes)
    count = environ.get("SLURM_JOB_NUM_NODES") or environ.get("SLURM_NNODES", "")
    return int(count) if count.isdigit() and int(count) else None


def leftover(environ: Mapping[str, str], host: str, is_over: Callable[[Allocation], bool | None]) -> str:
    """Why the job in the environment is none in which this process is; empty if it may be.

    Args:
        environ: the environment.
        host: name of this machine.
        is_over: asks the batch system whether a job has ended; None if it does not say. It is called only if the
            job has other machines than this one, as an allocation on a login node has, too.
    """
    found = allocation(environ)
    if found is None:
        return ""
    nodefile = environ.get("PBS_NODEFILE", "")
    if found.title == "PBS":
        return f"its list of machines ({nodefile}) is gone" if nodefile and not os.path.exists(nodefile) else ""
    if not found.nodes or _short(host) in map(_short, found.nodes):
        return ""
    if shutil.which("srun", path=environ.get("PATH")) is None:
        return "it has not this machine, and there is no srun here that could reach the others"
    return "it is over" if is_over(found) else ""


def without_job(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment as it would be outside of any job of Slurm or PBS, and of any launcher of ranks.

    For what shall be no part of it: programs that submit another job, which would inherit its variables (Slurm's
    are options of ``srun``), and engines on this machine alone.
    """
    of_ranks, found = set(mpienv.rank_variables(environ)), allocation(environ)
    prefixes = () if found is None else ("SLURM_", "SLURMD_", "PBS_")  # elsewhere they are wishes of the user
    return {
        name: value
        for name, value in environ.items()
        if name in _SETTINGS or not (name in of_ranks or name.startswith(prefixes))
    }


def without_rank(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without what a launcher told this process about its own rank.

    For launchers and engines that are started in an interactive step of a job: they are not that rank.
    """
    of_ranks = set(mpienv.rank_variables(environ))
    return {name: value for name, value in environ.items() if name not in of_ranks}


def _in_file(nodefile: str) -> list[str]:
    """The machines in PBS's file, which has a line for each rank."""
    try:
        lines = Path(nodefile).read_text("utf-8", "replace").split() if nodefile else []
    except OSError:
        return []
    return list(dict.fromkeys(lines))


def _short(host: str) -> str:
    return host.partition(".")[0]
