"""Watching a program that is steered with a furl that permits nothing else."""

from __future__ import annotations

import functools
import os
import time
from types import TracebackType
from typing import Any

from ...errors import EngineLost
from ...protocol import messages
from ...transport.ssh.ssh import SshSession
from ..session import given
from ..session.calls import Calls
from ..session.clusterinfo import cluster_info
from ..session.connecting import close_when_unreferenced, connect
from ..session.ownframes import all_raise_at_call
from . import programs
from .watching import Watch, checked, open_watch


@all_raise_at_call
class ProgramMonitor:
    """Shows published numbers of a program that is steered, to those who have the furl of monitors only.

    It cannot pause the program, change it, or run anything in it. What it may watch is what the program has given
    to ``s.publish``: numbers and arrays of NumPy.

    Args:
        furl_or_file, name, ssh, proxy: as of :class:`MultiEngineClient`; by default, the furl of monitors.
        program: the name of the program, if there are several.
        timeout: seconds to wait for it, if it is not there yet.

    Attributes:
        program: the name of the program.

    Thread-safety: all methods may be called from any thread.

    Raises:
        ClientError: no such program is attached to the controller, or several are.
    """

    def __init__(
        self,
        furl_or_file: str | os.PathLike[str] = "",
        *,
        name: str = "",
        ssh: str | SshSession | None = None,
        proxy: str | None = None,
        program: str = "",
        timeout: float | None = None,
    ) -> None:
        given.text(program, "program=, the name of a program,", 255)
        limit = given.seconds(timeout, "timeout")
        self._session = connect(furl_or_file, "monitor", name=name, ssh=ssh, proxy=proxy)
        self._calls = Calls(self._session)
        try:
            self.program, self._ids = programs.find(self, program, time.monotonic() + (limit or 0.0))
        except BaseException:
            self._session.close()
            raise
        close_when_unreferenced(self._calls, self._session)

    def cluster_info(self) -> dict[str, Any]:
        """Return what the controller knows about its engines and clients; see :class:`MultiEngineClient`."""
        return cluster_info(self._calls, self)

    def watch(self, name: str, every: int = 1, reduce: str | None = None) -> Watch:
        """Watch a published value while the program runs; see :meth:`Simulation.watch`.

        Raises:
            ClientError: the program has published no such value on all ranks, or it is neither a number nor an
                array of NumPy.
            Backpressure: monitors have as many watches as they may have: 8 each, and 32 together.
            EngineLost: the program has ended, or some of its ranks.
        """
        asked = checked(name, every, reduce)
        if self.has_ended:
            raise EngineLost(f"the program {self.program} has ended, or some of its ranks have left it")
        watch = open_watch(self._session, name, self._ids)
        begin = functools.partial(
            messages.WatchPublished, engine=self._ids[0], watch=watch.number, name=asked.name, every=asked.every,
            reduce=asked.reduce,
        )  # fmt: skip
        try:
            self._calls.request(self, begin, lambda reply: reply, True, "watch")
            watch.wait_until_begun()
        except BaseException:
            watch.stop()
            raise
        return watch

    @property
    def has_ended(self) -> bool:
        """Whether the program is not steered any more, or not all of its ranks."""
        return not set(self._ids) <= set(self._calls.known())

    def __repr__(self) -> str:
        state = ": ended" if self.has_ended else f": {len(self._ids)} ranks"
        return f"<monitor of {self.program}{state}>"

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def __enter__(self) -> ProgramMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
