"""News about a controller that is not a process of ours (layer L5)."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ipmpi.client import MultiEngineClient
from ipmpi.errors import KernelError
from ipmpi.launch.controller import Told

LOOK: Final = 1.0
"""Seconds between looks for the furl file, which comes by a shared file system."""

COUNT_FIRST: Final = 0.25
COUNT_STARTING: Final = 2.0
COUNT_LONGEST: Final = 15.0
"""Seconds between questions to the controller for the number of engines: at first, at the most as long as some are
missing, and at the most when all are there. Twice as long each time in which nothing has changed."""


class Watched(Told):
    """A thread looks for the furl file of a controller, connects, and counts engines.

    Args:
        furl_files: where the controller has written, or will write, its furls: role to path.
        may_look: whether the furl file can be the right one by now.
        n: how many engines are expected.
        only_new: engines that are there at first do not count, and with the controller all is over. Else it is the
            job that tells when all is over.
    """

    def __init__(
        self, furl_files: dict[str, str], may_look: Callable[[Path], bool], n: int, *, only_new: bool
    ) -> None:
        super().__init__()
        self._n = n
        self._lock = threading.Lock()
        self._files = furl_files
        self._may_look = may_look
        self._only_new = only_new
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="ipcluster-watch", daemon=True).start()

    def close(self) -> None:
        """No more news."""
        with self._lock:  # else the thread might write to what has this number by then
            self._closed.set()
            super().close()

    def _watch(self) -> None:
        path = Path(self._files["mec"])
        pause = 0.0
        while not self._closed.wait(pause):
            pause = LOOK
            if not self._may_look(path):
                continue
            try:
                mec = MultiEngineClient(str(path))
            except (KernelError, ValueError, OSError):
                continue  # not there yet; for how long to wait is decided elsewhere
            with mec, contextlib.suppress(KernelError, OSError):  # until the controller is gone
                before = len(mec.get_ids()) if self._only_new else 0
                names = {"mec": "multiengine", "tc": "task"}
                self._tell({f"{names.get(role, role)}_furl_file": file for role, file in self._files.items()})
                self._count(mec, before)
            self._tell({"ended": 0} if self._only_new else {"engines": 0})
            if self._only_new:
                return

    def _count(self, mec: MultiEngineClient, before: int) -> None:
        known, pause = 0, COUNT_FIRST
        while not self._closed.wait(pause):
            engines = max(0, len(mec.get_ids()) - before)
            pause = next_pause(pause, changed=engines != known, complete=engines >= self._n)
            if engines != known:
                self._tell({"engines": engines})
                known = engines

    def _tell(self, what: dict[str, object]) -> None:
        with self._lock:
            if not self._closed.is_set():
                os.write(self._write_end, json.dumps(what).encode() + b"\n")


def next_pause(pause: float, *, changed: bool, complete: bool) -> float:
    """Seconds until the engines are counted again."""
    if changed and not complete:
        return COUNT_FIRST
    return min(2 * pause, COUNT_LONGEST if complete else COUNT_STARTING)
