"""Ask the batch system when this job ends. Loaded by one process of a job only, before MPI starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..environment import walltime
from ..errors import LauncherError
from ..launch.batch.queue import Queue, run_command
from ..launch.batch.registry import batch_system

PATIENCE = 10.0
"""Seconds to wait for the reply. A busy batch system must not keep engines from starting."""


def ask(environ: Mapping[str, str], log: Callable[[str], None], patience: float = PATIENCE) -> float | None:
    """Return the seconds until the end of the job; None if unknown."""
    if not walltime.is_in_job(environ):
        return None
    give_up_at = time.monotonic() + patience
    try:
        system = batch_system("slurm" if environ.get("SLURM_JOB_ID") else "pbs")
        queue = Queue(system, lambda argv, more: run_command(argv, more, max(0.1, give_up_at - time.monotonic())))
        status = queue.status(walltime.job_id(environ))
    except LauncherError as error:
        log(f"the end of this job is not known: {error}")
        return None
    until_end = None if status.end is None else status.end - time.time()
    left = min((known for known in (status.time_left, until_end) if known is not None), default=None)
    if left is None:
        log(f"the end of this job is not known: {system.title} does not say it ({status.reason or status.native})")
    return left
