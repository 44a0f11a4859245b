"""Output of an ``ipcluster`` that runs a cluster: text for users, and JSON for the parent program."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ipmpi.launch.processes.process import tail

LOG_LINES: Final = 15


class Reporter:
    """Writes sentences to the terminal, and the same and more as lines of JSON for programs.

    A line has ``say`` or ``complain`` (a text), or ``state``: ``submitted``, ``up`` or ``over``, with details.

    Args:
        status_fd: a pipe for these lines.
        events: a file for these lines, for later readers.
    """

    def __init__(self, status_fd: int | None = None, events: Path | None = None) -> None:
        self._descriptors = [] if status_fd is None else [status_fd]
        if events is not None:
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._descriptors.append(os.open(events, flags, 0o600))

    def say(self, text: str, *, only_here: bool = False) -> None:
        """Print a line; ``only_here``: it does not apply to users who reach this machine by ssh."""
        self.report(say=text, **({"only_here": True} if only_here else {}))
        with contextlib.suppress(OSError, ValueError):  # the terminal may be closed: SIGHUP is one way to stop
            print(text, flush=True)

    def complain(self, text: str, lines: Sequence[str] = ()) -> int:
        """Print an error; return an exit code."""
        whole = "\n".join([text, *lines])
        self.report(complain=whole)
        with contextlib.suppress(OSError, ValueError):
            print(f"ipcluster: {whole}", file=sys.stderr, flush=True)
        return 1

    def show_logs(self, logs: Sequence[Path], log_dir: Path) -> None:
        """Print the last lines of log files."""
        shown = False
        for path in logs:
            lines = tail(path, LOG_LINES)
            if lines:
                shown = True
                self.complain(f"The last lines of {path}:", [f"    {line}" for line in lines])
        full = why_not_written(log_dir)
        if full:
            self.complain(f"Log files cannot be written: {full}. What they should have told may be missing.")
        elif not shown:
            self.complain(f"It has written nothing to its log files in {log_dir}.")

    def report(self, **what: object) -> None:
        """Write a line of JSON for programs."""
        line = json.dumps(what).encode() + b"\n"
        for descriptor in list(self._descriptors):
            try:
                os.write(descriptor, line)
            except OSError:  # there is no reader any more
                self._descriptors.remove(descriptor)


def why_not_written(folder: Path) -> str:
    """Return why files cannot be written to a folder; "" if they can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return ""
