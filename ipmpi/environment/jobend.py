"""When a batch job ends, by the words of its batch system (layer L0).

Nothing here asks anybody: the commands to ask with are given, and what they print is read. No batch system is
asked by more than one process of a job, and none at all if the job script has exported ``IPMPI_JOB_END``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence

from .walltime import seconds


def questions(environ: Mapping[str, str]) -> list[list[str]]:
    """Commands that print when the job ends, to be tried in this order; none outside of a job."""
    if environ.get("SLURM_JOB_ID"):
        return [["squeue", "-h", "-j", environ["SLURM_JOB_ID"], "-o", "%A|%L|%e"]]
    if environ.get("PBS_JOBID"):
        # Torque has no JSON.
        return [["qstat", "-f", "-F", "json", environ["PBS_JOBID"]], ["qstat", "-f", environ["PBS_JOBID"]]]
    return []


def answered(argv: Sequence[str], output: str, environ: Mapping[str, str], now: float) -> float | None:
    """Seconds left by what such a command has printed; None if it does not say."""
    if argv[0] == "squeue":
        return _slurm(output, environ.get("SLURM_JOB_ID", ""), now)
    return _pbs(_attributes(output), now)


def _slurm(output: str, job: str, now: float) -> float | None:
    # The id of an array's first element is that of the array: there is a line for each element then.
    rows = [row.split("|") for row in output.split("\n") if row.count("|") == 2]
    for number, left, end in rows:
        if number.strip() != job and len(rows) > 1:
            continue
        try:
            return _slurm_left(left)
        except ValueError:
            try:
                return time.mktime(time.strptime(end.strip(), "%Y-%m-%dT%H:%M:%S")) - now
            except (ValueError, OverflowError):
                return None  # UNLIMITED, and NONE
    return None


def _slurm_left(text: str) -> float:
    if text.strip().isdigit():
        raise ValueError(text)  # never so: 59 seconds are 0:59
    return seconds(text)


def _attributes(output: str) -> dict[str, str]:
    """A job's attributes, by their names in ``qstat -f``."""
    try:
        (job,) = json.loads(output)["Jobs"].values()
        flat = {name: str(value) for name, value in job.items()}
        flat.update({f"Resource_List.{name}": str(value) for name, value in job["Resource_List"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return dict(re.findall(r"^\s+([\w.]+) = (.*?)\s*$", output, re.MULTILINE))
    return flat


def _pbs(attributes: Mapping[str, str], now: float) -> float | None:
    start = attributes.get("stime") or attributes.get("start_time", "")  # the latter in Torque
    try:
        began = time.mktime(time.strptime(start, "%a %b %d %H:%M:%S %Y"))
        return began + seconds(attributes["Resource_List.walltime"]) - now
    except (ValueError, KeyError, OverflowError):
        return None
