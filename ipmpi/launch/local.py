"""A controller and its engines on this machine, started and stopped together (layer L4)."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from ipmpi.errors import LauncherError
from ipmpi.launch.mpi import ENGINE_MODULE, MpiCommand, in_allocation, mpi_command
from ipmpi.launch.process import Child, Signals, session, tail
from ipmpi.limits import INTERRUPT_GRACE

CONTROLLER_MODULE: Final = "ipmpi.cli.ipcontroller"

RANK_POLL: Final = 0.5
"""Seconds between looks at the ranks while they start: their launcher tells nobody about the end of one."""

POLITE: Final = INTERRUPT_GRACE + 1.5
"""Seconds for engines to end because the controller told them to."""

FAILS_BY_CHANCE: Final = ("The PMIx server's listener thread failed to start.",)
"""What launchers write when they fail on a busy machine before they start anything, and not the next time. Seen
with the packaged Open MPI 5 in one of some thousand starts."""

INSISTENT: Final = 2.0
"""Seconds for what got SIGTERM to end, before SIGKILL."""


@dataclass(frozen=True)
class ClusterOptions:
    """What to start.

    Attributes:
        n: how many engines.
        log_dir: folder of all log files.
        engine_furl_file: where the controller writes the engines' furl, and they read it.
        mpi: ``auto``, ``mpi4py`` or ``none``; with ``none`` the engines are plain processes.
        launcher: path of an ``mpiexec``, or ``auto``.
        controller_args: further arguments of ``ipcontroller``.
        keeps_furl: the engines' furl lasts from one controller to the next (a fixed port), so it is not deleted
            and engines start after the controller.
        timeout: seconds in which all engines have to be registered.
        oversubscribe: allow more ranks than cores.
    """

    n: int
    log_dir: Path
    engine_furl_file: Path
    mpi: str = "auto"
    launcher: str = "auto"
    controller_args: tuple[str, ...] = ()
    keeps_furl: bool = False
    timeout: float = 60.0
    oversubscribe: bool = True


class ControllerReady(NamedTuple):
    """The controller listens and has written its furl files."""

    furl_files: dict[str, str]


class EngineCount(NamedTuple):
    """So many engines are registered now."""

    registered: int
    ordered: bool = False
    """A client ended them."""


class ControllerEnded(NamedTuple):
    """The controller's process ended."""

    code: int


class EnginesEnded(NamedTuple):
    """One process that is an engine, or that launched engines, ended; ``left`` others run."""

    title: str
    code: int
    left: int
    chance: str = ""
    """It is a launcher that failed before it started any rank, for this reason that comes and goes."""


class RankEnded(NamedTuple):
    """A rank that was seen is no longer there, while its launcher is."""

    pid: int


class StopRequest(NamedTuple):
    """A signal asks for the end."""

    signum: int


Happening = ControllerReady | EngineCount | ControllerEnded | EnginesEnded | RankEnded | StopRequest


def engine_commands(options: ClusterOptions, controller_pid: int, environ: Mapping[str, str]) -> list[MpiCommand]:
    """The commands that start the engines: one for all by MPI, or one for each without.

    Raises:
        LauncherError: no usable ``mpiexec``.
    """
    arguments = ["--furl-file", str(options.engine_furl_file), "-l", engine_log_prefix(options, controller_pid)]
    arguments += ["--mpi", options.mpi, "--wait", f"{options.timeout:g}"]
    if options.mpi == "none":
        return [MpiCommand([sys.executable, "-m", ENGINE_MODULE, *arguments], {}) for _ in range(options.n)]
    command = mpi_command(
        options.n,
        launcher=options.launcher,
        engine_args=arguments,
        root=os.geteuid() == 0,
        oversubscribe=options.oversubscribe,
        single_host=not in_allocation(environ),
    )
    return [command]


def engine_log_prefix(options: ClusterOptions, controller_pid: int) -> str:
    """What the names of the engines' log files begin with; each adds its pid and ``.log``."""
    return str(options.log_dir / f"ipengine{controller_pid}-")


@dataclass
class LocalCluster:
    """The processes of one cluster. Call :meth:`start`, then :meth:`wait` again and again, then :meth:`stop`.

    Attributes:
        options: what was asked for.
        signals: active for as long as this object is used.
        controller: its process, once started.
        engines: the processes that are, or launched, engines.
    """

    options: ClusterOptions
    signals: Signals
    controller: Child | None = None
    engines: list[Child] = field(default_factory=list)
    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    _ready_fd: int = -1
    _lifeline_fd: int = -1
    _unfinished_line: bytes = b""
    _reported: set[int] = field(default_factory=set)
    _ranks: set[int] = field(default_factory=set)
    _next_look: float = 0.0

    def start(self) -> None:
        """Start the controller and, unless they need a furl that lasts, the engines at the same time.

        Raises:
            LauncherError: a program cannot be run, or a folder cannot be written.
        """
        options = self.options
        # Before anything runs: a missing mpiexec must not leave a controller behind.
        engine_commands(options, 0, os.environ)
        try:
            options.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not options.keeps_furl:
                options.engine_furl_file.unlink(missing_ok=True)  # engines must not take the last controller's
            self._selector.register(self.signals, selectors.EVENT_READ)
            self._start_controller()
        except OSError as error:
            raise LauncherError(f"The controller could not be started: {error}") from error
        if not options.keeps_furl:
            self.start_engines()

    def start_engines(self) -> None:
        """Start the engines, which wait for the furl file by themselves.

        Raises:
            LauncherError: a program cannot be run.
        """
        assert self.controller is not None, "the controller is started first"
        output = self.options.log_dir / f"ipcluster-{os.getpid()}-engines.log"
        commands = engine_commands(self.options, self.controller.pid, os.environ)
        # Threads of n engines shall not fight for the cores; what the user set is left alone.
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.options.n))}
        for number, command in enumerate(commands):
            title = f"engine process {number}" if self.options.mpi == "none" else Path(command.argv[0]).name
            try:
                child = Child.start(title, command.argv, output, {**threads, **command.environ, **os.environ})
            except OSError as error:
                raise LauncherError(f"{command.argv[0]} could not be started: {error}") from error
            self.engines.append(child)

    def start_engines_again(self, why: str) -> None:
        """After a launcher that failed before it started anything.

        Raises:
            LauncherError: a program cannot be run.
        """
        for child in self.engines:
            child.kill_session(ENGINE_MODULE)
            child.note(f"ipcluster: {why}")
        self.engines.clear()
        self.start_engines()

    def wait(self, deadline: float | None, *, starting: bool = False) -> list[Happening]:
        """Sleep until something happens, or until ``deadline`` (of ``time.monotonic``), and tell what.

        Args:
            deadline: when to come back with an empty list; None means never.
            starting: also watch each rank, which takes a look at the process table twice a second.
        """
        watched = starting and bool(self.engines) and self.options.mpi != "none"
        if watched:
            deadline = min(deadline or self._next_look, self._next_look)
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        happenings: list[Happening] = []
        for key, _ in self._selector.select(timeout):
            happenings += self._read_signals() if key.fileobj is self.signals else self._read_ready()
        happenings += self._ended()
        if watched and time.monotonic() >= self._next_look:
            happenings += self._look_at_ranks()
        return happenings

    def living(self) -> list[Child]:
        """The started processes that still run."""
        return [
            child for child in (self.controller, *self.engines) if child is not None and child.exit_code() is None
        ]

    def stop(self, polite: bool) -> bool:
        """End all processes: by the controller's word, then by SIGTERM, then by SIGKILL.

        A second stop signal meanwhile kills at once.

        Args:
            polite: the engines are registered, so that the controller can tell them.

        Returns:
            Whether all of them ended.
        """
        hurry = False
        if polite and self.controller is not None:
            self.controller.send(signal.SIGINT)
            hurry = self._await_end(POLITE)
        if self.living() and not hurry:
            for child in self.living():
                child.send(signal.SIGTERM)
            hurry = self._await_end(INSISTENT)
        for engine in self.engines:  # also those that ended: a launcher may leave ranks behind
            engine.kill_session(ENGINE_MODULE)
        if self.controller is not None:
            self.controller.kill_session(CONTROLLER_MODULE)
        self._await_end(INSISTENT)
        return not self.living()

    def close(self) -> None:
        """Give back the pipes. The controller stops when this, or the end of this process, closes its lifeline."""
        for descriptor in (self._ready_fd, self._lifeline_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._ready_fd = self._lifeline_fd = -1
        self._selector.close()

    def controller_logs(self) -> list[Path]:
        """The files that explain a failure of the controller."""
        if self.controller is None:
            return []
        return [self.controller.output, self.options.log_dir / f"ipcontroller{self.controller.pid}.log"]

    def engine_logs(self) -> list[Path]:
        """The files that explain a failure of the engines: their launcher's, and the engine log written last."""
        if self.controller is None or not self.engines:
            return []
        prefix = Path(engine_log_prefix(self.options, self.controller.pid)).name
        logs = [path for path in self.options.log_dir.glob(f"{prefix}*.log") if tail(path, 1)]
        return [self.engines[0].output, *sorted(logs, key=_written)[-1:]]

    def _start_controller(self) -> None:
        self._ready_fd, ready_write = os.pipe()
        lifeline_read, self._lifeline_fd = os.pipe()
        try:
            argv = [
                sys.executable,
                "-m",
                CONTROLLER_MODULE,
                "--engine-furl-file",
                str(self.options.engine_furl_file),
            ]
            argv += [*self.options.controller_args, "-l", str(self.options.log_dir / "ipcontroller")]
            argv += ["--ready-fd", str(ready_write), "--lifeline-fd", str(lifeline_read)]
            output = self.options.log_dir / f"ipcluster-{os.getpid()}-controller.log"
            self.controller = Child.start("controller", argv, output, pass_fds=(ready_write, lifeline_read))
        finally:
            os.close(ready_write)
            os.close(lifeline_read)
        self._selector.register(self._ready_fd, selectors.EVENT_READ)

    def _read_signals(self) -> list[Happening]:
        return [StopRequest(number) for number in self.signals.read() if number != signal.SIGCHLD]

    def _read_ready(self) -> list[Happening]:
        data = os.read(self._ready_fd, 65536)
        if not data:
            self._selector.unregister(self._ready_fd)
            return []
        *lines, self._unfinished_line = (self._unfinished_line + data).split(b"\n")
        try:
            return [_told_by_controller(line) for line in lines if line.strip()]
        except LauncherError:
            self._selector.unregister(self._ready_fd)
            raise

    def _ended(self) -> Iterable[Happening]:
        if self.controller is not None:
            code = self.controller.exit_code()
            if code is not None and self.controller.pid not in self._reported:
                self._reported.add(self.controller.pid)
                yield ControllerEnded(code)
        for child in self.engines:
            code = child.exit_code()
            if code is not None and child.pid not in self._reported:
                self._reported.add(child.pid)
                left = sum(other.pid not in self._reported for other in self.engines)
                yield EnginesEnded(child.title, code, left, "" if self._ranks else _failed_by_chance(child.output))

    def _look_at_ranks(self) -> Iterable[Happening]:
        self._next_look = time.monotonic() + RANK_POLL
        launcher = self.engines[0]
        # A forked process has its parent's command line until it runs a program of its own. So a rank begins with
        # the interpreter (a fork of mpiexec does not), and is no child of a rank.
        begin = f"{sys.executable} -m {ENGINE_MODULE}"
        similar = {found.pid: found.parent for found in session(launcher.pid) if found.command.startswith(begin)}
        alive = {pid for pid, parent in similar.items() if parent not in similar}
        gone = self._ranks - alive
        self._ranks |= alive
        if gone and launcher.exit_code() is None:
            yield RankEnded(min(gone))

    def _await_end(self, seconds: float) -> bool:
        """Wait until nothing lives; True if a stop signal came meanwhile."""
        deadline = time.monotonic() + seconds
        while self.living() and time.monotonic() < deadline:
            if any(isinstance(happening, StopRequest) for happening in self.wait(deadline)):
                return True
        return False


def _told_by_controller(line: bytes) -> Happening:
    """Understand one line of the controller.

    Raises:
        LauncherError: it is not what ipcontroller of this release writes.
    """
    try:
        told = json.loads(line)
        if "engines" in told:
            return EngineCount(int(told["engines"]), bool(told.get("ordered")))
        return ControllerReady({name: str(value) for name, value in told.items()})
    except (ValueError, TypeError, AttributeError):
        raise LauncherError(f"The controller said something unexpected: {line[:200]!r}") from None


def _failed_by_chance(output: Path) -> str:
    text = " ".join(" ".join(tail(output, 200)).split())
    return next((words for words in FAILS_BY_CHANCE if words in text), "")


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
