"""Reading the log files of a cluster or a job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ipmpi.launch.processes.process import tail

from .check_ranks import LOOKED_AT, LogFacts, Loss, parse_losses, understand_log

BEGINNING: Final = 4096
"""Bytes at the beginning of a log, which contain the rank."""
ACCOUNT: Final = 4 << 20
"""Bytes at the end of a controller's log to search for losses."""
MOST: Final = 2000
"""Most log files to read."""


def read_logs(paths: Iterable[Path]) -> list[LogFacts]:
    """Return the facts about each readable log."""
    found = []
    for path in list(paths)[:MOST]:
        try:
            with path.open("rb") as file:
                beginning = file.read(BEGINNING).decode(errors="replace")
        except OSError:
            continue
        found.append(understand_log(str(path), _kind(path.name), beginning, tail(path, LOOKED_AT)))
    return found


def read_losses(logs: Iterable[LogFacts]) -> list[Loss]:
    """Return the engines that were lost, by the controller's log."""
    found = []
    for log in logs:
        if log.kind == "controller":
            with contextlib.suppress(OSError), open(log.path, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - ACCOUNT))
                found += parse_losses(file.read().decode(errors="replace"))
    return found


def _kind(name: str) -> str:
    for kind in ("engine", "controller"):
        if name.startswith(f"ip{kind}"):
            return kind
    return "output"
