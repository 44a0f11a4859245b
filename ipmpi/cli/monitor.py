"""Events of a controller that is not our child process."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ipmpi.client.session.connecting import connect
from ipmpi.client.session.presence import Presence
from ipmpi.client.session.session import Session
from ipmpi.errors import KernelError
from ipmpi.launch.cluster.controller import EventReader
from ipmpi.launch.cluster.controllerends import RETURN
from ipmpi.launch.cluster.happenings import RunsOn
from ipmpi.launch.cluster.owncount import OwnCount

LOOK: Final = 1.0
"""Seconds between checks for the furl file, which appears on a shared file system, and between attempts to reach a
controller that was killed."""


class MonitoredController(EventReader):
    """Waits in a thread for the furl file of a controller, connects, and reports changes of the number of engines.

    The controller tells every client which engines come and go, so nothing is asked. The furl is that of monitors,
    which may only look. A controller that was killed may be started again: for some time, it is looked for.

    Args:
        furl_files: the present or future furl files of the controller, by role.
        may_look: returns whether the furl file can be the right one by now.
        only_new: ignore engines that are registered at first, and report the end of the controller. Else the end
            of the job is reported elsewhere.
        tell_nodes: tells the controller on which machines our engines run; it may take a while.
    """

    def __init__(
        self,
        furl_files: dict[str, str],
        may_look: Callable[[Path], bool],
        *,
        only_new: bool,
        tell_nodes: Callable[[tuple[str, ...]], object] | None = None,
    ) -> None:
        super().__init__()
        self._files = furl_files
        self._role = "monitor" if "monitor" in furl_files else "mec"
        self._may_look = may_look
        self._only_new = only_new
        self._tell_nodes = tell_nodes
        self._engines = OwnCount()
        self._told: tuple[str, ...] = ()
        """The nodes that the controller was told last, or is to be told."""
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

    def runs_on(self, where: RunsOn) -> None:
        """Tell the controller where our engines run; in a thread, as it may be away."""
        if self._tell_nodes is not None and where.nodes:
            threading.Thread(target=self._tell_where, args=(self._tell_nodes, where.nodes), daemon=True).start()

    def _tell_where(self, tell: Callable[[tuple[str, ...]], object], nodes: tuple[str, ...]) -> None:
        self._told = nodes
        while self._told is nodes and not self._closed.is_set():
            try:
                tell(nodes)
            except (KernelError, ValueError, OSError):
                self._closed.wait(LOOK)  # the controller is being started again
            else:
                return

    def _watch(self) -> None:
        pause = 0.0
        given_up_at = float("inf")
        while not self._closed.wait(pause) and time.monotonic() < given_up_at:
            pause = LOOK
            session = self._connected()
            if session is None:
                continue  # not there yet; the timeout is elsewhere
            try:
                if self._only_new:
                    self._engines.others_are(session.presence.ids)
                names = {"mec": "multiengine", "tc": "task"}
                self._tell({f"{names.get(role, role)}_furl_file": file for role, file in self._files.items()})
                self._count(session.presence)
            finally:
                session.close()
            if not self._only_new:
                self._tell({"engines": 0})
                self._engines = OwnCount()
            elif session.was_dismissed:
                break
            else:
                self._engines.controller_is_away()
                given_up_at = time.monotonic() + RETURN
        if self._only_new:
            self._tell({"ended": 0})

    def _connected(self) -> Session | None:
        path = Path(self._files[self._role])
        try:
            return connect(path, self._role) if self._may_look(path) else None
        except (KernelError, ValueError, OSError):
            return None

    def _count(self, presence: Presence) -> None:
        """Report the number of engines whenever it changes, until the controller or this object ends."""
        engines, restarts = self._engines, 0
        if engines.waits_until:
            engines.controller_is_back(time.monotonic())
        self._presence = presence
        found = presence.others_than(None)
        while found is not None and not self._closed.is_set():
            ids, now = found[0], time.monotonic()
            if found[1] != restarts:
                restarts = found[1]
                engines.controller_is_back(now)
            count = engines.are(ids, now)
            if count is not None:
                self._tell({"engines": count})
            rest = engines.waits_until - now
            found = presence.others_than(ids, rest if rest > 0 else None)

    def _tell(self, what: dict[str, object]) -> None:
        with self._lock, contextlib.suppress(OSError):
            if not self._closed.is_set():
                os.write(self._write_end, json.dumps(what).encode() + b"\n")
