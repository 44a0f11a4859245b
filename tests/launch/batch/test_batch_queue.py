"""The commands of a batch system, run: its words reach the user, and a slow or absent one is no mystery."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.pbs import PBS
from ipmpi.launch.batch.queue import Queue
from ipmpi.launch.batch.registry import JobState
from ipmpi.launch.batch.slurm import SLURM

Answer = tuple[int, str, str] | BaseException
RUNNING = "RUNNING|None|n[1-2]|2026-11-24T22:00:00|2026-11-24T23:00:00|30:00\n"
INVALID = "slurm_load_jobs error: Invalid job id specified\n"
NO_ACCOUNTING = "Slurm accounting storage is disabled\n"
UNREACHABLE = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


class Programs:
    """Answers by the name of the program, and what was asked."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        assert environ["LC_ALL"] == "C"
        self.asked.append(list(argv))
        answer = self.answers.get(argv[0], FileNotFoundError(2, "No such file", argv[0]))
        if isinstance(answer, BaseException):
            raise answer
        return subprocess.CompletedProcess(argv, *answer)


def slurm(**answers: Answer) -> Queue:
    return Queue(SLURM, Programs(**answers))


def test_submitting_gives_the_id() -> None:
    programs = Programs(sbatch=(0, "4711\n", ""))
    assert Queue(SLURM, programs).submit(Path("/a/job.sh")) == "4711"
    assert programs.asked == [["sbatch", "--parsable", "/a/job.sh"]]


def test_a_job_of_another_cluster_is_asked_for_and_ended_there() -> None:
    programs = Programs(
        sbatch=(0, "4711;cm4\n", ""), squeue=(1, "", INVALID), scontrol=(1, "", INVALID), sacct=(1, "", ""),
        scancel=(0, "", ""),
    )  # fmt: skip
    queue = Queue(SLURM, programs)
    id = queue.submit(Path("/a/job.sh"))
    queue.status(id)
    queue.cancel(id)
    queue.interrupt(id)
    asked = [" ".join(words) for words in programs.asked if words[0] != "sbatch"]
    assert {line.partition(" ")[0] for line in asked} == {"squeue", "scontrol", "sacct", "scancel"}
    assert all(line.split()[1:3] == ["-M", "cm4"] for line in asked)
    assert all(";" not in line for line in asked)
    assert asked[-2:] == ["scancel -M cm4 4711", "scancel -M cm4 --signal=INT 4711.0"]


def test_a_pbs_without_history_is_asked_once_about_a_job_that_runs() -> None:
    answer = (Path(__file__).with_name("pbs_answers") / "qstat-json-running-2nodes.json").read_text()

    def qstat(argv: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        asked.append(list(argv))
        no_history = "qstat: PBS is not configured to maintain job history 11.login\n"
        return subprocess.CompletedProcess(argv, 0, *(("", no_history) if "-x" in argv else (answer, "")))

    asked: list[list[str]] = []
    assert Queue(PBS, qstat).status("11.login").state is JobState.RUNNING
    assert len(asked) == 1


def test_a_refusal_is_told_in_the_words_of_the_batch_system() -> None:
    refusal = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination"
    with pytest.raises(LauncherError) as info:
        slurm(sbatch=(1, "", refusal)).submit(Path("job.sh"))
    assert str(info.value) == f"`sbatch --parsable job.sh` failed with exit code 1: {refusal}"


def test_a_submission_without_an_id_is_told() -> None:
    with pytest.raises(LauncherError, match="sbatch did not print the id of the job, but: Welcome!"):
        slurm(sbatch=(0, "Welcome!\n", "")).submit(Path("job.sh"))


def test_without_the_program_the_user_learns_where_to_go() -> None:
    queue = slurm()
    calls: list[Callable[[], object]] = [
        *(lambda: queue.submit(Path("x")), lambda: queue.status("1"), lambda: queue.cancel("1"))
    ]
    for call in calls:
        with pytest.raises(LauncherError, match="so this machine has no Slurm") as info:
            call()
        assert "ipcluster slurm --ssh USER@LOGIN_NODE -n N" in str(info.value)


def test_what_is_missing_is_told_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LauncherError, match="there is no qsub in PATH, so this machine has no PBS"):
        Queue(PBS).check()


def test_a_submission_without_an_answer_may_have_worked() -> None:
    timeout = subprocess.TimeoutExpired("sbatch", 60)
    with pytest.raises(LauncherError, match=r"no answer within 60 s. It may have worked all the same.*squeue"):
        slurm(sbatch=timeout).submit(Path("job.sh"))


def test_a_status_is_asked_for_once_if_the_first_command_knows() -> None:
    programs = Programs(squeue=(0, RUNNING, ""))
    status = Queue(SLURM, programs).status("4711")
    assert (status.state, status.nodes, len(programs.asked)) == (JobState.RUNNING, "n[1-2]", 1)


def test_a_job_that_the_queue_has_forgotten_is_looked_for_elsewhere() -> None:
    programs = Programs(
        squeue=(1, "", INVALID),
        scontrol=(1, "", INVALID),
        sacct=(0, "TIMEOUT|None|n1|2026-11-24T22:00:00|2026-11-24T23:00:00\n", ""),
    )
    status = Queue(SLURM, programs).status("4711")
    assert (status.state, status.outcome) == (JobState.ENDED, "timeout")
    assert [argv[0] for argv in programs.asked] == ["squeue", "scontrol", "sacct"]


def test_a_job_that_nobody_knows_has_ended() -> None:
    status = slurm(squeue=(1, "", INVALID), scontrol=(1, "", INVALID), sacct=(1, "", NO_ACCOUNTING)).status("4711")
    assert (status.state, status.outcome) == (JobState.ENDED, "")
    assert status.reason == "Slurm does not know it any more"


@pytest.mark.parametrize("failure", [(1, "", UNREACHABLE), subprocess.TimeoutExpired("squeue", 60)])
def test_a_batch_system_that_does_not_answer_ends_no_job(failure: Answer) -> None:
    status = slurm(squeue=failure, scontrol=failure, sacct=(1, "", NO_ACCOUNTING)).status("4711")
    assert status.state is JobState.UNKNOWN
    assert "contact slurm controller" in status.reason or "timed out" in status.reason


def test_cancelling_what_has_ended_is_no_failure() -> None:
    slurm(scancel=(1, "", "scancel: error: Kill job error on job id 4711: Invalid job id specified")).cancel(
        "4711"
    )
    Queue(PBS, Programs(qdel=(35, "", "qdel: Job has finished 12.server"))).cancel("12.server")
    Queue(PBS, Programs(qdel=(168, "", "qdel: Request invalid for state of job 73.login1"))).cancel("73.login1")
    with pytest.raises(LauncherError, match="Access/permission denied"):
        slurm(scancel=(1, "", "scancel: error: Access/permission denied")).cancel("4711")


def test_interrupting_goes_through_the_batch_system_or_says_how_else() -> None:
    programs = Programs(scancel=(0, "", ""))
    Queue(SLURM, programs).interrupt("4711")
    assert programs.asked == [["scancel", "--signal=INT", "4711.0"]]
    with pytest.raises(LauncherError, match=r"mec\.interrupt\(\).*qdel 12\.server"):
        Queue(PBS, Programs()).interrupt("12.server")


def test_programs_get_variables_that_fix_their_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "squeue"
    program.write_text('#!/bin/sh\necho "RUNNING|$SLURM_TIME_FORMAT|$LC_ALL|||"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    status = Queue(SLURM).status("1")
    assert (status.reason, status.nodes) == ("standard", "C")
