"""The ids of an engine set, kept in files for its replacement.

If a launcher ends all ranks because one has died, the job script or ipcluster starts it again. The file says that
the set was registered, and which ids its engines had. It is removed when the set is told to end: then there is no
restart. When a client has asked for a restart, another file beside it says so.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ipmpi.launchfolder import ASKED, BEFORE

_CLAUSE: Final = 300
"""Characters of a reason that are kept."""


class IdsFile:
    """The file of one agent that has a link to the controller; a set has several if its nodes have no links.

    Args:
        folder: for the files of a set; "" for none.
        rank: the lowest rank of this part of the set.
    """

    def __init__(self, folder: str, rank: int) -> None:
        self._path = Path(folder) / str(rank) if folder else None

    def former(self) -> dict[int, int]:
        """Return the ids of the previous set by rank; empty if there was none, or they are unknown."""
        if self._path is None:
            return {}
        path = self._path.parent.with_name(self._path.parent.name + BEFORE) / self._path.name
        try:
            found = json.loads(path.read_text("ascii"))
            return {int(rank): int(number) for rank, number in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def keep(self, ids: Mapping[int, int]) -> None:
        """Write the ids of the registered set, by rank.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps({str(rank): ids[rank] for rank in sorted(ids)}), "ascii")
        unfinished.replace(self._path)

    @property
    def launch(self) -> str:
        """What the sets of one launch have in common; "" if nobody starts it again."""
        return "" if self._path is None else str(self._path.parent)

    def ask(self, reason: str) -> None:
        """Say that the set ends to be started again, and why, as a clause."""
        if self._path is not None:
            unfinished = self._path.with_name(f"{ASKED}.{os.getpid()}")
            with contextlib.suppress(OSError):  # then it counts as one after a failure
                unfinished.write_text(f"{' '.join(reason.split())[:_CLAUSE]}\n", "utf-8")
                unfinished.replace(self._path.with_name(ASKED))

    def remove(self) -> None:
        """Remove the file: the set was told to end."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
