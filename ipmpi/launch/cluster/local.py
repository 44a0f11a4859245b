"""Engines on this machine: the ranks of an MPI job, or plain processes."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipmpi import launchfolder
from ipmpi.environment.mpienv import RANK, TOGETHER
from ipmpi.errors import LauncherError
from ipmpi.launch.batch.allocation import Allocation, allocation, leftover, machines, without_job, without_rank
from ipmpi.launch.batch.queue import Queue
from ipmpi.launch.batch.registry import JobState, batch_system
from ipmpi.launch.cluster.happenings import EnginesEnded, Happening, RankEnded
from ipmpi.launch.cluster.launch import Launch
from ipmpi.launch.processes.faults import Faults
from ipmpi.launch.processes.mpi import (
    ENGINE_MODULE,
    FaultTolerance,
    MpiCommand,
    find_mpi,
    flavour_of,
    mpi_command,
    names_machines,
    why_none_survives,
)
from ipmpi.launch.processes.outputlimit import OutputLimit
from ipmpi.launch.processes.process import ChildProcess, session, tail, written_at

RANK_POLL: Final = 0.5
"""Seconds between checks of the ranks while they start: launchers do not report the end of one."""

FAILS_BY_CHANCE: Final = ("The PMIx server's listener thread failed to start.",)
"""Messages of launchers about transient failures before any rank has started. Open MPI 5 fails once when its
session
folder, named after its pid, is left over from an mpiexec that was killed."""


@dataclass(frozen=True)
class EngineOptions:
    """Options of local engines.

    Attributes:
        n: number of engines.
        log_dir: folder of all log files.
        run: a unique part of their names.
        engine_furl_file: the file with the controller's furl.
        mpi: ``auto``, ``mpi4py`` or ``none``; with ``none`` the engines are plain processes.
        launcher: path of an ``mpiexec``, or ``auto``.
        waits: the furl file may be an old one until the controller is ready (a fixed port), so start after that.
        timeout: seconds in which all engines have to be registered.
        oversubscribe: allow more ranks than cores.
        fault_tolerance: whether ranks outlive each other; ``auto``: if they are on one machine.
        launcher_options: further options of the launcher.
        arguments: further arguments of ``ipengine``.
    """

    n: int
    log_dir: Path
    run: str
    engine_furl_file: Path
    mpi: str = "auto"
    launcher: str = "auto"
    waits: bool = False
    timeout: float = 60.0
    oversubscribe: bool = True
    fault_tolerance: FaultTolerance = "auto"
    launcher_options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


def engine_commands(options: EngineOptions, environ: Mapping[str, str]) -> list[MpiCommand]:
    """Return the commands that start the engines: one for all with MPI, or one for each without.

    Raises:
        LauncherError: there is no usable ``mpiexec``.
    """
    prefix = str(options.log_dir / f"ipengine-{options.run}-")
    arguments = ["--furl-file", str(options.engine_furl_file), "-l", prefix]
    arguments += ["--mpi", options.mpi, "--wait", f"{options.timeout:g}"]
    arguments += ["--ids-dir", str(launch_folder(options)), *options.arguments]
    if options.mpi == "none":
        if options.launcher_options:
            raise LauncherError(
                "--launcher-option is for an mpiexec, and --mpi none starts none: leave out one of them"
            )
        words = [sys.executable, "-m", ENGINE_MODULE, *arguments]
        return [MpiCommand(words, {RANK: str(number)}) for number in range(options.n)]
    command = mpi_command(
        options.n,
        launcher=options.launcher,
        engine_args=arguments,
        root=os.geteuid() == 0,
        oversubscribe=options.oversubscribe,
        single_host=machines(environ) == 1,
        fault_tolerance=options.fault_tolerance,
        launcher_options=options.launcher_options,
    )
    return [command]


def launch_folder(options: EngineOptions) -> Path:
    """Return the folder by which these engines are started again; see :mod:`ipmpi.launchfolder`."""
    return options.log_dir / f"ipengine-{options.run}-ids"


class Processes(Launch):
    """Base of engines that are our child processes, or are started by them."""

    def __init__(self, n: int, log_dir: Path, run: str, *, waits: bool) -> None:
        self.n = n
        self.log_dir = log_dir
        self.run = run
        self.waits = waits
        self.started: list[ChildProcess] = []
        self._reported: set[int] = set()
        self._limit = OutputLimit(self.output)
        self._faults = Faults(lambda: [self.output], lambda: log_dir.glob(f"ipengine-{run}-*.log"))

    @property
    def output(self) -> Path:
        """The file with their output."""
        return self.log_dir / f"ipcluster-{self.run}-engines.log"

    def children(self) -> list[ChildProcess]:
        """Return all started processes."""
        return self.started

    def news(self, now: float, starting: bool) -> Iterable[Happening]:  # noqa: ARG002 - for those who look
        """Return which processes have ended."""
        if self.started:
            self._limit.look(now)
        for child in self.started:
            code = child.exit_code()
            if code is not None and child.pid not in self._reported:
                self._reported.add(child.pid)
                left = sum(other.pid not in self._reported for other in self.started)
                yield EnginesEnded(child.title, code, left, self._chance(child), self._asked())

    def next_look(self, starting: bool) -> float | None:  # noqa: ARG002 - for those who look at ranks
        """Return when to check the size of their output."""
        return self._limit.due if self.started else None

    def _chance(self, _child: ChildProcess) -> str:
        return ""

    def _asked(self) -> str:
        """Return why they are to be started again, as a clause; "" if they are not."""
        return ""

    def end(self) -> None:
        """Send SIGTERM to all that run."""
        for child in self.started:
            if child.exit_code() is None:
                child.send(signal.SIGTERM)

    def lost(self, rank: int, pid: int, host: str) -> None:
        """Record a lost rank, which may be the cause of other losses."""
        self._faults.lost(rank, pid, host)

    def faults(self) -> list[str]:
        """Return faults by the output of launcher, ranks and controller."""
        return self._faults.look() if self.started else []

    def logs(self) -> list[Path]:
        """Return their output, and the log of the engine that ended first, or else the most recent one."""
        if not self.started:
            return []
        guilty = self._faults.log()
        if guilty is not None:
            return [self.output, guilty]
        logs = [path for path in self.log_dir.glob(f"ipengine-{self.run}-*.log") if tail(path, 1)]
        return [self.output, *sorted(logs, key=written_at)[-1:]]


class LocalEngines(Processes):
    """Engines of this machine."""

    def __init__(self, options: EngineOptions) -> None:
        super().__init__(options.n, options.log_dir, options.run, waits=options.waits)
        self.options = options
        self._ranks: set[int] = set()
        self._next_look = 0.0
        self._not_in: str | None = None

    def check(self) -> None:
        """Check that there is a usable ``mpiexec``."""
        engine_commands(self.options, os.environ)

    def start(self, why: str = "") -> None:
        """Start them; they wait for the furl file by themselves."""
        for child in self.started:
            child.kill_session(ENGINE_MODULE)
            child.note(f"ipcluster: {why}")
        if self.started:
            self._faults.begin()
        self.started.clear()
        launchfolder.begin(launch_folder(self.options))
        environ = self._environment()
        commands = engine_commands(self.options, environ)
        # Threads of n engines must not compete for the cores; the user's own setting has precedence.
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.n))}
        together = {TOGETHER: f"{secrets.token_hex(8)}:{self.n}"} if self.options.mpi == "none" else {}
        for number, command in enumerate(commands):
            title = f"engine process {number}" if self.options.mpi == "none" else Path(command.argv[0]).name
            try:
                self.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                own = {**threads, **command.environ, **environ, **together}
                self.started.append(ChildProcess.start(title, command.argv, self.output, own))
            except OSError as error:
                raise LauncherError(f"{command.argv[0]} could not be started: {error}") from error

    def said(self) -> list[str]:
        """Return lines with process ids."""
        job, told = allocation(os.environ), []
        if job is not None and self._not_in:
            told = [f"The {job.prefix}* variables of {job.words} are left out of account: {self._not_in}."]
        if self.options.mpi == "none":
            return [*told, f"Starting engines:    Engines PIDs:   {[child.pid for child in self.started]}"]
        (launcher,) = self.started
        return [
            *told,
            *self._no_shrinking(),
            f"Starting engines:    {self.n} rank{'s' * (self.n != 1)} by {launcher.title}, PID: {launcher.pid}",
        ]

    def _no_shrinking(self) -> list[str]:
        """Say so if ``--on-loss shrink`` is asked for, and the launcher ends all ranks when one dies."""
        options = self.options
        if ("--on-loss", "shrink") not in itertools.pairwise(options.arguments):
            return []
        found = find_mpi() if options.launcher == "auto" else None
        flavour = flavour_of(options.launcher) if found is None else found.flavour
        here = machines(os.environ) == 1 and not names_machines(options.launcher_options)
        why = why_none_survives(flavour, options.fault_tolerance, 1 if here else None)
        return [f"--on-loss shrink is not possible: {why}. All are then started again (--restarts)"] if why else []

    def _environment(self) -> dict[str, str]:
        """Return the environment without the variables of another job, or, in a job step, of our own rank."""
        if self._not_in is None:
            self._not_in = leftover(os.environ, os.uname().nodename, job_is_over)
        return without_job(os.environ) if self._not_in else without_rank(os.environ)

    def hints(self) -> list[str]:
        """Return a hint that mpiexec uses the job in the environment."""
        job = allocation(os.environ)
        if job is None or self._not_in or self.options.mpi == "none":
            return []
        return [
            f"The environment has {job.words} ({job.prefix}* variables), so the engines were to start there. If "
            f"this terminal does not belong to that job: {job.unset}"
        ]

    def news(self, now: float, starting: bool) -> Iterable[Happening]:
        """Return which processes have ended; while they start, also which ranks."""
        yield from super().news(now, starting)
        if self._watches_ranks(starting) and now >= self._next_look:
            self._next_look = now + RANK_POLL
            yield from self._look_at_ranks()

    def next_look(self, starting: bool) -> float | None:
        """Return when to check the ranks in the process table, twice a second."""
        other = super().next_look(starting)
        if other is None or not self._watches_ranks(starting):
            return other
        return min(other, self._next_look)

    def _watches_ranks(self, starting: bool) -> bool:
        return bool(starting and self.started and self.options.mpi != "none")

    def _look_at_ranks(self) -> Iterable[Happening]:
        launcher = self.started[0]
        # A forked process has its parent's command line until it runs a program of its own. So a rank begins with
        # the interpreter (a fork of mpiexec does not), and is no child of a rank.
        begin = f"{sys.executable} -m {ENGINE_MODULE}"
        similar = {found.pid: found.parent for found in session(launcher.pid) if found.command.startswith(begin)}
        alive = {pid for pid, parent in similar.items() if parent not in similar}
        gone = self._ranks - alive
        self._ranks |= alive
        if gone and launcher.exit_code() is None:
            yield RankEnded(min(gone))

    def _asked(self) -> str:
        return launchfolder.asked(launch_folder(self.options))

    def kill(self) -> None:
        """See :meth:`Launch.kill`."""
        super().kill()
        launchfolder.remove(launch_folder(self.options))

    def _chance(self, child: ChildProcess) -> str:
        if self._ranks or self.options.mpi == "none":
            return ""
        return failure_by_chance(tail(child.output, 200))


def job_is_over(job: Allocation) -> bool | None:
    """Return whether a job has ended; None if the batch system does not tell."""
    system = batch_system(job.title.lower())
    try:
        state = Queue(system).status(job.job).state if system.is_here() else JobState.UNKNOWN
    except LauncherError:
        return None
    return None if state is JobState.UNKNOWN else state is JobState.ENDED


def failure_by_chance(output: Sequence[str]) -> str:
    """Return which of :data:`FAILS_BY_CHANCE` a launcher has printed, perhaps wrapped; "" if none."""
    text = " ".join(" ".join(output).split())
    return next((words for words in FAILS_BY_CHANCE if words in text), "")
