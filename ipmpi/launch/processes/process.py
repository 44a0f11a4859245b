"""Child processes, and signals about them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, NamedTuple

import psutil

from ipmpi.processid import birth as birth

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ChildProcess:
    """A program that was started in a session of its own, so that a Ctrl-C at the terminal reaches only us.

    Attributes:
        title: its name in messages.
        output: the file with its stdout and stderr.
        pid: its process id, which is also the id of its session.
    """

    def __init__(self, title: str, process: subprocess.Popen[bytes], output: Path) -> None:
        self.title = title
        self.output = output
        self.pid = process.pid
        self._process = process

    @classmethod
    def start(
        cls,
        title: str,
        argv: Sequence[str],
        output: Path,
        environ: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        first_line: bytes = b"",
    ) -> ChildProcess:
        """Start a program, with its output appended to a file, and no input or one line.

        After the line, the input stays open while this process runs.

        Raises:
            OSError: it cannot be run, or the file cannot be written.
        """
        with _append(output) as stream:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE if first_line else subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=None if environ is None else dict(environ),
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # its exit code will show that
                process.stdin.write(first_line + b"\n")
                process.stdin.flush()
        return cls(title, process, output)

    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def send(self, signum: int) -> None:
        """Send a signal to the program, not to its children; does nothing if it has ended."""
        self._process.send_signal(signum)

    def note(self, text: str) -> None:
        """Append a line to the program's output file."""
        with _append(self.output) as stream:
            stream.write(text.encode() + b"\n")

    def kill_session(self, marker: str) -> None:
        """Kill the program and its descendants, since a killed launcher leaves its ranks behind.

        Args:
            marker: text in the command lines of its children. Once the program has ended, its session id may be
                reused, so only processes with this text are killed then.
        """
        running = self.exit_code() is None
        members = [found.pid for found in session(self.pid) if running or marker in found.command]
        for member in [self.pid] * running + [pid for pid in members if pid != self.pid]:
            with contextlib.suppress(OSError):  # it may have just ended
                os.kill(member, signal.SIGKILL)


class Member(NamedTuple):
    """A running process of a session, its parent, and its command line."""

    pid: int
    parent: int
    command: str


def session(sid: int) -> list[Member]:
    """Return the running processes of a session and their descendants.

    Descendants, because hydra starts ranks in sessions of their own. The session, because Open MPI's ranks stay in
    it when their launcher is killed, and have no parent then.
    """
    table = [found for process in psutil.process_iter() if (found := _place(process)) is not None]
    members: set[int] = {sid}
    before = 0
    while len(members) != before:
        before = len(members)
        members |= {pid for pid, parent, in_session in table if in_session == sid or parent in members}
    return [Member(pid, parent, _command_line(pid)) for pid, parent, _ in table if pid in members]


def _place(process: psutil.Process) -> tuple[int, int, int] | None:
    """Return a running process, its parent and its session; None if it has ended."""
    try:
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return process.pid, process.ppid(), os.getsid(process.pid)
    except (psutil.Error, OSError):
        return None  # it has just ended, or the system hides it


def _command_line(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def written_at(path: Path) -> float:
    """Return the modification time of a file (as time.time); 0 if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def tail(path: Path, lines: int = 15) -> list[str]:
    """Return the last lines of a text file; [] if it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 32 * 1024))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip()[:500] for line in text.splitlines() if line.strip()][-lines:]


class Signals:
    """A context manager that delivers stop signals and SIGCHLD as bytes on a file descriptor, for a selector.

    Use it in the main thread. SIGHUP stays ignored if it was (nohup); SIGINT is handled even if it was ignored, as
    it is in background jobs of shells, since the user is told to stop us by ``kill -INT``.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._before: dict[int, object] = {}
        self._wakeup_before = -1

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._read_end

    def read(self) -> list[int]:
        """Return the numbers of the signals since the last call."""
        try:
            return list(os.read(self._read_end, 4096))
        except BlockingIOError:
            return []

    def __enter__(self) -> Signals:
        for signum in (*STOP_SIGNALS, signal.SIGCHLD):
            if signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN:
                continue
            self._before[signum] = signal.signal(signum, _nothing)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for signum, handler in self._before.items():
            if handler is not None:
                signal.signal(signum, handler)  # type: ignore[arg-type]
        os.close(self._read_end)
        os.close(self._write_end)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Do nothing: the signal is read from the pipe."""


def _append(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "wb")
