"""Engines as a job of a batch system."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.batchsystem import BatchSystem, JobState, JobStatus, job_number
from ipmpi.launch.batch.joboptions import JobOptions
from ipmpi.launch.batch.jobscript import JobScript, render
from ipmpi.launch.batch.nodelist import expand_nodes
from ipmpi.launch.batch.queue import Queue
from ipmpi.launch.batch.restartnotes import ASKED_FOR, NOTES, Restart, RestartNotes
from ipmpi.launch.cluster.happenings import (
    Happening,
    JobNews,
    JobUnclear,
    NotSubmitted,
    RunsOn,
    StartedAgain,
    Submitted,
)
from ipmpi.launch.cluster.launch import Launch
from ipmpi.launch.processes.faults import Faults
from ipmpi.launch.processes.process import tail, written_at
from ipmpi.launch.processes.runningsteps import RunningSteps

UNKNOWN_AGAIN: Final = 5.0
UNKNOWN_AT_FIRST: Final = 60.0
"""Seconds for which a batch system must report a job as unknown before it counts as ended: for a job that it has
known, and for one that was just submitted."""

_ENGINE: Final = "ipengine-"
_CONTROLLER: Final = "ipcontroller-"

SHOWN_LOGS: Final = 3
"""Number of log files of a job to show."""


class Job(Launch):
    """Engines, and with the kind ``cluster`` also their controller, in one job.

    Args:
        system: the batch system.
        options: the options of the job script.
        run: a unique part of the script's name.
        queue: runs the batch system's commands.

    Attributes:
        script: the job script, once written.
        jobs: the ids of all jobs that were submitted, newest last.
    """

    def __init__(self, system: BatchSystem, options: JobOptions, run: str, queue: Queue | None = None) -> None:
        self.system = system
        self.options = options
        self.n = options.n or options.nodes * options.per_node
        self.log_dir = options.log_dir
        self.run = run
        self.waits = options.kind != "cluster"
        self.script: Path | None = None
        self.jobs: list[str] = []
        self._rendered: JobScript | None = None
        self._queue = Queue(system) if queue is None else queue
        self._submission: RunningSteps[str] | None = None
        self._question: RunningSteps[JobStatus] | None = None
        self._where_asked = self._where_answered = self._answers_where = 0
        self._nodes: tuple[str, ...] = ()
        self._cancellation: RunningSteps[None] | None = None
        self._shall_end = False
        self._outcome_known = False
        self._was_seen = False
        self._unknown_since: float | None = None
        self._faults = self._of_job()
        self._notes = RestartNotes(self._note_files)
        self._restart: Restart | None = None

    @property
    def job(self) -> str:
        """The id of the last submitted job."""
        return self.jobs[-1] if self.jobs else ""

    def check(self) -> None:
        """Check that the script can be written, and that the programs are installed."""
        self._rendered = render(self.system, self.options)
        self._queue.check()

    def start(self, why: str = "") -> None:  # noqa: ARG002 - the user is told why
        """Submit the job. :meth:`news` has the result.

        Raises:
            LauncherError: the script cannot be written.
        """
        rendered = self._rendered or render(self.system, self.options)
        try:
            self.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.script = self.log_dir / f"ipcluster-{self.run}.{self.system.name}"
            self.script.write_text(rendered.text, "utf-8")
            self.script.chmod(0o700)
        except OSError as error:
            raise LauncherError(f"The job script cannot be written: {error}") from error
        self._submission = self._queue.begin(self._queue.submitting(self.script))
        self._outcome_known = False
        self._unknown_since = None
        self._was_seen = False
        self._faults = self._of_job()
        self._notes = RestartNotes(self._note_files)

    def said(self) -> list[str]:
        """Return lines with the job's id."""
        what = {"cluster": "a controller and ", "array": "a job array of "}.get(self.options.kind, "")
        return [
            f"Submitted job {self.job} to {self.system.title}: {what}{self.n} engine{'s' * (self.n != 1)}.",
            f"Job script: {self.script}",
        ]

    def ask(self) -> None:
        """Ask about the job. :meth:`news` has the reply."""
        if self._question is None and self._submission is None and self.job:
            self._answers_where = self._where_asked
            self._question = self._queue.begin(self._queue.asking(self.job))

    def ask_where(self, question: int) -> None:
        """Ask on which nodes the job runs. :meth:`news` has the reply, which is not older than this question."""
        self._where_asked = question
        self.ask()

    def news(self, now: float, starting: bool) -> Iterable[Happening]:  # noqa: ARG002 - a job is not looked at
        """Return the replies of the batch system, and restarts by the job script."""
        for restart in self._notes.look(now):
            self._restart = restart
            yield StartedAgain(restart.number)
        submission, question = self._submission, self._question
        if submission is not None and submission.look():
            self._submission = None
            try:
                self.jobs.append(submission.result())
            except LauncherError as error:
                yield NotSubmitted(str(error))
            else:
                if self._shall_end:
                    self._cancel()
                else:
                    self._nodes = ()
                    yield Submitted(self.job)
        if question is not None and question.look():
            self._question = None
            try:
                status = question.result()
            except LauncherError as error:
                yield from self._where(None)
                yield JobUnclear(str(error))
            else:
                yield from self._where(status)
                yield from self._understand(status, now)
        if self._where_asked > self._where_answered:
            self.ask()
        if self._cancellation is not None:
            self._cancellation.look()

    def _where(self, status: JobStatus | None) -> Iterable[Happening]:
        """Return where the job runs, if that was asked for or has changed."""
        asked, self._where_answered = self._answers_where > self._where_answered, self._answers_where
        found: tuple[str, ...] | None = None
        if status is not None and status.id == self.job and status.native:
            runs = status.state not in (JobState.PENDING, JobState.ENDED)
            found = (tuple(expand_nodes(status.nodes)) or None) if runs else ()
        if asked or (found and found != self._nodes):
            self._nodes = found or self._nodes
            yield RunsOn(found, self._where_answered)

    def _understand(self, status: JobStatus, now: float) -> Iterable[Happening]:
        if status.id != self.job:
            return
        if status.state is JobState.ENDED and not (status.native or status.outcome):
            # A busy or restarted server may not know a job that was just submitted.
            self._unknown_since = now if self._unknown_since is None else self._unknown_since
            if now - self._unknown_since < (UNKNOWN_AGAIN if self._was_seen else UNKNOWN_AT_FIRST):
                return
        elif status.state is not JobState.UNKNOWN:
            self._unknown_since = None
            self._was_seen = True
            self._outcome_known = status.state is JobState.ENDED and bool(status.outcome)
        yield JobNews(status)

    def next_look(self, starting: bool) -> float | None:  # noqa: ARG002 - as above
        """Return when a command times out, or when to check for restarts by the job script."""
        commands = (self._submission, self._question, self._cancellation)
        times = [each.deadline for each in commands if each is not None and not each.is_over]
        return min([*times, *([] if self._notes.due is None else [self._notes.due])], default=None)

    def end(self) -> None:
        """Cancel the job, once its id is known."""
        self._shall_end = True
        if self._question is not None:
            self._question.abandon()
            self._question = None
        if self._submission is None:
            self._cancel()

    def _cancel(self) -> None:
        if self.job and not self._outcome_known:
            self._cancellation = self._queue.begin(self._queue.cancelling(self.job))

    @property
    def is_ending(self) -> bool:
        """Return whether the batch system has not replied yet."""
        unanswered = self._cancellation is not None and not self._cancellation.is_over
        return self._submission is not None or unanswered

    def problems(self) -> list[str]:
        """Return messages about a job that may continue."""
        look = f"look at your jobs with {self.system.asking[0][0]}"
        if self._submission is not None:
            typed = " ".join(self._submission.argv)
            return [f"`{typed}` has not answered, and may have submitted a job all the same: {look}"]
        if self._cancellation is None:
            return []
        if not self._cancellation.is_over:
            typed = " ".join(self._cancellation.argv)
            return [f"job {self.job} may go on: `{typed}` has not answered; {look}"]
        try:
            self._cancellation.result()
        except LauncherError as error:
            return [f"job {self.job} could not be cancelled: {error}"]
        return []

    def logs(self) -> list[Path]:
        """Return the job's output, and the most recent engine logs."""
        files = [path for path in self._files() if tail(path, 1)]
        guilty = self._faults.log()
        if guilty is not None:
            others = [path for path in files if not path.name.startswith(_ENGINE)]
            return [*others[: SHOWN_LOGS - 1], guilty]
        return files[:SHOWN_LOGS]

    def lost(self, rank: int, pid: int, host: str) -> None:
        """Record a lost rank, which may be the cause of other losses."""
        self._faults.lost(rank, pid, host)

    def faults(self) -> list[str]:
        """Return faults by the output of launcher, ranks and controller."""
        found = self._faults.look()
        restart, self._restart = self._restart, None
        if restart is None:
            self._notes.expect(time.monotonic())
        else:
            # The set did not end regularly. The launcher's output may be later than the script's: srun's comes by
            # network.
            found = [] if restart.number == ASKED_FOR else found or self._faults.first()
            self._faults.begin(restart.written)
        return found

    def _files(self) -> Iterator[Path]:
        return job_logs(self.system, self.log_dir, self.options.name, self.job)

    def _note_files(self) -> list[Path]:
        """Return the files with notes; each element of an array has one."""
        beginning = f"{_ENGINE}{job_number(self.job)}"
        found = (self.log_dir.glob(f"{beginning}{element}{NOTES}") for element in ("", "-*"))
        return [path for paths in found for path in paths] if self.job else []

    def _of_job(self) -> Faults:
        return Faults(
            lambda: [path for path in self._files() if not path.name.startswith((_ENGINE, _CONTROLLER))],
            lambda: [path for path in self._files() if path.name.startswith(_ENGINE)],
        )


def job_logs(system: BatchSystem, log_dir: Path, name: str, job: str) -> Iterator[Path]:
    """Yield the output of a job, then the logs of a controller in it, and of its engines, newest first."""
    if not job:
        return
    number = job_number(job)
    own = re.compile(rf"(?<!\d){re.escape(number)}(?!\d)")  # the output of job 12 is not that of job 123
    written = {path for pattern in system.output_files(name, job) for path in log_dir.glob(pattern)}
    yield from sorted(path for path in written if own.search(path.name))
    element = number.replace("_", "-")  # of a Slurm array
    yield from sorted(log_dir.glob(f"{_CONTROLLER}{element}-*.log"))
    yield from sorted(log_dir.glob(f"{_ENGINE}{element}-*.log"), key=written_at, reverse=True)
