"""Grid Engine for ipmpi: all that it takes to add a batch system."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ipmpi.launch.batch.registry import BatchSystem, JobState, JobStatus, Line, Shape, Shell

STATES = {"qw": JobState.PENDING, "hqw": JobState.PENDING, "t": JobState.PENDING, "r": JobState.RUNNING}


def resources(shape: Shape) -> list[Line]:
    """The parallel environment `mpi` decides where the slots are."""
    return [Line(f"-pe mpi {shape.n * shape.cores}", "one slot for each core of an engine")]


def read_id(stdout: str) -> str:
    """`qsub -terse` prints 4711, or 4711.1-16:1 for an array."""
    found = re.match(r"\d+", stdout)
    return found[0] if found else ""


def read_status(id: str, argv: Sequence[str], stdout: str) -> JobStatus | None:
    """A line of qstat while the job is there, a record of qacct when it has ended."""
    if argv[0] == "qacct":
        code = re.search(r"^exit_status +(\d+)", stdout, re.MULTILINE)
        outcome = "" if code is None else "completed" if code[1] == "0" else "failed"
        return JobStatus(id, JobState.ENDED, "ended", outcome=outcome)
    for words in map(str.split, stdout.splitlines()):
        if words[:1] == [id]:
            return JobStatus(id, STATES.get(words[4], JobState.UNKNOWN), words[4])
    return None


GRID_ENGINE = BatchSystem(
    name="sge",
    title="Grid Engine",
    prefix="#$",
    directives={
        "name": "-N {value}",
        "shell": "-S {value}",
        "walltime": "-l h_rt={value}",
        "queue": "-q {value}",
        "account": "-P {value}",
        "output": "-j y -o {value}",
        "array": "-t 1-{value}",
    },
    resources=resources,
    shell=Shell(
        job="$JOB_ID",
        element="$JOB_ID-$SGE_TASK_ID",
        folder="$SGE_O_WORKDIR",
        ranks="$NSLOTS",
        threads='"${OMP_NUM_THREADS:-1}"',
        end="end=$(( $(date +%s) + {walltime} ))",
    ),
    submitting=("qsub", "-terse", "{script}"),
    asking=(("qstat", "-u", "*"), ("qacct", "-j", "{id}")),
    cancelling=("qdel", "{id}"),
    read_id=read_id,
    read_status=read_status,
    gone="job id .* not found",
    output=("{name}.o{id}*",),
)
