"""The controller's process, and the events that it writes to a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ipmpi.errors import LauncherError
from ipmpi.launch.cluster.happenings import (
    ControllerEnded,
    ControllerReady,
    EngineCount,
    EnginesWait,
    Happening,
    RunsOn,
    WhereAsked,
)
from ipmpi.launch.cluster.launchfurl import LaunchFurl
from ipmpi.launch.processes.process import ChildProcess

CONTROLLER_MODULE: Final = "ipmpi.cli.ipcontroller"

_PIPE_SIZE: Final = 1 << 20
"""Bytes: the names of some 50,000 nodes."""


class EventReader:
    """The reading end of a pipe to which a controller, or a monitor of one, writes a line for each event.

    Attributes:
        fd: the descriptor to wait for.
        furl_files: the furl files by role, once the controller is ready.
    """

    def __init__(self) -> None:
        self.fd, self._write_end = os.pipe()
        self.furl_files: dict[str, str] = {}
        self._unfinished_line = b""

    def read(self) -> list[Happening] | None:
        """Return the events that have arrived; None at the end of the pipe.

        Raises:
            LauncherError: it is not the output of this release's ipcontroller.
        """
        data = os.read(self.fd, 65536)
        if not data:
            return None
        *lines, self._unfinished_line = (self._unfinished_line + data).split(b"\n")
        happenings = [told(line) for line in lines if line.strip()]
        for happening in happenings:
            if isinstance(happening, ControllerReady):
                self.furl_files = happening.furl_files
        return happenings

    def runs_on(self, where: RunsOn) -> None:
        """Tell the controller where our engines run, if this one can be told."""
        del where

    def close(self) -> None:
        """Give back the pipe."""
        for descriptor in (self.fd, self._write_end):
            if descriptor >= 0:
                os.close(descriptor)
        self.fd = self._write_end = -1


class ControllerProcess(EventReader):
    """Our own controller. It stops when :meth:`close`, or the end of this process, closes its lifeline.

    Args:
        engine_furl_file: the file for the engines' furl.
        log_dir: folder of its log files.
        arguments: further arguments of ``ipcontroller``.
        run: a unique part of the names of its log files.
        keeps_furl: the engines' furl stays valid for the next controller (a fixed port), so it is not deleted.
        launch: the furl that it has to give out for our engines; None for none.

    Attributes:
        process: the process, once started.
    """

    def __init__(
        self,
        engine_furl_file: Path,
        log_dir: Path,
        arguments: Sequence[str] = (),
        *,
        run: str,
        keeps_furl: bool = False,
        launch: LaunchFurl | None = None,
    ) -> None:
        super().__init__()
        self._run = run
        self.process: ChildProcess | None = None
        self._engine_furl_file = engine_furl_file
        self._log_dir = log_dir
        self._arguments = list(arguments)
        self._keeps_furl = keeps_furl
        self._launch = launch
        self._starts = "first"
        self._lifeline_fd = -1
        self._is_cut = False
        """Whether the last line is not whole, because the controller did not read."""

    def again(self) -> ControllerProcess:
        """Return the same controller, to be started when this one was killed: on its ports, with its furls."""
        other = ControllerProcess(
            self._engine_furl_file, self._log_dir, self._arguments, run=self._run, keeps_furl=True,
            launch=self._launch,
        )  # fmt: skip
        other._starts = "again"
        other.furl_files = self.furl_files
        return other

    def start(self) -> None:
        """Start it.

        Raises:
            LauncherError: it cannot be run, or a folder cannot be written.
        """
        try:
            self._log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._keeps_furl:
                self._engine_furl_file.unlink(
                    missing_ok=True
                )  # engines must not use that of the previous controller
            self._start()
        except OSError as error:
            raise LauncherError(f"The controller could not be started: {error}") from error

    def _start(self) -> None:
        lifeline_read, self._lifeline_fd = os.pipe()
        os.set_blocking(self._lifeline_fd, False)
        with contextlib.suppress(OSError):  # a user may have no room for it; it is for jobs of thousands of nodes
            fcntl.fcntl(self._lifeline_fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self.begin_launch()  # before it runs, so that it has read this when it says that it is ready
        try:
            argv = [sys.executable, "-m", CONTROLLER_MODULE, "--engine-furl-file", str(self._engine_furl_file)]
            argv += [
                *self._arguments,
                "--start",
                self._starts,
                "-l",
                str(self._log_dir / f"ipcontroller-{self._run}-"),
            ]
            argv += ["--ready-fd", str(self._write_end), "--lifeline-fd", str(lifeline_read)]
            output = self._log_dir / f"ipcluster-{self._run}-controller.log"
            self.process = ChildProcess.start(
                "controller", argv, output, pass_fds=(self._write_end, lifeline_read)
            )
        finally:
            os.close(self._write_end)
            os.close(lifeline_read)
            self._write_end = -1

    def tell(self, text: str, *, last: bool = False) -> None:
        """Send a text to its clients; ``last``: as the reason of its stop, when it says goodbye."""
        self._write({"stopped" if last else "notice": text})

    def begin_launch(self, *, again: bool = False) -> None:
        """Have it give out the furl of our engines; ``again``: they are started once more."""
        if self._launch is not None:
            self._write(self._launch.begins(again=again))

    def runs_on(self, where: RunsOn) -> None:
        """Tell it where our engines run."""
        if self._launch is not None and self._launch.asks:
            self._write({"runs": [self._launch.name, where.nodes, where.question]})

    def _write(self, what: dict[str, object]) -> None:
        if self._lifeline_fd >= 0:
            line = b"\n" * self._is_cut + json.dumps(what).encode() + b"\n"
            with contextlib.suppress(OSError):  # it has ended, or does not read
                self._is_cut = os.write(self._lifeline_fd, line) < len(line)

    def logs(self) -> list[Path]:
        """The files that explain a failure."""
        if self.process is None:
            return []
        return [self.process.output, *self._log_dir.glob(f"ipcontroller-{self._run}-*.log")]

    def close(self) -> None:
        """Give back the pipes."""
        super().close()
        if self._lifeline_fd >= 0:
            os.close(self._lifeline_fd)
        self._lifeline_fd = -1
        if self._launch is not None:
            with contextlib.suppress(OSError):
                self._launch.file.unlink(missing_ok=True)


def told(line: bytes) -> Happening:
    """Parse one line of the controller.

    Raises:
        LauncherError: it is not the output of this release's ipcontroller.
    """
    try:
        said = json.loads(line)
        if "ended" in said:
            return ControllerEnded(int(said["ended"]))
        if "waits" in said:
            return EnginesWait(str(said["waits"]))
        if "where" in said:
            launch, question = said["where"]
            return WhereAsked(str(launch), int(question))
        if "engines" in said:
            rank, pid, host = said.get("lost") or (None, 0, "")
            lost = None if rank is None else (int(rank), int(pid), str(host))
            ordered, aborted = bool(said.get("ordered")), str(said.get("aborted", ""))
            restarted = str(said.get("restarted", ""))
            return EngineCount(int(said["engines"]), ordered, int(said.get("tasks", 0)), aborted, lost, restarted)
        names = {"multiengine": "mec", "task": "tc"}
        files = {name.removesuffix("_furl_file"): str(value) for name, value in said.items() if name != "pid"}
        return ControllerReady({names.get(name, name): path for name, path in files.items()})
    except (ValueError, TypeError, AttributeError):
        raise LauncherError(f"The controller said something unexpected: {line[:200]!r}") from None
