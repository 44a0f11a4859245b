"""Runs the commands of a batch system."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.allocation import without_job
from ipmpi.launch.batch.batchsystem import BatchSystem, JobState, JobStatus
from ipmpi.launch.processes.runningsteps import PATIENCE, RunningSteps, Steps

T = TypeVar("T")
Run = Callable[[Sequence[str], Mapping[str, str]], "subprocess.CompletedProcess[str]"]


def run_command(
    argv: Sequence[str], environ: Mapping[str, str], timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run a program without input, and capture its output."""
    return subprocess.run(
        list(argv),
        env={**without_job(os.environ), **environ},  # a new job must not inherit the variables of ours
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        start_new_session=True,  # Ctrl-C at the terminal must not end it
    )


class Queue:
    """Submits, queries and cancels jobs.

    Each operation exists twice: as a blocking call, and as steps for :meth:`begin`.

    Args:
        system: the batch system.
        run: runs a command, with variables to add to its environment.
    """

    def __init__(self, system: BatchSystem, run: Run = run_command) -> None:
        self.system = system
        self._run = run

    def check(self) -> None:
        """Check that the batch system is installed.

        Raises:
            LauncherError: one of its programs is missing.
        """
        for program in self.system.missing():
            raise self._not_here(program)

    def begin(self, steps: Steps[T]) -> RunningSteps[T]:
        """Run steps without blocking."""
        return RunningSteps(steps, self.system.environ)

    def submit(self, script: Path) -> str:
        """Submit a script, from the current folder; return the id of the job.

        Raises:
            LauncherError: the batch system refused; the message has its output.
        """
        return self._wait_for(self.submitting(script))

    def submitting(self, script: Path) -> Steps[str]:
        """Return the steps of :meth:`submit`."""
        said = yield from self._checked(self.system.submit(script))
        return self.system.job_id(said)

    def status(self, id: str) -> JobStatus:
        """Return the status of a job; the state is UNKNOWN if the batch system does not reply.

        Raises:
            LauncherError: its programs are not installed, or the id is invalid.
        """
        return self._wait_for(self.asking(id))

    def asking(self, id: str) -> Steps[JobStatus]:
        """Return the steps of :meth:`status`."""
        complaint, gone = "", False
        for argv in self.system.status(id):
            try:
                done = yield argv
            except FileNotFoundError as error:
                if argv[0] in self.system.programs:
                    raise self._not_here(argv[0]) from error
                continue
            except (OSError, subprocess.TimeoutExpired) as error:
                complaint = complaint or f"{argv[0]}: {error}"
                continue
            found = self.system.parse_status(id, argv, done.stdout)
            if found is not None:
                return found
            gone = gone or self.system.is_gone(done.stderr)
            complaint = complaint or _last_line(done.stderr)
        if gone:
            return JobStatus(id, JobState.ENDED, "", reason=f"{self.system.title} does not know it any more")
        return JobStatus(id, JobState.UNKNOWN, "", reason=complaint)

    def cancel(self, id: str) -> None:
        """Cancel a waiting or running job; does nothing if it has ended, or is ending.

        Raises:
            LauncherError: the batch system refused; the message has its output.
        """
        self._wait_for(self.cancelling(id))

    def cancelling(self, id: str) -> Steps[None]:
        """Return the steps of :meth:`cancel`."""
        system = self.system
        yield from self._checked(
            system.cancel(id), fine=lambda said: system.is_gone(said) or system.is_ending(said)
        )

    def interrupt(self, id: str) -> None:
        """Interrupt the engines of a job, without the controller.

        Raises:
            LauncherError: the batch system refused, or cannot do that.
        """
        argv = self.system.interrupt(id)
        if not argv:
            raise LauncherError(
                f"{self.system.title} cannot interrupt engines. From Python: mec.interrupt(). To end the job: "
                + " ".join(self.system.cancel(id))
            )
        self._wait_for(self._checked(argv))

    def _wait_for(self, steps: Steps[T]) -> T:
        try:
            argv = next(steps)
            while True:
                try:
                    done = self._run(argv, self.system.environ)
                except (OSError, subprocess.TimeoutExpired) as error:
                    argv = steps.throw(error)
                else:
                    argv = steps.send(done)
        except StopIteration as end:
            result: T = end.value
            return result

    def _checked(self, argv: list[str], *, fine: Callable[[str], bool] = lambda _said: False) -> Steps[str]:
        typed = " ".join(argv)
        try:
            done = yield argv
        except FileNotFoundError as error:
            raise self._not_here(argv[0]) from error
        except subprocess.TimeoutExpired as error:
            raise LauncherError(
                f"`{typed}` gave no answer within {PATIENCE:g} s. It may have worked all the same: "
                f"look at your jobs with {self.system.asking[0][0]} before you try again"
            ) from error
        except OSError as error:
            raise LauncherError(f"`{typed}` could not be run: {error}") from error
        if done.returncode != 0 and not fine(done.stderr):
            said = (done.stderr.strip() or done.stdout.strip() or "it said nothing")[:2000]
            raise LauncherError(f"`{typed}` failed with exit code {done.returncode}: {said}")
        return done.stdout

    def _not_here(self, program: str) -> LauncherError:
        system = self.system
        return LauncherError(
            f"there is no {program} in PATH, so this machine has no {system.title}. Log in to the cluster and try "
            f"again there, or let ssh do it from here: ipcluster {system.name} --ssh USER@LOGIN_NODE -n N"
        )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
