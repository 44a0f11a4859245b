"""The description of a batch system: a record of its commands, directives and states (no I/O).

A new one needs one file with one such record, such as :mod:`ipmpi.launch.batch.slurm` and
:mod:`ipmpi.launch.batch.pbs`.
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
    """The state of a job, the same for all batch systems."""

    PENDING = "pending"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"
    UNKNOWN = "unknown"


class JobStatus(NamedTuple):
    """The batch system's report about one job.

    Attributes:
        id: the job's id.
        state: its state.
        native: the batch system's own name of the state.
        reason: why it waits, or how it ended, in the batch system's words.
        start: Unix time when it started, or is expected to.
        end: Unix time when it ended, or will at the latest.
        time_left: seconds until its time is up, while it runs.
        nodes: where it runs, as the batch system writes it.
        outcome: once ended: ``completed``, ``cancelled``, ``preempted``, ``timeout``, ``failed``,
            ``node-failure``, or ``""`` if unknown.
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
    """A line of a job script, or a part of one, and its explanation."""

    text: str
    why: str = ""


class Shape(NamedTuple):
    """The resources of a job: ``n`` engines, and the requirements of each node or engine.

    ``nodes`` and ``per_node`` are both 0 if the batch system may choose the nodes.
    """

    n: int
    nodes: int = 0
    per_node: int = 0
    cores: int = 1
    gpus: int = 0
    memory: str = ""


@dataclass(frozen=True)
class Shell:
    """Shell expressions for job scripts.

    Attributes:
        job: the number of the job, for file names.
        element: the element of a job array.
        folder: the folder of submission.
        ranks: the number of engines for which the job has room.
        threads: the cores of one engine.
        end: lines that set ``end`` to the Unix time of the job's end, or leave it empty; ``{walltime}`` is its
            length in seconds, and a line with it is left out if there is none.
        hostfile: the file with one line for each rank; empty if MPI launchers find it by themselves.
        nodes: the number of machines; empty if unknown.
        remote: a program that runs ``PROGRAM ARGUMENT ...`` on ``HOST``, for MPI launchers that do not support the
            batch system.
        each_node: runs a program once on each node, beside other programs of the job, until it ends or its input
            does; empty if there is no such command.
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
    each_node: str = ""


@dataclass(frozen=True)
class BatchSystem:
    """One kind of batch system. Words of commands may contain ``{script}`` or ``{id}``.

    Attributes:
        name: its name in ``ipcluster NAME``.
        title: its name in messages.
        prefix: prefix of directives in a script.
        directives: by need, the directive that asks for it, with ``{value}`` in it. Needs are ``walltime``,
            ``queue``, ``account``, ``qos``, ``constraint``, ``requeue`` and ``array`` (``{value}`` elements, or
            ``{last}`` as the last one from 0), which are refused where they are missing; and ``name``,
            ``output`` (a folder), ``output-array``, ``shell``, ``no-requeue``, ``survive`` (the loss of a node)
            and ``warning`` (seconds before the end), which are left out then.
        resources: writes the directives for a :class:`Shape`.
        shell: shell expressions for the scripts.
        submitting: the command that submits a script.
        asking: commands that show a job, in the order in which they are tried.
        cancelling: the command that ends a job.
        interrupting: the command that sends SIGINT to all engines of a job; empty if there is none.
        read_id: parses the job's id from the output of ``submitting``; returns "" if there is none.
        read_status: parses a job from the output of one of ``asking``.
        gone: regex of the error of ``asking`` about an unknown job.
        ending: regex of the error of ``cancelling`` about a job that is ending.
        output: glob patterns of the file with a job's output, with ``{name}`` and ``{id}``.
        elsewhere: words to add to commands about a job of another cluster, with ``{cluster}``. The id of such a
            job is ``NUMBER;CLUSTER``.
        array_id: the id of a job array with the number ``{id}``, if it is not the number.
        environ: variables for these commands, for a defined output format.
        launcher: ``srun`` if the batch system has an MPI launcher of its own.
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
        """The required programs, without optional ones."""
        return tuple(dict.fromkeys(words[0] for words in (self.submitting, self.asking[0], self.cancelling)))

    def missing(self, path: str | None = None) -> list[str]:
        """Return the required programs that are not in PATH."""
        return [program for program in self.programs if shutil.which(program, path=path) is None]

    def is_here(self, path: str | None = None) -> bool:
        """Return whether this machine can submit jobs to it."""
        return not self.missing(path)

    def submit(self, script: Path) -> list[str]:
        """Return the command that submits a script."""
        return [word.format(script=script) for word in self.submitting]

    def job_id(self, stdout: str) -> str:
        """Return the id in the output of the command.

        Raises:
            LauncherError: there is none.
        """
        found = self.read_id(stdout)
        if not found:
            said = stdout.strip() or "nothing"
            raise LauncherError(f"{self.submitting[0]} did not print the id of the job, but: {said[:500]}")
        return found

    def status(self, id: str) -> list[list[str]]:
        """Return the commands that show a job, to be tried in this order."""
        return [self._about(id, words) for words in self.asking]

    def parse_status(self, id: str, argv: Sequence[str], stdout: str) -> JobStatus | None:
        """Parse the output of one of those commands; None if it does not contain the job."""
        return self.read_status(id, argv, stdout)

    def is_gone(self, stderr: str) -> bool:
        """Return whether the error of a command says that there is no such job."""
        return re.search(self.gone, stderr) is not None

    def cancel(self, id: str) -> list[str]:
        """Return the command that ends a job."""
        return self._about(id, self.cancelling)

    def interrupt(self, id: str) -> list[str]:
        """Return the command that interrupts all engines of a job; [] if there is none."""
        return self._about(id, self.interrupting) if self.interrupting else []

    def is_ending(self, stderr: str) -> bool:
        """Return whether the error of ``cancel`` says that the job is ending."""
        return bool(self.ending) and re.search(self.ending, stderr) is not None

    def as_array(self, id: str) -> str:
        """Return the id of the job array with this number; "" if that is the id itself."""
        return self.array_id.format(id=job_number(id)) if re.fullmatch(r"\d+(\.[\w.-]+)?", id) else ""

    def output_files(self, name: str, id: str) -> list[str]:
        """Return glob patterns of the files with the output of a job, in its log folder."""
        return [pattern.format(name=name, id=job_number(id)) for pattern in self.output]

    def _about(self, id: str, words: Sequence[str]) -> list[str]:
        """Return a command about one job."""
        own, semicolon, cluster = id.partition(";")
        is_cluster = self.elsewhere and re.fullmatch(r"\w[\w.-]*", cluster)
        if not re.fullmatch(r"\w[\w.,:@+\[\]-]*", own) or (semicolon and not is_cluster):
            raise LauncherError(f"{id!r} is not the id of a job")
        there = [word.format(cluster=cluster) for word in self.elsewhere] if cluster else []
        return [words[0], *there, *(word.format(id=own) for word in words[1:])]


def job_number(id: str) -> str:
    """Return a job's number, as in file names: ``12`` of ``12.server``, ``12[].server`` and ``12;cluster``."""
    return re.split(r"[.\[;]", id, maxsplit=1)[0]
