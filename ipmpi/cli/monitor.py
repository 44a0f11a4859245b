"""News about a controller that is not a process of ours."""

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
"""Seconds between looks for the furl file, which comes by a shared file system."""


class MonitoredController(EventReader):
    """A thread looks for the furl file of a controller, connects, and hears which engines come and go.

    Args:
        furl_files: where the controller has written, or will write, its furls: role to path.
        may_look: whether the furl file can be the right one by now.
        only_new: engines that are there at first do not count, and with the controller all is over. Else it is the
            job that tells when all is over.
    """

    def __init__(self, furl_files: dict[str, str], may_look: Callable[[Path], bool], *, only_new: bool) -> None:
        super().__init__()
        self._files = furl_files
        self._may_look = may_look
        self._only_new = only_new
        self._closed = threading.Event()
        self._presence: Presence | None = None
        self._lock = threading.Lock()
        """Held while something is written, or the pipe closed: its number may be another file's right after."""
        os.set_blocking(self._write_end, False)
        threading.Thread(target=self._watch, name="ipcluster-watch", daemon=True).start()

    def close(self) -> None:
        """No more news."""
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
                continue  # not there yet; for how long to wait is decided elsewhere
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
        """Tell how many engines there are whenever that changes, until the controller is gone, or all is over."""
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
