"""Where the journal of a cluster is, unless another place is given."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from ..environment.filesystems import mounts, network_type
from ..journal.files import files
from ..launch.cluster.records import default_journal
from . import argtypes
from .localdisk import NONE, local_place


class JournalChoice(NamedTuple):
    """The journal of a cluster: its file, or None; and a line for the user, or ""."""

    path: Path | None
    note: str = ""


def add_journal_option(p: argparse.ArgumentParser) -> None:
    """Add the option of commands that start a controller."""
    p.add_argument(
        "--journal", type=argtypes.path_name, default="", metavar="FILE",
        help="keep tasks, their results and sessions in this file on a local disk, so that a controller that is "
        "killed can be started again; none: no file (default: in ~/.ipython/security/NAME, if that is on a local "
        "disk)",
    )  # fmt: skip


def chosen(given: str, name: str, *, is_new: bool) -> JournalChoice:
    """Choose the journal of a cluster whose controller runs on this machine.

    Args:
        given: the value of ``--journal``; "" if there is none.
        name: the cluster's name.
        is_new: its furls will be new, so nobody can come back for what an old journal in its folder has: that is
            set aside.

    Raises:
        ControllerStartError: the given file is on a network file system.
    """
    if given == NONE:
        return JournalChoice(None)
    if given:
        return JournalChoice(local_place(given).absolute())
    path = default_journal(name)
    kind = network_type(path.parent, mounts())
    if kind:
        return JournalChoice(
            None,
            f"{path.parent} is on a network file system ({kind}), so there is no journal: tasks and commands are "
            f"lost if the controller is killed. To have one: --journal /var/tmp/{name}.journal",
        )
    return JournalChoice(path, _set_aside(path) if is_new else "")


def _set_aside(path: Path) -> str:
    """Rename the journal of a controller that was killed; return a line that says so, or ""."""
    if not path.exists():
        return ""
    aside = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    for old, new in zip(files(path), files(aside), strict=True):
        with contextlib.suppress(FileNotFoundError):
            old.rename(new)
    return f"the last controller of this name was killed, with its furls; its journal was kept as {aside}"
