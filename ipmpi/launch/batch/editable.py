"""Job scripts for editing by hand: the same templates, with what a person fills in.

``make jobscripts`` writes them into ``jobscripts/``; a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

from ipmpi.launch.batch.batchsystem import BatchSystem, Line
from ipmpi.launch.batch.joboptions import JobOptions, Kind
from ipmpi.launch.batch.jobscript import fill, job_directives, job_end, log_name, started_again
from ipmpi.launch.batch.pbs import PBS
from ipmpi.launch.batch.ranks import bash_array
from ipmpi.launch.batch.slurm import SLURM
from ipmpi.launch.processes.mpi import ULFM
from ipmpi.launch.processes.restarts import DEFAULT

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

WALLTIME: Final = 3600

_SURVIVES: Final = '--kill-on-bad-exit=0 --wait=0 --no-kill -c "$OMP_NUM_THREADS"'

_ULFM: Final = " ".join(ULFM)
_FT: Final = "On several machines --with-ft ulfm rules out fast networks: leave it out"

LAUNCHERS: Final = {
    "slurm": (
        Line(f"mpirun --bind-to none {_ULFM}", f"Open MPI 5. {_FT}"),
        Line(f"srun --mpi=pmi2 {_SURVIVES}", "MPICH, MVAPICH, Intel MPI"),
        Line(f"srun {_SURVIVES}", "Cray: what the site chose is right"),
        Line('srun --mpi=pmix -c "$OMP_NUM_THREADS"', "any Open MPI; but when one engine dies, all end"),
    ),
    "pbs": (
        Line('mpiexec -n "$ranks"', "MPICH, Intel MPI"),
        Line(
            'mpiexec -n "$ranks" --ppn 4 --cpu-bind depth --genvall', "Cray (PALS); ppn: engines on each machine"
        ),
        Line(f'mpirun -n "$ranks" --bind-to none {_ULFM}', f"Open MPI 5. {_FT}"),
        Line(
            f'mpirun -n "$ranks" --bind-to none {_ULFM}\n    --hostfile "$PBS_NODEFILE" -x PATH',
            "Open MPI 5 that does not know PBS, as that of the package index: it goes by ssh",
        ),
    ),
}
"""How ranks are started, the usual way first; the other ones are switched off."""

SPARE: Final = {
    "slurm": (
        "##SBATCH --account=YOUR_PROJECT",
        "##SBATCH --partition=YOUR_PARTITION",
        "##SBATCH --gpus-per-node=4",
        "##SBATCH --mem=64G",
    ),
    "pbs": (
        "##PBS -A YOUR_PROJECT",
        "##PBS -q YOUR_QUEUE",
        "# Some sites want to know which file systems the job needs.",
        "##PBS -l filesystems=home",
        "# GPUs and memory of each machine belong to select: add :ngpus=4:mem=64gb to it.",
    ),
}
"""What a job may ask for besides: switched off."""

_FURL_FILES: Final = {"cluster": "ipmpi-{job}/ipcontroller-engine.furl"}
_BEFORE: Final = """\
Before:  start the controller where this job can reach it, for example on the login node:
             ipcontroller
"""
_ABOUT: Final = """\

{before}Then:    edit the lines below, and:  {submit} {file}
Stop:    {stop}, or:   {cancel} JOBID

Lines that begin with "#{prefix}" are switched off; remove one # to use them.
"""


def editable(system: BatchSystem, kind: Kind) -> str:
    """The script of a kind of job, with the usual choices made, and the others beside them."""
    array = kind == "array"
    options = JobOptions(kind=kind, walltime=WALLTIME, log_dir=Path("."), restarts=DEFAULT)
    options = replace(options, n=16) if array else replace(options, nodes=1, per_node=4)
    stop = "mec.kill(controller=True) in Python" if kind == "cluster" else "mec.kill() in Python"
    about = _ABOUT.format(
        before="" if kind == "cluster" else _BEFORE,
        submit=system.submitting[0],
        file=f"{kind}.{system.name}",
        stop=stop,
        cancel=system.cancelling[0],
        prefix=system.prefix,
    )
    furl_file = _FURL_FILES.get(kind, "ipcontroller-engine.furl").format(job=system.shell.job)
    context = {
        "system": system,
        "shell": system.shell,
        "options": options,
        "about": about.splitlines(),
        "directives": _directives(system, options),
        "software": ("# module load python openmpi", '# source "$HOME/my-environment/bin/activate"'),
        "launch": [] if array else _launch(system),
        "engine": _engine(system, options),
        "threads": system.shell.threads,
        "furl_file": f'"${{IPYTHONDIR:-$HOME/.ipython}}/security/{furl_file}"',
        "log_dir": "logs",
        "ends": job_end(system, WALLTIME),
        "controller": "ipcontroller",
        "restarts": started_again(system, options),
        "stage": "",
    }
    return fill(f"{kind}.sh.j2", context)


def _directives(system: BatchSystem, options: JobOptions) -> list[str]:
    lines = []
    for line in job_directives(system, options):
        lines += [f"# {line.why[:1].upper()}{line.why[1:]}.", f"{system.prefix} {line.text}"]
    return [*lines, *SPARE[system.name]]


def _launch(system: BatchSystem) -> list[str]:
    lines = ["# Keep the one for your MPI, and switch off the others."]
    if "$ranks" in LAUNCHERS[system.name][0].text:
        lines.insert(0, f"ranks={system.shell.ranks}    # one line for each engine")
    for number, line in enumerate(LAUNCHERS[system.name]):
        off = "# " * bool(number)
        lines += [f"# {line.why}:", *(off + part for part in f"LAUNCH=({line.text})".splitlines())]
    return lines


def _engine(system: BatchSystem, options: JobOptions) -> list[str]:
    again = started_again(system, options)
    parts = [
        Line("ipengine", "of your software, see above"),
        Line('--furl-file "$FURL_FILE"', "the controller's address and key"),
        Line(f'-l "{log_name(system, options)}-"', "one log file for each engine and agent"),
    ]
    if options.kind == "array":
        parts.append(Line("--mpi none", "an engine by itself"))
    if options.kind == "cluster":
        parts.append(Line("--wait 60", "for the controller, which is started at the same time"))
    if again is not None:
        parts.append(Line(f"--ids-dir {again.ids}", "those that are started in their place get the same ids"))
    off = Line("# --gpus 4", "each engine sees its share of the GPUs of its machine")
    return bash_array("ENGINE", [*parts, off])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all of them into a folder."""
    (folder,) = sys.argv[1:] if arguments is None else arguments
    for system in (SLURM, PBS):
        for kind in KINDS:
            Path(folder, f"{kind}.{system.name}").write_text(editable(system, kind), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
