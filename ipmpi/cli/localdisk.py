"""A journal has to be on a disk of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..environment.filesystems import mounts, network_type
from ..errors import ControllerStartError

NONE: Final = "none"
"""The value of ``--journal`` for no journal."""


def local_place(name: str) -> Path:
    """Return the path of the journal that ``--journal`` names.

    Raises:
        ControllerStartError: it is on a network file system.
    """
    path = Path(name).expanduser()
    kind = network_type(path.parent.resolve(), mounts())
    if kind:
        raise ControllerStartError(
            f"--journal {name} is on a network file system ({kind}), which may lose what was written, or let two "
            "controllers write at once. Give a file on a disk of this machine, such as /var/tmp/NAME.journal"
        )
    return path
