"""Events of a controller that is not our child process."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ipmpi.client.session.connecting import connect
from ipmpi.client.session.presence import Presence
from ipmpi.errors import KernelError
from ipmpi.launch.cluster.controller import EventReader

LOOK: Final = 1.0
"""Seconds between checks for the furl file, which appears on a shared file system."""


class MonitoredController(EventReader):
    """Waits in a thread for the furl file of a controller, connects, and reports changes of the number of engines.

    Args:
        furl_files: the present or future furl files of the controller, by role.
        may_look: returns whether the furl file can be the right one by now.
        only_new: ignore engines that are registered at first, and report the end of the controller. Else the end
            of the job is reported elsewhere.
    """

    def __init__(self, furl_files: dict[str, str], may_look: Callable[[Path], bool], *, only_new: bool) -> None:
        super().__init__()
        self._files = furl_files
        self._may_look = may_look
        self._only_new = only_new
        self._closed = threading.Event()
        self._presence: Presence | None = None
        self._lock = threading.Lock()
        """Held while the pipe is written to or closed, since its descriptor may be reused."""
        os.set_blocking(self._write_end, False)
        threading.Thread(target=self._watch, name="ipcluster-watch", daemon=True).start()

    def close(self) -> None:
        """Stop reporting."""
        with self._lock:
            self._closed.set()
            super().close()
        if self._presence is not None:
            self._presence.end()

    def _watch(self) -> None:
        path = Path(self._files["mec"])
        pause = 0.0
        while not self._closed.wait(pause):
            pause = LOOK
            if not self._may_look(path):
                continue
            try:
                session = connect(path, "mec")
            except (KernelError, ValueError, OSError):
                continue  # not there yet; the timeout is elsewhere
            try:
                names = {"mec": "multiengine", "tc": "task"}
                self._tell({f"{names.get(role, role)}_furl_file": file for role, file in self._files.items()})
                self._count(session.presence)
            finally:
                session.close()
            self._tell({"ended": 0} if self._only_new else {"engines": 0})
            if self._only_new:
                return

    def _count(self, presence: Presence) -> None:
        """Report the number of engines whenever it changes, until the controller or this object ends."""
        ids = presence.ids
        before, told = len(ids) if self._only_new else 0, 0
        self._presence = presence
        while not self._closed.is_set():
            engines = max(0, len(ids) - before)
            if engines != told:
                self._tell({"engines": engines})
                told = engines
            others = presence.others_than(ids)
            if others is None:
                return
            ids = others

    def _tell(self, what: dict[str, object]) -> None:
        with self._lock, contextlib.suppress(OSError):
            if not self._closed.is_set():
                os.write(self._write_end, json.dumps(what).encode() + b"\n")
