"""Give a system its turn in a process of its own, with a limit of time, and end whatever it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ipmpi.errors import LauncherError
from ipmpi.launch.processes.mpi import mpi_command
from ipmpi.launch.processes.process import tail

from .processes import with_mark
from .rows import BY_KEY
from .systems import Entry

TURN_LIMIT: Final = 100.0
CLOSING: Final = 10.0
"""Seconds that a system has to end, after the last row; how it ends is not measured."""
MARK: Final = "IPMPI_BENCHMARK"
"""Variable in the environment of all that a system starts: some of it leaves the session and the group."""


@dataclass(frozen=True)
class Turn:
    """What came of it.

    Attributes:
        seconds: key of a row -> its samples.
        failed: key of a row -> why it has none, or no more.
        calls: key of a row -> the call that does it.
        why: why the turn as a whole failed; else empty.
    """

    seconds: Mapping[str, list[float]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    calls: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


def turn_of(lines: Iterable[str], how: str, last_words: Sequence[str]) -> Turn:
    """What the lines of :mod:`benchmarks.turn` say (no I/O).

    Args:
        lines: what it had written when it ended.
        how: how it ended, as in ``ended with exit code 1``.
        last_words: the end of its output.
    """
    seconds: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    calls: dict[str, str] = {}
    begun, ended = "", False
    for line in lines:
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:  # ended in the middle of a line
            break
        calls = told.get("calls", calls)
        begun = told.get("begun", begun)
        ended = ended or "end" in told
        if "seconds" in told:
            seconds[told["row"]] = told["seconds"]
        elif "failed" in told:
            failed[told["row"]] = told["failed"]
    if ended:
        return Turn(seconds, failed, calls)
    if begun and begun not in seconds:
        failed.setdefault(begun, how)
    words = next((line for line in reversed(last_words) if line.strip()), "")
    where = f" in {BY_KEY[begun].key}" if begun else " before it was ready"
    return Turn(seconds, failed, calls, f"{how}{where}{': ' if words else ''}{words[:200]}")


def take(
    name: str,
    entry: Entry,
    keys: Sequence[str],
    engines: int,
    size: int,
    *,
    prefix: Sequence[str] = (),
    contact: Path | None = None,
    limit: float = TURN_LIMIT,
    quote: bool = False,
) -> Turn:
    """Let a system do some rows.

    Args:
        name: of the system.
        entry: the same.
        keys: of the rows; those that it has no equivalent for are left out.
        engines: how many.
        size: bytes of each transfer.
        prefix: what to write before the command, as of :func:`benchmarks.alone.prefix`.
        contact: file that says how to reach one that runs already; None starts one.
        limit: seconds after which it is ended, with all that it has started.
        quote: whether the prefix wants the command as one word for a shell, as ssh does.
    """
    with tempfile.TemporaryDirectory(prefix="ipmpi-benchmark-", ignore_cleanup_errors=True) as folder:
        out, output = Path(folder, "measured"), Path(folder, "output")
        words = ["benchmarks.turn", name, *keys, "-n", str(engines), "--size", str(size), "--out", str(out)]
        words += ["--since", str(time.monotonic()), *(["--contact", str(contact)] if contact else [])]
        try:
            argv, extra = _command(entry, engines, words, as_root=bool(prefix) or os.geteuid() == 0)
        except LauncherError as error:
            return Turn(why=str(error))
        environ = {**extra, **os.environ, "IPYTHONDIR": folder, MARK: folder}
        code = _run([*prefix, *([shlex.join(argv)] if quote else argv)], environ, output, out, limit)
        how = f"gave up after {limit:g} s" if code is None else f"ended with exit code {code}"
        lines = out.read_text().splitlines() if out.exists() else []
        return turn_of(lines, how, tail(output, 6))


def python_path() -> str:
    """``PYTHONPATH`` for a process that measures, so that all it starts finds this checkout first: also turns."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))


def _command(entry: Entry, engines: int, words: list[str], as_root: bool) -> tuple[list[str], dict[str, str]]:
    if not entry.under_mpi:
        return [sys.executable, "-m", *words], {}
    program = [sys.executable, "-m", "mpi4py.futures", "-m", *words]
    # One rank more: the first one is the client.
    return mpi_command(engines + 1, program=program, root=as_root, single_host=True)


def _run(argv: list[str], environ: dict[str, str], output: Path, out: Path, limit: float) -> int | None:
    """The exit code; None if it had to be ended."""
    with output.open("wb") as stream:
        process = subprocess.Popen(
            argv, env=environ, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    end = time.monotonic() + limit
    closing = False
    try:
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.25)
            if not closing and out.exists() and '"end"' in out.read_text():
                closing, end = True, min(end, time.monotonic() + CLOSING)
        return process.poll()
    finally:
        if process.poll() is None:
            process.terminate()  # mpiexec ends its ranks then
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        _end_the_rest(f"{MARK}={environ[MARK]}")
        process.wait()


def _end_the_rest(mark: str) -> None:
    """End all processes with this in their environment, also those that they start meanwhile."""
    end = time.monotonic() + 10
    while (folders := with_mark(mark)) and time.monotonic() < end:
        for folder in folders:
            with contextlib.suppress(OSError):  # it may end in this moment
                os.kill(int(folder.name), signal.SIGKILL)
        time.sleep(0.02)
