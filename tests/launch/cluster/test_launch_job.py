"""Files of a job that is the engines of a cluster."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.joboptions import JobOptions
from ipmpi.launch.batch.queue import Queue
from ipmpi.launch.batch.registry import batch_system
from ipmpi.launch.batch.restartnotes import EVERY, EXPECTED, RestartNotes
from ipmpi.launch.cluster.happenings import Happening, RunsOn, StartedAgain
from ipmpi.launch.cluster.job import Job, job_logs


@pytest.mark.parametrize(
    ("system", "job", "own", "others"),
    [
        ("slurm", "123", ["run-123.out", "ipengine-123-77.log"], ["run-1234.out", "ipengine-1234-7.log"]),
        ("slurm", "123", ["run-123_0.out", "run-123_1.out", "ipengine-123-0-7.log"], ["ipengine-1230-0-7.log"]),
        ("slurm", "123_4", ["run-123_4.out", "ipengine-123-4-7.log"], ["run-123_40.out", "ipengine-123-40-7.log"]),
        ("pbs", "12.server", ["run.o12", "ipengine-12-12.log"], ["run.o123", "ipengine-123-4.log"]),
        ("pbs", "12.server", ["12.login.OU", "ipengine-12-12.log"], ["123.login.OU", "112.login.OU"]),
        ("pbs", "17[].server", ["17[0].login.OU", "17[1].login.OU"], ["170.login.OU", "1.login17.OU"]),
        ("pbs", "12[].server", ["run.o12.0", "run.o12.1", "ipengine-12-0-9.log"], ["run.o120.0"]),
    ],
)
def test_logs_of_jobs_whose_numbers_begin_alike_are_told_apart(
    tmp_path: Path, system: str, job: str, own: list[str], others: list[str]
) -> None:
    for name in [*own, *others]:
        (tmp_path / name).write_text("text\n")
    for pattern in ("run", "*"):
        assert [path.name for path in job_logs(batch_system(system), tmp_path, pattern, job)] == own


def test_scripts_tell_that_they_have_started_engines_again(tmp_path: Path) -> None:
    notes = RestartNotes(lambda: tmp_path.glob("*.txt"))
    (tmp_path / "a.txt").write_text(
        "ipmpi: srun has ended with exit status 1; its engines are started again (1 of 3)\n"
    )
    assert notes.due is None
    assert notes.look(0.0) == [], "it is looked at only when engines have ended"
    notes.expect(0.0)
    assert notes.due is not None
    (found,) = notes.look(notes.due)
    assert (found.number, found.written) == ("1 of 3", (tmp_path / "a.txt").stat().st_mtime)
    with (tmp_path / "a.txt").open("a") as file:
        file.write("ipmpi: srun has ended with exit status 1; its engines are started again (2 o")
        file.flush()
        assert notes.look(notes.due) == []
        file.write("f 3)\n")
    assert [restart.number for restart in notes.look(notes.due)] == ["2 of 3"]
    assert notes.look(EXPECTED + EVERY) == []
    assert notes.due is None


def test_notes_of_jobs_whose_numbers_begin_alike_are_told_apart(tmp_path: Path) -> None:
    for name in ("12", "12-0", "123", "112"):
        (tmp_path / f"ipengine-{name}-restarts.txt").write_text(f"ipmpi: engines of {name} (1 of 3)\n")
    job = Job(batch_system("slurm"), JobOptions(n=4, log_dir=tmp_path), "run")
    job.jobs.append("12")
    assert job.faults() == []
    now = job.next_look(False)
    assert now is not None
    assert list(job.news(now, False)) == [StartedAgain("1 of 3")] * 2


class FakeQueue(Queue):
    """Its squeue prints what a file has, once there is one of this number."""

    def __init__(self, folder: Path) -> None:
        super().__init__(batch_system("slurm"))
        self.folder = folder
        self.asked = 0

    def asking(self, id: str):  # type: ignore[no-untyped-def]
        del id
        self.asked += 1
        answer = self.folder / f"answer-{self.asked}"
        done = yield ["sh", "-c", f"while ! [ -e {answer} ]; do sleep 0.02; done; cat {answer}"]
        assert isinstance(done, subprocess.CompletedProcess)
        if not done.stdout:
            raise LauncherError("squeue has no answer")
        found = self.system.parse_status("12", ["squeue"], done.stdout)
        assert found is not None
        return found

    def answers(self, number: int, state: str, nodes: str = "") -> None:
        line = f"{state}|None|{nodes}|N/A|N/A|30:00\n" if state else ""
        written = self.folder / "new"
        written.write_text(line)
        written.rename(self.folder / f"answer-{number}")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(batch_system("slurm"), JobOptions(n=4, log_dir=tmp_path), "run", FakeQueue(tmp_path))
    made.jobs.append("12")
    return made


def answer_of(job: Job, wanted: Callable[[Happening], bool] = lambda each: isinstance(each, RunsOn)) -> Happening:
    """The next event of this kind."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for each in job.news(time.monotonic(), False):
            if wanted(each):
                return each
        time.sleep(0.01)
    raise TimeoutError


def test_an_answer_where_a_job_runs_is_not_older_than_the_question(job: Job) -> None:
    queue = job._queue
    assert isinstance(queue, FakeQueue)
    job.ask()  # as it does from time to time; the job waits at that moment
    job.ask_where(1)
    job.ask_where(2)
    queue.answers(1, "PENDING")
    queue.answers(2, "RUNNING", "n[1-2],n07")
    assert answer_of(job) == RunsOn(("n1", "n2", "n07"), 2)
    assert queue.asked == 2, "one answer for both"


@pytest.mark.parametrize(
    ("state", "nodes", "where"),
    [
        ("PENDING", "", ()),
        ("RUNNING", "n1", ("n1",)),
        ("COMPLETING", "n1", ("n1",)),
        ("CANCELLED", "n1", ()),
        ("RUNNING", "", None),
        ("NEW_STATE", "", None),
        ("", "", None),
    ],
)
def test_where_a_job_runs_by_its_state(job: Job, state: str, nodes: str, where: tuple[str, ...] | None) -> None:
    queue = job._queue
    assert isinstance(queue, FakeQueue)
    queue.answers(1, state, nodes)
    job.ask_where(7)
    assert answer_of(job) == RunsOn(where, 7)
    assert queue.asked == 1


def test_nodes_are_told_unasked_when_they_have_changed(job: Job) -> None:
    queue = job._queue
    assert isinstance(queue, FakeQueue)
    told: list[Happening] = []
    for number, nodes in enumerate(["n1", "n1", "n[2-3]"], 1):
        queue.answers(number, "RUNNING", nodes)
        job.ask()
        while job._question is not None:
            told += job.news(time.monotonic(), False)
            time.sleep(0.01)
    assert [each for each in told if isinstance(each, RunsOn)] == [RunsOn(("n1",)), RunsOn(("n2", "n3"))]
