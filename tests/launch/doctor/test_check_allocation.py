"""What is said of the job that the environment has."""

from __future__ import annotations

from ipmpi.launch.batch.allocation import Allocation
from ipmpi.launch.doctor.check_allocation import check_allocation
from ipmpi.launch.doctor.diagnostics import Level

JOB = Allocation("Slurm", "SLURM_", "123", ("node17", "node18"))


def test_no_job_is_nothing_to_be_told() -> None:
    assert check_allocation(None, "", "laptop") == []


def test_a_job_that_is_over() -> None:
    (diagnostic,) = check_allocation(JOB, "it is over", "laptop")
    assert diagnostic.level is Level.WARNING
    assert diagnostic.text == (
        "The environment has Slurm's job 123 on node17, node18 (SLURM_* variables), and this process is not in "
        "it: it is over."
    )
    assert diagnostic.fix.startswith("unset ${!SLURM_@}")


def test_a_job_on_other_machines_may_be_an_allocation_or_left_over() -> None:
    (diagnostic,) = check_allocation(JOB, "", "login1")
    assert diagnostic.level is Level.NOTE
    assert "to which login1 does not belong" in diagnostic.text
    assert "unset ${!SLURM_@}" in diagnostic.fix


def test_inside_a_job() -> None:
    (diagnostic,) = check_allocation(JOB, "", "node17.cluster")
    assert (diagnostic.level, diagnostic.text) == (Level.OK, "This is in Slurm's job 123 on node17, node18.")
    (diagnostic,) = check_allocation(JOB._replace(nodes=()), "", "login1")
    assert diagnostic.level is Level.OK
