"""The files of a journal, and of what is kept beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_HISTORY: Final = "-history"


def files(path: Path) -> list[Path]:
    """Return all files of which the journal at ``path`` may consist; those of SQLite come and go."""
    ends = ("", "-wal", "-shm", "-journal", "-head", _HISTORY, f"{_HISTORY}-new")
    return [path.with_name(f"{path.name}{end}") for end in ends]


def history(path: Path) -> Path:
    """Return the file with the history of commands that belongs to the journal at ``path``."""
    return path.with_name(f"{path.name}{_HISTORY}")


def remove(path: Path) -> None:
    """Delete a journal; OSError if that is impossible."""
    for each in files(path):
        each.unlink(missing_ok=True)
