"""Judge the job in the environment: is this process in it at all (layer L4, no I/O)?"""

from __future__ import annotations

from typing import Final

from ipmpi.launch.batch.allocation import Allocation

from .findings import Finding, note, ok, warning

AREA: Final = "Job"


def judge_allocation(job: Allocation | None, leftover: str, host: str) -> list[Finding]:
    """What the variables of a batch system mean here.

    Args:
        job: by the environment; None if it has none.
        leftover: why this process is not in that job; empty if it may be.
        host: name of this machine.
    """
    if job is None:
        return []
    named = f"The environment has {job.words} ({job.prefix}* variables)"
    if leftover:
        text = f"{named}, and this process is not in it: {leftover}."
        fix = f"{job.unset}. ipcluster leaves them out of account; other programs, as mpiexec by hand, do not."
        return [warning(AREA, "job-variables", text, fix)]
    short = host.partition(".")[0]
    if job.nodes and short not in {node.partition(".")[0] for node in job.nodes}:
        text = f"{named}, to which {host} does not belong: mpiexec starts ranks there and not here."
        fix = f"Right in an allocation on a login node. If the job is over, or somebody else's: {job.unset}"
        return [note(AREA, "job-variables", text, fix)]
    return [ok(AREA, "job-variables", f"This is in {job.words}.")]
