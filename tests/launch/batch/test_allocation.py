"""The job in the environment: on which machines, and whether this process is in it at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.launch.batch.allocation import (
    Allocation,
    allocation,
    in_allocation,
    leftover,
    machines,
    without_job,
    without_rank,
)
from ipmpi.launch.batch.queue import run_command
from ipmpi.launch.cluster import local

SLURM = {"SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "node[16-17]", "SLURM_NTASKS": "4", "SLURM_CONF": "/s"}
RANK = {
    "PMI_RANK": "0",
    "PMI_FD": "3",
    "PMIX_NAMESPACE": "slurm.pmix.123.0",
    "SLURM_PROCID": "0",
    "SLURM_STEP_ID": "0",
}
HOME = {"HOME": "/home/a", "OMPI_MCA_btl": "self,tcp", "SBATCH_ACCOUNT": "project"}


@pytest.fixture
def nodefile(tmp_path: Path) -> Path:
    path = tmp_path / "12.login"
    path.write_text("node1\nnode1\nnode2\n")
    return path


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({"PATH": "/bin"}, 1),
        (SLURM, 2),
        ({"SLURM_JOBID": "1", "SLURM_NODELIST": "a,b,c"}, 3),
        ({"SLURM_JOB_ID": "1", "SLURM_NNODES": "4"}, 4),
        ({"SLURM_JOB_ID": "1"}, None),
        ({"LSB_JOBID": "1"}, None),
        ({"FLUX_URI": "local:"}, None),
    ],
)
def test_on_how_many_machines(environ: dict[str, str], count: int | None) -> None:
    assert machines(environ) == count
    assert in_allocation(environ) is (environ != {"PATH": "/bin"})


def test_a_job_of_pbs(nodefile: Path) -> None:
    environ = {"PBS_JOBID": "12.login", "PBS_NODEFILE": str(nodefile)}
    assert allocation(environ) == Allocation("PBS", "PBS_", "12.login", ("node1", "node2"))
    assert machines(environ) == 2
    assert machines({"PBS_NODEFILE": str(nodefile)}) == 2
    assert machines({"PBS_JOBID": "12.login"}) is None


def test_a_job_in_words() -> None:
    job = allocation(SLURM)
    assert job is not None
    assert job.words == "Slurm's job 123 on node16, node17"
    assert job.unset == "unset ${!SLURM_@}"
    assert Allocation("PBS", "PBS_", "1", tuple("abcde")).words == "PBS's job 1 on a, b, c and 2 more"


def test_a_job_of_pbs_whose_list_of_machines_is_gone_is_over(nodefile: Path) -> None:
    environ = {"PBS_JOBID": "12.login", "PBS_NODEFILE": str(nodefile)}
    assert leftover(environ, "elsewhere", never_asked) == ""
    nodefile.unlink()
    assert leftover(environ, "node1", never_asked) == f"its list of machines ({nodefile}) is gone"


def never_asked(job: Allocation) -> bool | None:
    raise AssertionError(job)


def test_a_job_of_slurm_on_other_machines(tmp_path: Path) -> None:
    here = {**SLURM, "PATH": str(tmp_path)}
    assert leftover(here, "node17.cluster", never_asked) == ""
    assert "there is no srun here" in leftover(here, "laptop", never_asked)
    (tmp_path / "srun").write_text("")
    (tmp_path / "srun").chmod(0o755)
    assert leftover(here, "login1", lambda _job: True) == "it is over"
    # An allocation on a login node has other machines only, and is real. So it may be where nobody knows.
    assert leftover(here, "login1", lambda _job: False) == ""
    assert leftover(here, "login1", lambda _job: None) == ""
    assert leftover({"PATH": str(tmp_path)}, "login1", never_asked) == ""


def test_what_a_program_outside_of_the_job_inherits() -> None:
    assert without_job({**SLURM, **RANK, **HOME}) == {**HOME, "SLURM_CONF": "/s"}
    # Without a job these are wishes of the user, for srun.
    assert without_job({"SLURM_MEM_PER_CPU": "1G", **HOME}) == {"SLURM_MEM_PER_CPU": "1G", **HOME}


def test_what_launchers_and_engines_in_a_step_of_the_job_inherit() -> None:
    assert without_rank({**SLURM, **RANK, **HOME}) == {**SLURM, **HOME}


def test_commands_of_the_batch_system_inherit_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SLURM, **RANK}.items():
        monkeypatch.setenv(name, value)
    said = run_command(["env"], {"LC_ALL": "C"}).stdout
    assert "SLURM_CONF=/s" in said
    assert "SLURM_JOB" not in said
    assert "PMI" not in said


def test_a_job_is_over_if_the_batch_system_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Allocation("Slurm", "SLURM_", "123")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.job_is_over(job) is None
    answers = {"squeue": "echo 'RUNNING|None|n1|N/A|N/A|1:00'", "sbatch": "", "scancel": ""}
    for name, text in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    assert local.job_is_over(job) is False
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'COMPLETED|None|n1|N/A|N/A|0:00'\n")
    assert local.job_is_over(job) is True
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'cannot connect' >&2; exit 1\n")
    assert local.job_is_over(job) is None
