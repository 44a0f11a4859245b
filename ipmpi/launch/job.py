"""Engines as a job of a batch system (layer L4)."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ipmpi.errors import LauncherError
from ipmpi.launch.batchsystem import BatchSystem, JobState, job_number
from ipmpi.launch.happenings import Happening, JobNews, JobUnclear
from ipmpi.launch.joboptions import JobOptions
from ipmpi.launch.jobscript import JobScript, render
from ipmpi.launch.launch import Launch
from ipmpi.launch.process import tail
from ipmpi.launch.queue import Queue

SHOWN_LOGS: Final = 3
"""How many log files of a job are worth to be shown."""


class Job(Launch):
    """Engines, and with the kind ``cluster`` also their controller, in one job.

    Args:
        system: the batch system.
        options: what the job script asks for.
        run: a part of the name of its script, which no other in the folder has.
        queue: what runs the batch system's commands.

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
        self._ended = False
        self._queue = Queue(system) if queue is None else queue

    @property
    def job(self) -> str:
        """The job that was submitted last."""
        return self.jobs[-1] if self.jobs else ""

    def check(self) -> None:
        """Can the script be written, and are the programs here?"""
        self._rendered = render(self.system, self.options)
        self._queue.check()

    def start(self, why: str = "") -> None:  # noqa: ARG002 - the user is told why
        """Submit the job.

        Raises:
            LauncherError: the batch system refuses, with its words.
        """
        rendered = self._rendered or render(self.system, self.options)
        try:
            self.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.script = self.log_dir / f"ipcluster-{self.run}.{self.system.name}"
            self.script.write_text(rendered.text, "utf-8")
            self.script.chmod(0o700)
        except OSError as error:
            raise LauncherError(f"The job script cannot be written: {error}") from error
        self.jobs.append(self._queue.submit(self.script))
        self._ended = False

    def said(self) -> list[str]:
        """The job's id."""
        what = {"cluster": "a controller and ", "array": "a job array of "}.get(self.options.kind, "")
        return [
            f"Submitted job {self.job} to {self.system.title}: {what}{self.n} engine{'s' * (self.n != 1)}.",
            f"Job script: {self.script}",
        ]

    def ask(self) -> Happening:
        """How is it?"""
        try:
            status = self._queue.status(self.job)
        except LauncherError as error:
            return JobUnclear(str(error))
        self._ended = status.state is JobState.ENDED
        return JobNews(status)

    def end(self) -> list[str]:
        """Cancel the job."""
        if not self.job or self._ended:
            return []
        try:
            self._queue.cancel(self.job)
        except LauncherError as error:
            return [f"job {self.job} could not be cancelled: {error}"]
        self._ended = True
        return []

    def logs(self) -> list[Path]:
        """What the job printed, and the engine logs written last."""
        files = job_logs(self.system, self.log_dir, self.options.name, self.job)
        return [path for path in files if tail(path, 1)][:SHOWN_LOGS]


def job_logs(system: BatchSystem, log_dir: Path, name: str, job: str) -> Iterator[Path]:
    """The files with the output of a job, then of a controller in it, and those of its engines, newest first."""
    if not job:
        return
    number = job_number(job)
    own = re.compile(rf"(?<!\d){re.escape(number)}(?!\d)")  # the output of job 12 is not that of job 123
    written = {path for pattern in system.output_files(name, job) for path in log_dir.glob(pattern)}
    yield from sorted(path for path in written if own.search(path.name))
    element = number.replace("_", "-")  # of an array of Slurm
    yield from sorted(log_dir.glob(f"ipcontroller-{element}-*.log"))
    yield from sorted(log_dir.glob(f"ipengine-{element}-*.log"), key=_written, reverse=True)


def _written(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return time.time()
