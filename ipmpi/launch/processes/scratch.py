"""Where compute nodes can write: in the folder of submission, if home folders may be read-only.

Sites that mount home folders read-only on compute nodes have their users submit jobs from a file system that is
not. So a submission from another network file system than that of ``~/.ipython`` is a sign, and costs nothing
where it is none. A local file system, as ``/tmp``, is not the same one on a compute node.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NETWORK: Final = (
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "panfs", "ceph", "wekafs", "cifs", "afs", "dvs"),
    *("orangefs", "pvfs2", "fuse.glusterfs", "fuse.ceph", "fuse.juicefs"),
)
"""Types of file systems that many machines share."""

FOLDER: Final = "ipmpi-log"
"""Of log files, in the folder of submission."""


def log_folder(submission: Path, home: Path, mountinfo: str) -> Path | None:
    """A folder for log files below the one of submission; None if that of ``home`` will do.

    Args:
        submission: the folder in which the job is submitted.
        home: ``~/.ipython``, which need not be there yet.
        mountinfo: what Linux has in ``/proc/self/mountinfo``.
    """
    own, other = _device(home), _device(submission)
    if own == other or _types(mountinfo).get(other) not in NETWORK or not os.access(submission, os.W_OK):
        return None
    return submission / FOLDER


def mounts() -> str:
    """What is mounted on this machine; empty on systems that do not say so as Linux does."""
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    except OSError:
        return ""


def _device(path: Path) -> str:
    """The file system of a folder, or of the one that it would be made in: ``major:minor``."""
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
