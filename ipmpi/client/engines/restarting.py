"""Restarting engines: what ``mec.restart()`` does."""

from __future__ import annotations

import time
from typing import NamedTuple

from ...errors import EngineLost
from ...protocol import messages
from ...ranges import engines_named
from ..session.calls import Calls
from ..session.results import wait_until_done
from ..session.waiting import check_waiting

START_WITHIN = 120.0
"""Seconds for engines to come again; ``ipcluster`` gives up after 60."""


class Restarted(NamedTuple):
    """What :meth:`MultiEngineClient.restart` has done.

    Attributes:
        engines: the ids of the engines that were restarted, ascending.
        seconds: how long that took.
        restored: what was restored of their namespaces; None for nothing.
    """

    engines: list[int]
    seconds: float
    restored: object | None = None

    def __str__(self) -> str:
        told = f"{engines_named(self.engines)} restarted in {self.seconds:.1f} s"
        return told if self.restored is None else f"{told}; {self.restored}"

    def __repr__(self) -> str:
        return f"<{self}>"


def restart(calls: Calls, wanted: list[int] | None, timeout: float | None) -> Restarted:
    """Restart the launches of these engines, and wait for them.

    Raises:
        ClientError: nobody would start some of them again.
        EngineLost: some did not come again in time.
    """
    check_waiting()
    began = time.monotonic()
    session, patience = calls.session, START_WITHIN if timeout is None else timeout
    answer = session.request(lambda i: messages.Restart(i, wanted))
    wait_until_done(answer)
    ids = [int(engine) for engine in answer.result()]
    missing = session.presence.wait_for(ids, patience)
    if session.failure is not None:
        raise session.failure
    if missing:
        raise EngineLost(
            f"{engines_named(missing)} did not come again within {patience:g} s of the restart. They may still: "
            f"mec.wait_for_engines({len(ids)}) waits for them, and `ipcluster explain` says what keeps engines"
        )
    return Restarted(ids, time.monotonic() - began)
