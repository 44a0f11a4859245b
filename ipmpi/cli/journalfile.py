"""The journal that ``ipcontroller --journal`` names."""

from __future__ import annotations

import contextlib

from ..errors import ControllerStartError
from ..journal.files import history, remove
from ..journal.notefile import NoteFile
from ..journal.store import Journal
from .localdisk import NONE, local_place


def open_journal(name: str, ports: int) -> Journal | None:
    """Open the journal, None if there shall be none.

    Args:
        name: the value of ``--journal``.
        ports: 0 unless both ports are fixed, or found again.

    Raises:
        ControllerStartError: it is of no use, cannot be trusted to the file system, or another controller has it.
        JournalDamaged, JournalFull, SecurityError, FurlError: see :class:`ipmpi.journal.store.Journal`.
    """
    if name == NONE:
        return None
    if not ports:
        raise ControllerStartError(
            f"--journal {name} needs --client-port and --engine-port: otherwise furls are new at each start, and "
            "nobody could come back for what the journal keeps"
        )
    return Journal(local_place(name))


def open_history(journal: Journal) -> NoteFile:
    """Return the file with the history of commands beside a journal."""
    return NoteFile(history(journal.path))


def close_journal(journal: Journal, *, is_kept: bool) -> None:
    """Close a journal after an orderly end; unless it ``is_kept``, delete it if there is nothing in it."""
    journal.close()
    if journal.is_empty and not is_kept:
        with contextlib.suppress(OSError):  # an empty one does no harm
            remove(journal.path)
