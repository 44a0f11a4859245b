"""A writable log folder for compute nodes: in the folder of submission, if home folders may be read-only.

Sites that mount home folders read-only on compute nodes have users submit jobs from another file system. So log
files go to the folder of submission if it is on another network file system than ``~/.ipython``. Local file
systems such as ``/tmp`` are not shared with compute nodes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ...environment import filesystems
from ...environment.filesystems import mounts as mounts

FOLDER: Final = "ipmpi-log"
"""Name of the log folder in the folder of submission."""


def log_folder(submission: Path, home: Path, mountinfo: str) -> Path | None:
    """Return a folder for log files below the one of submission; None if that of ``home`` can be used.

    Args:
        submission: the folder in which the job is submitted.
        home: ``~/.ipython``, which need not exist.
        mountinfo: the contents of ``/proc/self/mountinfo``.
    """
    own, other = filesystems.device(home), filesystems.device(submission)
    if own == other or not filesystems.network_type(submission, mountinfo):
        return None
    return submission / FOLDER if os.access(submission, os.W_OK) else None
