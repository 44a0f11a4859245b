"""The job of this process, by its environment; and detection of variables of other jobs.

MPI launchers use these variables: inside a job, ``mpiexec`` starts ranks on the job's machines. They may be
inherited wrongly: by a terminal that outlives its job (tmux, an editor's server), by ``ssh`` into a node, by a job
that is submitted from another one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ipmpi.environment import mpienv
from ipmpi.hostnames import others, shown
from ipmpi.launch.batch.nodelist import expand_nodes


class Allocation(NamedTuple):
    """A job, by the environment.

    Attributes:
        title: the name of the batch system in messages.
        prefix: prefix of the names of its variables.
        job: its id.
        nodes: its machines, as far as the environment has them.
    """

    title: str
    prefix: str
    job: str
    nodes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Its name in messages: ``Slurm's job 123 on node17``."""
        where = f" on {shown(self.nodes, 3)}" if self.nodes else ""
        return f"{self.title}'s job {self.job}{where}"

    @property
    def unset(self) -> str:
        """The bash command that removes its variables."""
        return f"unset ${{!{self.prefix}@}}"


_OTHERS: Final = ("LSB_JOBID", "PE_HOSTFILE", "FLUX_URI", "PALS_APID")
"""Variables of batch systems that are not supported otherwise."""

_SETTINGS: Final = (
    *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"),
    *("PBS_SERVER", "PBS_DEFAULT", "PBS_EXEC", "PBS_CONF_FILE", "PBS_HOME", "PBS_PRIMARY", "PBS_SECONDARY"),
)
"""Variables with the same prefix that describe the machine, not a job."""


def allocation(environ: Mapping[str, str]) -> Allocation | None:
    """Return the job of Slurm or PBS in the environment, or None."""
    job = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID", "")
    if job:
        nodes = expand_nodes(environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST", ""))
        return Allocation("Slurm", "SLURM_", job, tuple(nodes))
    nodefile = environ.get("PBS_NODEFILE", "")
    job = environ.get("PBS_JOBID", "") or ("?" if nodefile else "")
    return Allocation("PBS", "PBS_", job, tuple(_in_file(nodefile))) if job else None


def in_allocation(environ: Mapping[str, str]) -> bool:
    """Return whether this process is inside a job, so that mpiexec may reach other machines."""
    return allocation(environ) is not None or any(environ.get(name) for name in _OTHERS)


def machines(environ: Mapping[str, str]) -> int | None:
    """Return on how many machines mpiexec starts ranks; None if unknown."""
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
    """Return why this process is not in the job of the environment; "" if it may be.

    Args:
        environ: the environment.
        host: name of this machine.
        is_over: asks the batch system whether a job has ended; None if unknown. It is called only if the job has
            other machines than this one, as an allocation on a login node has, too.
    """
    found = allocation(environ)
    if found is None:
        return ""
    nodefile = environ.get("PBS_NODEFILE", "")
    if found.title == "PBS":
        return f"its list of machines ({nodefile}) is gone" if nodefile and not os.path.exists(nodefile) else ""
    if not found.nodes or not others([host], found.nodes):
        return ""
    if shutil.which("srun", path=environ.get("PATH")) is None:
        return "it has not this machine, and there is no srun here that could reach the others"
    return "it is over" if is_over(found) else ""


def without_job(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of a Slurm or PBS job, and of any launcher.

    It is for programs that submit another job, which would inherit them (Slurm's are options of ``srun``), and for
    engines on this machine only.
    """
    of_ranks, found = set(mpienv.rank_variables(environ)), allocation(environ)
    prefixes = (
        () if found is None else ("SLURM_", "SLURMD_", "PBS_")
    )  # outside of jobs they are options of the user
    return {
        name: value
        for name, value in environ.items()
        if name in _SETTINGS or not (name in of_ranks or name.startswith(prefixes))
    }


def without_rank(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the launcher's variables about this process's rank.

    It is for launchers and engines that are started in an interactive job step: they are not that rank.
    """
    of_ranks = set(mpienv.rank_variables(environ))
    return {name: value for name, value in environ.items() if name not in of_ranks}


def _in_file(nodefile: str) -> list[str]:
    """Return the machines in PBS's file, which has a line for each rank."""
    try:
        lines = Path(nodefile).read_text("utf-8", "replace").split() if nodefile else []
    except OSError:
        return []
    return list(dict.fromkeys(lines))
