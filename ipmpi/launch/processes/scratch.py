"""A writable log folder for compute nodes: in the folder of submission, if home folders may be read-only.

Sites that mount home folders read-only on compute nodes have users submit jobs from another file system. So log
files go to the folder of submission if it is on another network file system than ``~/.ipython``. Local file
systems such as ``/tmp`` are not shared with compute nodes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NETWORK: Final = (
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "panfs", "ceph", "wekafs", "cifs", "afs", "dvs"),
    *("orangefs", "pvfs2", "fuse.glusterfs", "fuse.ceph", "fuse.juicefs"),
)
"""Types of network file systems."""

FOLDER: Final = "ipmpi-log"
"""Name of the log folder in the folder of submission."""


def log_folder(submission: Path, home: Path, mountinfo: str) -> Path | None:
    """Return a folder for log files below the one of submission; None if that of ``home`` can be used.

    Args:
        submission: the folder in which the job is submitted.
        home: ``~/.ipython``, which need not exist.
        mountinfo: the contents of ``/proc/self/mountinfo``.
    """
    own, other = _device(home), _device(submission)
    if own == other or _types(mountinfo).get(other) not in NETWORK or not os.access(submission, os.W_OK):
        return None
    return submission / FOLDER


def mounts() -> str:
    """Return the contents of ``/proc/self/mountinfo``; "" on other systems than Linux."""
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    except OSError:
        return ""


def _device(path: Path) -> str:
    """Return the device of a folder, or of its first existing parent: ``major:minor``."""
    there = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
    number = there.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def _types(mountinfo: str) -> dict[str, str]:
    """The type of each mounted file system."""
    found = {}
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if dash and len(fields) > 2 and after:
            found[fields[2]] = after.split()[0]
    return found
