"""The files of a journal."""

from __future__ import annotations

from pathlib import Path


def files(path: Path) -> list[Path]:
    """Return all files of which the journal at ``path`` may consist; those of SQLite come and go."""
    return [path.with_name(f"{path.name}{end}") for end in ("", "-wal", "-shm", "-journal", "-head")]


def remove(path: Path) -> None:
    """Delete a journal; OSError if that is impossible."""
    for each in files(path):
        each.unlink(missing_ok=True)
