"""Texts about the end and start of a job (no I/O)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from ipmpi.launch.batch.registry import JobStatus
from ipmpi.launch.cluster.effects import Cause

NEAR_THE_END: Final = 120.0
"""Seconds before the walltime within which the end of a job counts as due to it."""

ENDS: Final[Mapping[str, tuple[int, str, Cause]]] = {
    "completed": (0, "has ended", Cause.NOBODY),
    "cancelled": (0, "was cancelled", Cause.NOBODY),
    "timeout": (0, "ended at its walltime", Cause.NOBODY),
    "preempted": (0, "was preempted by a job that goes first", Cause.NOBODY),
    "": (1, "has ended", Cause.ENGINES),
    "failed": (1, "failed", Cause.ENGINES),
    "node-failure": (1, "lost a node", Cause.ENGINES),
}
"""Exit code of ``ipcluster`` when the job ends like this, words for it, and whose log explains it."""


def time_of_day(when: float) -> str:
    """Format a Unix time; without the date if it is today."""
    local, today = time.localtime(when), time.localtime()
    same_day = local[:3] == today[:3]
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", local)


def is_near_end(status: JobStatus, walltime: float | None, ran: float) -> bool:
    """Return whether a job ended because of its walltime.

    Args:
        status: the end of the job.
        walltime: the seconds that it may run; None if unknown.
        ran: the seconds that it has run, as far as is known here.
    """
    if status.outcome in ("cancelled", "node-failure") or walltime is None:
        return False
    if status.start is not None and status.end is not None:
        ran = status.end - status.start
    return ran >= walltime - min(NEAR_THE_END, walltime / 4)
