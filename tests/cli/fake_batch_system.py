"""A batch system for tests: three small programs that run job scripts as processes of this machine.

``qfsub SCRIPT`` prints a job id. The state of a job is a word in ``$FAKE_BATCH/ID.state``. A test can put the
queue on hold (a file ``hold``), have submissions refused (``refuse``, with what qfsub says), give a reason
(``reason``), and end a job as it likes: ``qfdel ID TIMEOUT``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ipmpi.launch.batch.batchsystem import BatchSystem, JobState, JobStatus, Line, Shape, Shell

PROGRAMS = {
    "qfsub": """#!/bin/bash
if [ -e "$FAKE_BATCH/refuse" ]; then cat "$FAKE_BATCH/refuse" >&2; exit 3; fi
n=$(ls "$FAKE_BATCH"/*.state 2>/dev/null | wc -l)
id=$((n + 1))
cp "$1" "$FAKE_BATCH/$id.script"
echo PENDING > "$FAKE_BATCH/$id.state"
nohup "$FAKE_BATCH/run" "$id" > "$FAKE_BATCH/$id.out" 2>&1 < /dev/null &
echo "job $id"
""",
    "run": """#!/bin/bash
id=$1; cd "$FAKE_BATCH"
pending() { [ "$(cat "$id.state")" = PENDING ]; }
while [ -e hold ] && pending && [ $SECONDS -lt 120 ]; do sleep 0.05; done   # tests may end without letting go
pending || exit 0
[ -e hold ] && exit 0
echo RUNNING > "$id.state"
export FAKE_JOB=$id FAKE_END=$(( $(date +%s) + ${FAKE_WALLTIME:-1000} )) FAKE_FOLDER=$PWD
setsid bash "$id.script" &
echo $! > "$id.pid"
wait $!
code=$?
state=$(cat "$id.state")
if [ "$state" = RUNNING ]; then
    if [ $code = 0 ]; then echo COMPLETED > "$id.state"; else echo FAILED > "$id.state"; fi
fi
""",
    "qfstat": """#!/bin/bash
echo x >> "$FAKE_BATCH/asked"
[ -e "$FAKE_BATCH/$1.state" ] && echo "$(cat "$FAKE_BATCH/$1.state") $(cat "$FAKE_BATCH/reason" 2>/dev/null)"
""",
    "qfdel": """#!/bin/bash
cd "$FAKE_BATCH"
echo "${2:-CANCELLED}" > "$1.state"
[ -e "$1.pid" ] && kill -TERM -- "-$(cat "$1.pid")" 2>/dev/null
exit 0
""",
}


def install(folder: Path) -> None:
    """Write the programs into a folder, which is also that of the state."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


STATES: Final = {
    "PENDING": (JobState.PENDING, ""),
    "RUNNING": (JobState.RUNNING, ""),
    "COMPLETED": (JobState.ENDED, "completed"),
    "CANCELLED": (JobState.ENDED, "cancelled"),
    "TIMEOUT": (JobState.ENDED, "timeout"),
    "FAILED": (JobState.ENDED, "failed"),
}


def _resources(shape: Shape) -> list[Line]:
    return [Line(f"engines {shape.n}", "how many")]


def _id(stdout: str) -> str:
    found = re.fullmatch(r"job (\d+)", stdout.strip())
    return found[1] if found else ""


def _status(id: str, argv: Sequence[str], stdout: str) -> JobStatus | None:
    del argv
    native, _, reason = stdout.strip().partition(" ")
    if native not in STATES:
        return None
    state, outcome = STATES[native]
    return JobStatus(
        id, state, native, reason=reason, outcome=outcome, nodes=os.uname().nodename * (native == "RUNNING")
    )


FAKE: Final = BatchSystem(
    name="fake",
    title="Fake",
    prefix="#FAKE",
    directives={
        "name": "name {value}",
        "walltime": "time {value}",
        "output": "output {value}",
        "queue": "q {value}",
    },
    resources=_resources,
    shell=Shell(
        job="$FAKE_JOB", element="$FAKE_JOB", folder="$FAKE_FOLDER", ranks="1", threads="1", end="end=$FAKE_END"
    ),
    submitting=("qfsub", "{script}"),
    asking=(("qfstat", "{id}"),),
    cancelling=("qfdel", "{id}"),
    read_id=_id,
    read_status=_status,
    gone="no such job",
    output=("{id}.out",),
)
