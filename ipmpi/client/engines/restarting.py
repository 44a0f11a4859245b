"""Restarting engines: what ``mec.restart()`` does, and what ``mec.on_loss()`` has done."""

from __future__ import annotations

import time
from typing import NamedTuple

from ...errors import ClientError, EngineLost
from ...ids import Ids
from ...protocol import messages
from ...protocol.losses import LOSS_MODES
from ...ranges import engines_named
from ..session import given
from ..session.calls import Calls, ask
from .snapshots import Restored, Snapshots

START_WITHIN = 120.0
"""Seconds for engines to come again; ``ipcluster`` gives up after 60."""


class Restarted(NamedTuple):
    """What :meth:`MultiEngineClient.restart` has done.

    Attributes:
        engines: the ids of the engines that were restarted, ascending.
        seconds: how long that took.
        restored: what was restored of their namespaces; None if there was no snapshot, or it was not to be.
    """

    engines: list[int]
    seconds: float
    restored: Restored | None = None

    def __str__(self) -> str:
        told = f"{engines_named(self.engines)} restarted in {self.seconds:.1f} s"
        return f"{told}; {self.restored or 'nothing is restored'}"

    def __repr__(self) -> str:
        return f"<{self}>"


def restart(
    calls: Calls, wanted: list[int] | None, timeout: float | None, snapshots: Snapshots | None
) -> Restarted:
    """Restart the launches of these engines, wait for them, and restore their last snapshot, if there is one.

    Raises:
        ClientError: nobody would start some of them again.
        EngineLost: some did not come again in time.
    """
    began = time.monotonic()
    session, patience = calls.session, START_WITHIN if timeout is None else timeout
    ids = list(Ids.unpacked(ask(session, lambda i: messages.Restart(i, wanted))))
    missing = session.presence.wait_for(ids, patience)
    if session.failure is not None:
        raise session.failure
    if missing:
        raise EngineLost(
            f"{engines_named(missing)} did not come again within {patience:g} s of the restart. They may "
            f"still: mec.wait_for_engines({len(ids)}) waits for them. `ipcluster explain` says why they do not"
        )
    restored = None if snapshots is None else snapshots.restore(ids)
    return Restarted(ids, time.monotonic() - began, restored)


def loss_mode(value: object) -> str:
    """Check and return what is to become of engines when one is lost; "" for None, a question.

    Raises:
        ClientError: it is nothing that is possible.
    """
    if value is None:
        return ""
    if isinstance(value, str) and value in LOSS_MODES:
        return value
    raise ClientError(
        "on_loss must be 'shrink' (when an engine dies, the others go on, if their launcher lets them), 'abort' "
        "(they end, too), 'restart' (all are started again) or None (only tell what is chosen), not "
        f"{given.shown(value)}"
    )
