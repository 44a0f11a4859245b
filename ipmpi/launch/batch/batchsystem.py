"""What a batch system is to us: a record of its commands, directives and states (no I/O).

A new one is one file with one such record; :mod:`ipmpi.launch.batch.slurm` and :mod:`ipmpi.launch.batch.pbs` are
two.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ipmpi.errors import LauncherError


class JobState(Enum):
    """Where in its life a job is, in words that all batch systems share."""

    PENDING = "pending"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"
    UNKNOWN = "unknown"


class JobStatus(NamedTuple):
    """What a batch system says of one job.

    Attributes:
        id: the job's id.
        state: where in its life it is.
        native: the same in the batch system's own word.
        reason: why it waits, or how it ended, in the batch system's words.
        start: unix time when it started, or is expected to.
        end: unix time when it ended, or will at the latest.
        time_left: seconds until its time is up, while it runs.
        nodes: where it runs, as the batch system writes it.
        outcome: once ended: ``completed``, ``cancelled``, ``preempted``, ``timeout``, ``failed``,
            ``node-failure``, or ``""`` where nobody knows any more.
    """

    id: str
    state: JobState
    native: str
    reason: str = ""
    start: float | None = None
    end: float | None = None
    time_left: float | None = None
    nodes: str = ""
    outcome: str = ""


class Line(NamedTuple):
    """A line of a job script, or a part of one, and why it is there."""

    text: str
    why: str = ""


class Shape(NamedTuple):
    """What a job needs: ``n`` engines, and what each node or engine has to have.

    ``nodes`` and ``per_node`` are both 0 where the batch system may place the engines as it likes.
    """

    n: int
    nodes: int = 0
    per_node: int = 0
    cores: int = 1
    gpus: int = 0
    memory: str = ""


@dataclass(frozen=True)
class Shell:
    """What a job script needs to know, in the words of the shell.

    Attributes:
        job: the number of the job, good for file names.
        element: which element of a job array this is.
        folder: where the job was submitted.
        ranks: how many engines the job has room for.
        threads: the cores of one engine.
        end: lines that set ``end`` to the unix time of the job's end, or leave it empty; ``{walltime}`` is its
            length in seconds, and a line with that is left out where none was asked for.
        hostfile: the file with one line for each rank, or empty where MPI launchers know it by themselves.
        nodes: how many machines the job has, or empty where that is not known.
        remote: a program that starts ``PROGRAM ARGUMENT ...`` on ``HOST``, for MPI launchers that do not know the
            batch system.
    """

    job: str
    element: str
    folder: str
    ranks: str
    threads: str
    end: str
    hostfile: str = ""
    nodes: str = ""
    remote: str = ""


@dataclass(frozen=True)
class BatchSystem:
    """One kind of batch system. Words of commands may hold ``{script}`` or ``{id}``.

    Attributes:
        name: what is typed: ``ipcluster NAME``.
        title: what it is called in sentences.
        prefix: what a directive begins with in a script.
        directives: by need, the directive that asks for it, with ``{value}`` in it. Needs are ``walltime``,
            ``queue``, ``account``, ``qos``, ``constraint``, ``requeue`` and ``array`` (``{value}`` elements, or
            ``{last}`` as the last one from 0), which are refused where they are missing; and ``name``,
            ``output`` (a folder), ``output-array``, ``shell``, ``no-requeue``, ``survive`` (the loss of a node)
            and ``warning`` (seconds before the end), which are left out then.
        resources: writes the directives for a :class:`Shape`.
        shell: what the scripts need to know.
        submitting: the command that submits a script.
        asking: commands that tell about a job, in the order in which they are tried.
        cancelling: the command that ends a job.
        interrupting: the command that sends SIGINT to all engines of a job; empty if there is none.
        read_id: finds the job's id in what ``submitting`` printed; empty if there is none.
        read_status: finds a job in what one of ``asking`` printed.
        gone: matches the complaint of ``asking`` about a job that it does not know, or not any more.
        ending: matches the complaint of ``cancelling`` about a job that is about to end anyway.
        output: names that the file with a job's output may have, with ``{name}`` and ``{id}``; glob patterns.
        elsewhere: what is added to commands about a job of another cluster, with ``{cluster}``. The id of such a
            job is ``NUMBER;CLUSTER``.
        array_id: the id of a job array whose number is ``{id}``, where it is not the number.
        environ: variables for these commands, so that their output is as expected.
        launcher: ``srun`` where the batch system has a launcher of MPI ranks of its own.
    """

    name: str
    title: str
    prefix: str
    directives: Mapping[str, str]
    resources: Callable[[Shape], list[Line]]
    shell: Shell
    submitting: tuple[str, ...]
    asking: tuple[tuple[str, ...], ...]
    cancelling: tuple[str, ...]
    read_id: Callable[[str], str]
    read_status: Callable[[str, Sequence[str], str], JobStatus | None]
    gone: str
    output: tuple[str, ...]
    ending: str = ""
    elsewhere: tuple[str, ...] = ()
    array_id: str = ""
    interrupting: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    launcher: str = ""

    @property
    def programs(self) -> tuple[str, ...]:
        """Those that have to be there; what only helps is not among them."""
        return tuple(dict.fromkeys(words[0] for words in (self.submitting, self.asking[0], self.cancelling)))

    def missing(self, path: str | None = None) -> list[str]:
        """Which of the programs are not in PATH."""
        return [program for program in self.programs if shutil.which(program, path=path) is None]

    def is_here(self, path: str | None = None) -> bool:
        """Whether this machine can submit jobs to it."""
        return not self.missing(path)

    def submit(self, script: Path) -> list[str]:
        """The command that submits a script."""
        return [word.format(script=script) for word in self.submitting]

    def job_id(self, stdout: str) -> str:
        """The id in what the command printed.

        Raises:
            LauncherError: there is none.
        """
        found = self.read_id(stdout)
        if not found:
            said = stdout.strip() or "nothing"
            raise LauncherError(f"{self.submitting[0]} did not say the id of the job; it printed: {said[:500]}")
        return found

    def status(self, id: str) -> list[list[str]]:
        """The commands that tell about a job, to be tried in this order."""
        return [self._about(id, words) for words in self.asking]

    def parse_status(self, id: str, argv: Sequence[str], stdout: str) -> JobStatus | None:
        """What one of those commands said, or None if it said nothing of this job."""
        return self.read_status(id, argv, stdout)

    def is_gone(self, stderr: str) -> bool:
        """Whether a command complained that there is no such job, and not that it could not find out."""
        return re.search(self.gone, stderr) is not None

    def cancel(self, id: str) -> list[str]:
        """The command that ends a job."""
        return self._about(id, self.cancelling)

    def interrupt(self, id: str) -> list[str]:
        """The command that interrupts what runs on all engines of a job; empty if there is none."""
        return self._about(id, self.interrupting) if self.interrupting else []

    def is_ending(self, stderr: str) -> bool:
        """Whether a command complained that a job which it is to end is about to do so anyway."""
        return bool(self.ending) and re.search(self.ending, stderr) is not None

    def as_array(self, id: str) -> str:
        """The id of the job array that somebody calls by this id; empty if that is the id itself."""
        return self.array_id.format(id=job_number(id)) if re.fullmatch(r"\d+(\.[\w.-]+)?", id) else ""

    def output_files(self, name: str, id: str) -> list[str]:
        """Glob patterns for the files with the output of a job, in its folder of log files."""
        return [pattern.format(name=name, id=job_number(id)) for pattern in self.output]

    def _about(self, id: str, words: Sequence[str]) -> list[str]:
        """A command about one job."""
        own, semicolon, cluster = id.partition(";")
        is_cluster = self.elsewhere and re.fullmatch(r"\w[\w.-]*", cluster)
        if not re.fullmatch(r"\w[\w.,:@+\[\]-]*", own) or (semicolon and not is_cluster):
            raise LauncherError(f"{id!r} is not the id of a job")
        there = [word.format(cluster=cluster) for word in self.elsewhere] if cluster else []
        return [words[0], *there, *(word.format(id=own) for word in words[1:])]


def job_number(id: str) -> str:
    """What file names have of a job's id: ``12`` of ``12.server``, ``12[].server`` and ``12;cluster``."""
    return re.split(r"[.\[;]", id, maxsplit=1)[0]
