"""The folder of one launch of engines, by which its parts and whoever starts it again agree.

It has a file for each agent with a link to the controller, with the ids of its engines, as long as they are to
be started again when they end. The file :data:`ASKED` says that they end for that, and why. Before the next
start, the folder is renamed, and the new engines look there for their ids. Job scripts do in the shell what is
done here.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Final

BEFORE: Final = ".before"
"""Suffix of the folder of the previous start."""

ASKED: Final = "asked"
"""Name of the file that says that they end to be started again, and why."""


def begin(folder: Path) -> None:
    """Set the folder of the previous start aside, if there is one."""
    before = _before(folder)
    shutil.rmtree(before, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rename(before)


def asked(folder: Path) -> str:
    """Return why these engines end to be started again, as a clause; "" if they do not."""
    try:
        return (folder / ASKED).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def remove(folder: Path) -> None:
    """Remove it: nothing is started again."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(_before(folder), ignore_errors=True)


def _before(folder: Path) -> Path:
    return folder.with_name(folder.name + BEFORE)
