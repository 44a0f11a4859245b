"""The choice of the launcher of a job's engines, and its options."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Final, NamedTuple

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.batchsystem import BatchSystem, Line
from ipmpi.launch.batch.joboptions import JobOptions
from ipmpi.launch.processes.mpi import OPEN_MPI, Flavour, MpiLauncher, find_mpi, flavour_of, survives, which_mpi

ALONE: Final = "env"
"""Placeholder for a launcher, which does nothing."""

AS_ROOT: Final = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"

SRUN_SURVIVES: Final = (
    Line("--kill-on-bad-exit=0", "when one engine dies, the others stay"),
    Line("--wait=0", "when one engine ends, the others may go on for as long as they like"),
    Line("--no-kill", "when a machine fails, the engines on the others stay"),
)

_FAMILY: Final[dict[Flavour, str]] = {
    "openmpi5": "Open MPI",
    "openmpi4": "Open MPI",
    "hydra": "the MPICH family",
    "pals": "PALS, for Cray's MPI",
}

_EXPORTS: Final = """\
# Nodes that mpirun reaches by ssh get variables only when told.
for name in PATH LD_LIBRARY_PATH PYTHONPATH OMP_NUM_THREADS TMPDIR; do
    if [ -n "${!name:-}" ]; then LAUNCH+=(-x "$name"); fi
done"""

_REMOTE: Final = """\
# This launcher does not know {title}: it goes by ssh, or through {title} where that offers a way.
if command -v {remote} >/dev/null; then
    RSH=$(mktemp "$TMPDIR/ipmpi-rsh-XXXXXX")
    cat > "$RSH" <<'END'
#!/bin/sh
host=$1
shift
exec {remote} "$host" /bin/sh -c "$*"
END
    chmod 700 "$RSH"
    LAUNCH+=({options})
fi"""

_BY_REMOTE: Final[dict[Flavour, str]] = {
    "openmpi5": '--prtemca plm ssh --prtemca plm_ssh_no_tree_spawn 1 --prtemca plm_ssh_agent "$RSH"',
    "hydra": '-launcher rsh -launcher-exec "$RSH"',
}


class Ranks(NamedTuple):
    """How the engines of a job are started.

    Attributes:
        command: the words before the engine's own command, with explanations.
        shell: lines of shell that define the array ``LAUNCH``.
    """

    command: list[Line]
    shell: list[str]


def ranks(system: BatchSystem, options: JobOptions, *, root: bool) -> Ranks:
    """Choose the launcher of a job's engines.

    Args:
        system: the batch system.
        options: the options of the job script.
        root: whether the engines will run as root.

    Raises:
        LauncherError: there is no suitable launcher.
    """
    launcher, found, why = _chosen(system, options)
    command = [Line(shlex.quote(launcher), why)]
    if launcher == system.launcher:
        command += [*_srun_mpi(options, found), *SRUN_SURVIVES]
        # Newer versions of srun do not take this from the directives.
        command.append(Line(f"--cpus-per-task={options.cores_per_engine}", "cores of each engine"))
    elif found is not None:
        command += _mpiexec_options(system, options, found.flavour)
    if launcher == ALONE and options.launcher_options:
        raise LauncherError("--launcher-option is for a launcher, and a single engine without MPI has none")
    command += [Line(shlex.join(shlex.split(text)), "asked for") for text in options.launcher_options]
    if launcher != ALONE:
        command.append(Line(f"-n {options.shape().n}", "engines"))
    shell = bash_array("LAUNCH", command)
    if found is not None and launcher != system.launcher:
        shell += _survive_on_one(system, options, found.flavour)
    if found is not None and found.flavour in OPEN_MPI and launcher != system.launcher:
        shell = [*[AS_ROOT] * root, *shell, *_EXPORTS.splitlines() * bool(system.shell.hostfile)]
    if found is not None and _is_beside(found, options) and options.shape().nodes != 1:
        shell += _remote(system, found.flavour)
    return Ranks(command, shell)


def bash_array(name: str, parts: Sequence[Line]) -> list[str]:
    """Return a bash array, one part in each line, with explanations as comments."""
    width = max((len(part.text) for part in parts if len(part.text) <= 52), default=0)
    return [f"{name}=(", *(f"    {part.text:{width}}    # {part.why}" for part in parts), ")"]


def _chosen(system: BatchSystem, options: JobOptions) -> tuple[str, MpiLauncher | None, str]:
    """Return the launcher, its MPI if known, and the reason of the choice."""
    beside = os.path.dirname(options.python)
    found = find_mpi(prefix=beside)
    asked = options.launcher
    if asked == "srun" != system.launcher:
        raise LauncherError(f"{system.title} has no srun: leave --launcher out, or try --launcher mpiexec")
    if asked == system.launcher:
        return asked, found, "asked for"
    if asked != "auto":
        found = _named(asked, beside)
        return asked if "/" in asked else _as_typed(found, options), found, "asked for"
    if options.mpi == "none" and system.launcher:
        return system.launcher, None, "starts processes without MPI too"
    if options.mpi == "none" and options.shape().n == 1:
        return ALONE, None, "a single engine without MPI needs no launcher"
    if found is not None and (found.flavour in OPEN_MPI or not system.launcher):
        return _as_typed(found, options), found, _why_mpiexec(found, system, options)
    if system.launcher:
        return system.launcher, found, _why_native(found)
    raise LauncherError(
        f"there is no mpiexec next to {options.python}, and none in PATH, to start the engines of a job of "
        f"{system.title}. Load the site's MPI module first, or name one: --launcher /PATH/mpiexec"
    )


def _named(asked: str, beside: str) -> MpiLauncher:
    for folder in (beside, None):
        executable = which_mpi(asked, folder)
        if executable is not None:
            return MpiLauncher(executable, flavour_of(executable))
    raise LauncherError(f"there is no {asked} here; name another one with --launcher PATH")


def _as_typed(found: MpiLauncher, options: JobOptions) -> str:
    """Return its path; only the name if the job loads software, to find that of its modules."""
    return (
        found.executable
        if _is_beside(found, options) or not options.prologue
        else os.path.basename(found.executable)
    )


def _is_beside(found: MpiLauncher, options: JobOptions) -> bool:
    """Return whether it is from the package index: such launchers support Slurm only."""
    return os.path.dirname(found.executable) == os.path.dirname(options.python)


def _remote(system: BatchSystem, flavour: Flavour) -> list[str]:
    """Return lines that reach other machines by a program of the batch system, if it has one."""
    if not system.shell.remote or flavour not in _BY_REMOTE:
        return []
    lines = _REMOTE.format(title=system.title, remote=system.shell.remote, options=_BY_REMOTE[flavour])
    return lines.splitlines()


def _why_mpiexec(found: MpiLauncher, system: BatchSystem, options: JobOptions) -> str:
    where = "next to the interpreter" if _is_beside(found, options) else f"in PATH as {found.executable}"
    nodes = options.shape().nodes
    on_one = bool(survives(found.flavour, options.fault_tolerance, 1))
    here = bool(survives(found.flavour, options.fault_tolerance, nodes or None))
    better = ""
    if system.launcher and (here or (on_one and not nodes)):
        better = (
            f"; with it an engine may die alone{'' if here else ' on one machine'}, unlike with {system.launcher}"
        )
    return f"of {_FAMILY.get(found.flavour, 'an unknown MPI')}, {where}{better}"


def _why_native(found: MpiLauncher | None) -> str:
    if found is None or found.flavour not in _FAMILY:
        return "there is no mpiexec of a known MPI, so what the site has has to be right"
    return f"starts ranks of {_FAMILY[found.flavour]} ({found.executable}), and one may die alone"


def _srun_mpi(options: JobOptions, found: MpiLauncher | None) -> list[Line]:
    if options.srun_mpi != "auto":
        return [Line(f"--mpi={options.srun_mpi}", "asked for")]
    if options.mpi == "none":
        return [Line("--mpi=none", "engines without MPI")]
    if found is not None and found.flavour == "hydra":
        return [Line("--mpi=pmi2", "what the MPICH family speaks")]
    if found is not None and found.flavour in OPEN_MPI:
        return [Line("--mpi=pmix", "what Open MPI speaks; with it, all engines end when one dies")]
    return []


def _mpiexec_options(system: BatchSystem, options: JobOptions, flavour: Flavour) -> list[Line]:
    if flavour == "pals":
        per_node = options.shape().per_node
        return [
            *[Line(f"--ppn {per_node}", "engines on each machine")] * bool(per_node),
            Line(f"--cpu-bind depth --depth {options.cores_per_engine}", "each engine on cores of its own"),
            Line("--genvall", "with the variables of this script"),
        ]
    if flavour not in OPEN_MPI:
        return []
    shape = options.shape()
    lives = survives(flavour, options.fault_tolerance, shape.nodes or (1 if shape.n == 1 else None))
    command = [Line("--bind-to none", "engines mostly wait; bound, their threads would share one core")]
    command += [Line(" ".join(lives), "when one engine dies, the others stay")] * bool(lives)
    if system.shell.hostfile:
        why = f"for an Open MPI that does not know {system.title}, as that of the package index"
        command.append(Line(f'--hostfile "{system.shell.hostfile}"', why))
    return command


def _survive_on_one(system: BatchSystem, options: JobOptions, flavour: Flavour) -> list[str]:
    """Return lines for a job whose number of machines is chosen by the batch system."""
    shape = options.shape()
    one, several = (survives(flavour, options.fault_tolerance, machines) for machines in (1, None))
    if shape.nodes or shape.n == 1 or one == several or not system.shell.nodes:
        return []
    return [
        "# On one machine: when one engine dies, the others stay. Between machines it rules out fast networks.",
        f'if [ "{system.shell.nodes}" = 1 ]; then LAUNCH+=({" ".join(one)}); fi',
    ]
