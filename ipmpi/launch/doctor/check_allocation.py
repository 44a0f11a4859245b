"""Check the job in the environment: is this process in it at all (no I/O)?"""

from __future__ import annotations

from typing import Final

from ipmpi.hostnames import others
from ipmpi.launch.batch.allocation import Allocation

from .diagnostics import Diagnostic, Table, always, first, note, ok, warning

AREA: Final = "Job"
_CHECK: Final = "job-variables"
_CHECKS: Final[Table] = (
    (lambda f: f.leftover, warning(
        AREA, _CHECK, "{named}, and this process is not in it: {leftover}.",
        "{job.unset}. ipcluster leaves them out of account; other programs, as mpiexec by hand, do not.")),
    (lambda f: f.elsewhere, note(
        AREA, _CHECK, "{named}, to which {host} does not belong: mpiexec starts ranks there and not here.",
        "Right in an allocation on a login node. If the job is over, or somebody else's: {job.unset}")),
    (always, ok(AREA, _CHECK, "This is in {job.words}.")),
)  # fmt: skip


def check_allocation(job: Allocation | None, leftover: str, host: str) -> list[Diagnostic]:
    """Check the variables of a batch system.

    Args:
        job: the job in the environment; None if there is none.
        leftover: why this process is not in that job; empty if it may be.
        host: name of this machine.
    """
    if job is None:
        return []
    named = f"The environment has {job.words} ({job.prefix}* variables)"
    elsewhere = bool(job.nodes and others([host], job.nodes))
    return first(_CHECKS, job=job, leftover=leftover, host=host, named=named, elsewhere=elsewhere)
