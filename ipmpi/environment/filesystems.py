"""File systems of folders: which are shared between machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NETWORK: Final = (
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "panfs", "ceph", "wekafs", "cifs", "smb3", "afs"),
    *("dvs", "9p", "orangefs", "pvfs2", "fuse.glusterfs", "fuse.ceph", "fuse.juicefs", "fuse.sshfs"),
)
"""Types of network file systems, as in ``/proc/self/mountinfo``."""


def mounts() -> str:
    """Return the contents of ``/proc/self/mountinfo``; "" on other systems than Linux."""
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    except OSError:
        return ""


def device(path: Path) -> str:
    """Return the device of a folder, or of its first existing parent: ``major:minor``."""
    there = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
    number = there.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def network_type(folder: Path, mountinfo: str) -> str:
    """Return the type of a folder's network file system; "" if it is local.

    Args:
        folder: if it does not exist, that of its first existing parent counts.
        mountinfo: see :func:`mounts`.
    """
    found, kind = device(folder), ""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if dash and len(fields) > 2 and after and fields[2] == found:
            kind = after.split()[0]
    return kind if kind in NETWORK else ""
