"""Slurm (no I/O)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from ipmpi.environment.walltime import span
from ipmpi.launch.batch.batchsystem import BatchSystem, JobState, JobStatus, Line, Shape, Shell

STATES: Final = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
        JobState.PENDING,
    ),
    **dict.fromkeys(("RUNNING", "RESIZING", "SIGNALING", "STOPPED", "SUSPENDED"), JobState.RUNNING),
    **dict.fromkeys(("COMPLETING", "STAGE_OUT"), JobState.ENDING),
    **dict.fromkeys(
        ("COMPLETED", "CANCELLED", "PREEMPTED", "REVOKED", "TIMEOUT", "DEADLINE", "FAILED", "OUT_OF_MEMORY"),
        JobState.ENDED,
    ),
    **dict.fromkeys(("BOOT_FAIL", "NODE_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL"), JobState.ENDED),
}

OUTCOMES: Final = {
    "COMPLETED": "completed",
    **dict.fromkeys(("CANCELLED", "REVOKED"), "cancelled"),
    "PREEMPTED": "preempted",
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), "timeout"),
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL"), "node-failure"),
}
"""Outcomes of final states; all others are failures."""

_NOTHING: Final = ("", "None", "N/A", "Unknown", "NONE", "(null)", "NOT_SET", "UNLIMITED", "INVALID")

_UNTIL: Final = """\
end=${SLURM_JOB_END_TIME:-}
if [ -z "$end" ]; then     # older versions tell only when asked
    end=$(squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null)
    end=$(date -d "${end:-unknown}" +%s 2>/dev/null)
fi"""


def resources(shape: Shape) -> list[Line]:
    """Return the directives for a shape."""
    lines = []
    if shape.nodes:
        lines.append(Line(f"--nodes={shape.nodes}", "how many machines"))
    if shape.n != shape.nodes * shape.per_node:
        lines.append(Line(f"--ntasks={shape.n}", "one task for each engine"))
    if shape.per_node:
        lines.append(Line(f"--ntasks-per-node={shape.per_node}", "engines on each machine"))
    lines.append(Line(f"--cpus-per-task={shape.cores}", "cores of each engine"))
    if shape.gpus:
        lines.append(Line(f"--gpus-per-node={shape.gpus}", "shared among the engines of a machine"))
    if shape.memory:
        lines.append(Line(f"--mem={shape.memory.upper()}", "memory of each machine"))
    return lines


def read_id(stdout: str) -> str:
    """Return the id in the output of ``sbatch --parsable``; with ``;CLUSTER`` for another cluster."""
    found = re.findall(r"^(\d+(?:;[\w.-]+)?)$", stdout.strip(), re.MULTILINE)
    return found[-1] if found else ""


def read_status(id: str, argv: Sequence[str], stdout: str) -> JobStatus | None:
    """Parse a job from the output of ``squeue``, ``scontrol`` or ``sacct``."""
    if argv[0].endswith("scontrol"):
        rows = [_of_scontrol(line) for line in stdout.splitlines() if "JobState=" in line]
    else:
        rows = [line.split("|") for line in stdout.splitlines() if "|" in line]
    found = [_status(id, *row[:6]) for row in rows if len(row) >= len(_SCONTROL)]
    return _together(found) if found else None


_SCONTROL: Final = ("JobState", "Reason", "NodeList", "StartTime", "EndTime")


def _of_scontrol(line: str) -> list[str]:
    values = dict(re.findall(r"(\w+)=(\S+)", line))
    return [values.get(name, "") for name in _SCONTROL]


def _status(id: str, word: str, reason: str, nodes: str, start: str, end: str, left: str = "") -> JobStatus:
    native = (word.split() or [""])[0].rstrip("+")  # sacct writes "CANCELLED by 1000"
    state = STATES.get(native, JobState.UNKNOWN)
    return JobStatus(
        id,
        state,
        native,
        reason=_said(reason),
        start=_time(start),
        end=_time(end),
        time_left=span(left) if state is JobState.RUNNING else None,
        nodes=_said(nodes),
        outcome=OUTCOMES.get(native, "failed") if state is JobState.ENDED else "",
    )


def _together(parts: list[JobStatus]) -> JobStatus:
    """Return one status for a job array: that of its most active element, with the nodes of all."""
    order = (JobState.RUNNING, JobState.ENDING, JobState.PENDING, JobState.UNKNOWN, JobState.ENDED)
    first = min(parts, key=lambda part: (order.index(part.state), part.outcome == "completed"))
    nodes = dict.fromkeys(part.nodes for part in parts if part.state is first.state and part.nodes)
    return first._replace(nodes=",".join(nodes))


def _said(text: str) -> str:
    return "" if text.strip() in _NOTHING else text.strip()


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text.strip()).timestamp()  # Slurm writes the local time of this machine
    except ValueError:
        return None


_EACH_NODE: Final = (
    'srun --overlap --mpi=none --kill-on-bad-exit=1 -N "$SLURM_JOB_NUM_NODES" -n "$SLURM_JOB_NUM_NODES" '
    "--ntasks-per-node=1 -c 1"
)

SLURM: Final = BatchSystem(
    name="slurm",
    title="Slurm",
    prefix="#SBATCH",
    directives={
        "name": "--job-name={value}",
        "walltime": "--time={value}",
        "output": "--output={value}/%x-%j.out",
        "output-array": "--output={value}/%x-%A_%a.out",
        "array": "--array=0-{last}",
        "queue": "--partition={value}",
        "account": "--account={value}",
        "qos": "--qos={value}",
        "constraint": "--constraint={value}",
        "warning": "--signal=B:USR1@{value}",
        "requeue": "--requeue",
        "no-requeue": "--no-requeue",
        "survive": "--no-kill",
    },
    resources=resources,
    shell=Shell(
        job="$SLURM_JOB_ID",
        element="$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID",
        folder="${SLURM_SUBMIT_DIR:-.}",
        ranks="$SLURM_NTASKS",
        nodes="${SLURM_JOB_NUM_NODES:-}",
        threads='"${SLURM_CPUS_PER_TASK:-1}"',
        end=_UNTIL,
        each_node=_EACH_NODE,
    ),
    submitting=("sbatch", "--parsable", "{script}"),
    asking=(
        ("squeue", "-h", "-t", "all", "-j", "{id}", "-o", "%T|%r|%N|%S|%e|%L"),
        ("scontrol", "-o", "show", "job", "{id}"),
        ("sacct", "-X", "-n", "-P", "-j", "{id}", "-o", "State,Reason,NodeList,Start,End"),
    ),
    cancelling=("scancel", "{id}"),
    interrupting=("scancel", "--signal=INT", "{id}.0"),
    read_id=read_id,
    read_status=read_status,
    gone=r"Invalid job id|Job/step already completing or completed",
    output=("{name}-{id}*.out",),
    elsewhere=("-M", "{cluster}"),
    environ={"SLURM_TIME_FORMAT": "standard", "LC_ALL": "C"},
    launcher="srun",
)
