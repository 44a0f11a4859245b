"""Texts about the end and start of a job (no I/O)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from ipmpi.launch.cluster.effects import Cause

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
