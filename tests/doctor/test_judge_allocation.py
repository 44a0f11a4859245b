"""What is said of the job that the environment has."""

from __future__ import annotations

from ipmpi.launch.batch.allocation import Allocation
from ipmpi.launch.doctor.findings import Level
from ipmpi.launch.doctor.judge_allocation import judge_allocation

JOB = Allocation("Slurm", "SLURM_", "123", ("node17", "node18"))


def test_no_job_is_nothing_to_be_told() -> None:
    assert judge_allocation(None, "", "laptop") == []


def test_a_job_that_is_over() -> None:
    (finding,) = judge_allocation(JOB, "it is over", "laptop")
    assert finding.level is Level.WARNING
    assert finding.text == (
        "The environment has Slurm's job 123 on node17, node18 (SLURM_* variables), and this process is not in "
        "it: it is over."
    )
    assert finding.fix.startswith("unset ${!SLURM_@}")


def test_a_job_on_other_machines_may_be_an_allocation_or_left_over() -> None:
    (finding,) = judge_allocation(JOB, "", "login1")
    assert finding.level is Level.NOTE
    assert "to which login1 does not belong" in finding.text
    assert "unset ${!SLURM_@}" in finding.fix


def test_inside_a_job() -> None:
    (finding,) = judge_allocation(JOB, "", "node17.cluster")
    assert (finding.level, finding.text) == (Level.OK, "This is in Slurm's job 123 on node17, node18.")
    (finding,) = judge_allocation(JOB._replace(nodes=()), "", "login1")
    assert finding.level is Level.OK
