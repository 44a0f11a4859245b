"""The journal that ``ipcontroller --journal`` names."""

from __future__ import annotations

from pathlib import Path

from ..environment.filesystems import mounts, network_type
from ..errors import ControllerStartError
from ..journal.store import Journal


def open_journal(name: str, ports: int) -> Journal | None:
    """Open the journal, None if there shall be none.

    Args:
        name: the value of ``--journal``.
        ports: 0 unless both ports are fixed.

    Raises:
        ControllerStartError: it is of no use, cannot be trusted to the file system, or another controller has it.
        JournalDamaged, JournalFull, SecurityError, FurlError: see :class:`ipmpi.journal.store.Journal`.
    """
    if name == "none":
        return None
    path = Path(name).expanduser()
    if not ports:
        raise ControllerStartError(
            f"--journal {name} needs --client-port and --engine-port: otherwise furls are new at each start, and "
            "nobody could come back for what the journal keeps"
        )
    kind = network_type(path.parent.resolve(), mounts())
    if kind:
        raise ControllerStartError(
            f"--journal {name} is on a network file system ({kind}), which may lose what was written, or let two "
            "controllers write at once. Give a file on a disk of this machine, such as /var/tmp/NAME.journal"
        )
    return Journal(path)
