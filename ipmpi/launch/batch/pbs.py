"""PBS Pro and OpenPBS, and as far as ``qstat`` goes Torque (no I/O)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ipmpi.environment.walltime import span
from ipmpi.errors import LauncherError
from ipmpi.launch.batch.batchsystem import BatchSystem, JobState, JobStatus, Line, Shape, Shell

STATES: Final = {
    **dict.fromkeys("QHWTM", JobState.PENDING),  # queued, held, waits for its time, moved twice
    **dict.fromkeys("RSUB", JobState.RUNNING),  # running, suspended twice, array that has begun
    "E": JobState.ENDING,
    **dict.fromkeys("FXC", JobState.ENDED),  # finished, finished element of an array, completed (Torque)
}

KILLED: Final = {
    -24: "it used more processor time than it asked for",
    -25: "it used more cores than it asked for",
    -26: "it used more virtual memory than it asked for",
    -27: "it used more memory than it asked for",
    -28: "it used more processor time than it asked for",
    -29: "its time was up",
}
"""Meanings of the Exit_status of a job that PBS killed."""

HOLDERS: Final = {"u": "its user", "o": "an operator", "s": "the system"}
"""Meanings of the letters of Hold_Types."""

_TERMINATED: Final = re.compile(r"and terminated( by \S+)?$")
_TIME_WAS_UP: Final = -29
_DELETED: Final = "91"
_BY_SIGTERM: Final = 256 + 15

_UNTIL: Final = """\
# PBS does not tell; qstat does, also after a qalter.
end=
end=$(( $(date +%s) + {walltime} ))     # the walltime from above, in seconds
asked=$(timeout 10 qstat -f "$PBS_JOBID" 2>/dev/null | sed -n 's/^ *Resource_List.walltime = //p')
if [[ $asked =~ ^([0-9]+):([0-9]+):([0-9]+)$ ]]; then
    asked=$(( (10#${BASH_REMATCH[1]} * 60 + 10#${BASH_REMATCH[2]}) * 60 + 10#${BASH_REMATCH[3]} ))
    end=$(( $(date +%s) + asked ))
fi"""


def resources(shape: Shape) -> list[Line]:
    """Return the directives for a shape: chunks, and their placement.

    Raises:
        LauncherError: memory or GPUs of a node are requested without a number of engines per node.
    """
    if not shape.nodes:
        if shape.gpus or shape.memory:
            raise LauncherError(
                "memory and GPUs are those of a node, and PBS has to know how many engines share one: "
                "add --per-node or --nodes"
            )
        select = _chunk(shape.n, 1, shape)
        placed = _FREE
    else:
        full, rest = divmod(shape.n, shape.per_node)
        select = "+".join(_chunk(*part, shape) for part in ((full, shape.per_node), (1, rest)) if all(part))
        placed = _FREE if shape.nodes == 1 else Line("-l place=scatter", "each chunk on a machine of its own")
    why = "machines, and on each: cores, engines (mpiprocs), threads of an engine (else one for each core)"
    return [Line(f"-l select={select}", why), placed]


_FREE: Final = Line("-l place=free", "on any machine that has room")


def _chunk(count: int, ranks: int, shape: Shape) -> str:
    parts = [f"{count}:ncpus={ranks * shape.cores}:mpiprocs={ranks}:ompthreads={shape.cores}"]
    if shape.gpus:
        parts.append(f"ngpus={shape.gpus}")
    if shape.memory:
        parts.append(f"mem={shape.memory.lower()}" + ("b" if shape.memory[-1:].isalpha() else "mb"))
    return ":".join(parts)


def read_id(stdout: str) -> str:
    """Return the id in the output of ``qsub``."""
    found = re.findall(r"^\d+(?:\[\])?(?:\.[\w.-]+)?$", stdout.strip(), re.MULTILINE)
    return found[-1] if found else ""


def read_status(id: str, argv: Sequence[str], stdout: str) -> JobStatus | None:
    """Parse a job from the output of ``qstat -f``, with or without ``-F json``."""
    found = _of_json(id, stdout) if "json" in argv else _of_text(stdout)
    return _status(id, found) if found else None


def _of_json(id: str, stdout: str) -> Mapping[str, Any]:
    try:
        jobs = json.loads(stdout, strict=False)["Jobs"]
        number = id.partition(".")[0]
        return next(job for name, job in jobs.items() if name.partition(".")[0] == number)
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return {}  # some versions write invalid JSON; the next command does not use JSON


def _of_text(stdout: str) -> Mapping[str, Any]:
    whole = re.sub(r"\n\t", "", stdout)  # long values are continued in the next line
    return dict(re.findall(r"^ {4}([\w.]+) = (.*)$", whole, re.MULTILINE))


def _status(id: str, job: Mapping[str, Any]) -> JobStatus:
    native = str(job.get("job_state", ""))
    state = STATES.get(native, JobState.UNKNOWN)
    comment = str(job.get("comment", "")).strip(" .\n\t")
    if state is JobState.RUNNING and _TERMINATED.search(comment):
        state = JobState.ENDING  # it was sent SIGTERM, and has some seconds to end
    if native == "B" and _counts(job).get("Running", 1) == 0:
        state = JobState.PENDING  # some elements of the array have ended, the others wait
    code = _integer(job.get("Exit_status", job.get("exit_status")))
    start = _time(job.get("stime", job.get("start_time"))) or _time(_inner(job, "estimated", "start_time"))
    if native == "W":
        start = _time(job.get("Execution_Time"))
    walltime = span(_inner(job, "Resource_List", "walltime"))
    used = span(_inner(job, "resources_used", "walltime")) or 0.0
    end = left = None
    if state is JobState.ENDED:
        end = _time(job.get("obittime", job.get("mtime")))
    elif native == "R" and walltime is not None:
        left = max(0.0, walltime - used)
        end = None if start is None else start + walltime
    return JobStatus(
        id,
        state,
        native,
        reason=KILLED.get(code or 0) or comment or (_why_held(job) if native == "H" else ""),
        start=start,
        end=end,
        time_left=left,
        nodes=_nodes(str(job.get("exec_host", ""))),
        outcome=_outcome(job, code, walltime is not None and used >= walltime) if state is JobState.ENDED else "",
    )


def _why_held(job: Mapping[str, Any]) -> str:
    """Return the reason of a hold; PBS itself comments only on jobs that were held after submission."""
    if job.get("depend") and "s" in str(job.get("Hold_Types", "")):
        return f"depend={job['depend']}"
    holder = next((who for letter, who in HOLDERS.items() if letter in str(job.get("Hold_Types", ""))), "")
    return f"held by {holder}" if holder else "held"


def _outcome(job: Mapping[str, Any], code: int | None, used_up: bool) -> str:
    if code == _TIME_WAS_UP or used_up:
        return "timeout"
    if str(job.get("substate", "")) == _DELETED or code == _BY_SIGTERM:
        return "cancelled"
    return "completed" if code == 0 else "failed"


def _counts(job: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of an array's elements by state."""
    found = re.findall(r"(\w+):(\d+)", str(job.get("array_state_count", "")))
    return {name: int(count) for name, count in found}


def _nodes(exec_host: str) -> str:
    """Return the nodes in an exec_host: n1 and n2 of ``n1/0*4+n2/0*4``."""
    return ",".join(dict.fromkeys(part.partition("/")[0] for part in exec_host.split("+") if part))


def _inner(job: Mapping[str, Any], group: str, name: str) -> Any:
    """Return a nested value: one level down in JSON, with a dotted name in text."""
    inner = job.get(group)
    return inner.get(name) if isinstance(inner, dict) else job.get(f"{group}.{name}")


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _time(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.strptime(str(value), "%a %b %d %H:%M:%S %Y").timestamp()
    except ValueError:
        return None


PBS: Final = BatchSystem(
    name="pbs",
    title="PBS",
    prefix="#PBS",
    directives={
        "name": "-N {value}",
        "shell": "-S {value}",
        "walltime": "-l walltime={value}",
        "output": "-j oe -k doe -o {value}/",
        "array": "-J 0-{last}",
        "queue": "-q {value}",
        "account": "-A {value}",
        "requeue": "-r y",
        "no-requeue": "-r n",
    },
    resources=resources,
    shell=Shell(
        job="${PBS_JOBID%%[.[]*}",
        element="${PBS_JOBID%%[.[]*}-$PBS_ARRAY_INDEX",
        folder="${PBS_O_WORKDIR:-.}",
        ranks='$(wc -l < "$PBS_NODEFILE")',
        threads='"${OMP_NUM_THREADS:-1}"',
        end=_UNTIL,
        hostfile="$PBS_NODEFILE",
        nodes='$(sort -u "$PBS_NODEFILE" | wc -l)',
        remote="pbs_tmrsh",
    ),
    submitting=("qsub", "{script}"),
    asking=(
        ("qstat", "-f", "-F", "json", "{id}"),
        ("qstat", "-f", "{id}"),  # Torque, and where shell functions in the environment spoil the JSON
        # What has ended. Where PBS keeps no history, which is its default, -x finds no job at all.
        ("qstat", "-x", "-f", "-F", "json", "{id}"),
        ("qstat", "-x", "-f", "{id}"),
    ),
    cancelling=("qdel", "{id}"),
    read_id=read_id,
    read_status=read_status,
    gone=r"Unknown Job Id|Job has finished",
    ending=r"Request invalid for state of job",
    # The second is that of a script without -o.
    output=("{id}[[.]*.OU", "{name}.o{id}*"),
    array_id="{id}[]",
    environ={"LC_ALL": "C"},
)
