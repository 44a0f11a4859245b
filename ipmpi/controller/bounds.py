"""How much of the controller each role may take up."""

from __future__ import annotations

from typing import Final, NamedTuple

from .. import limits
from ..protocol import messages as m
from ..protocol.permissions import Table


class Bounds(NamedTuple):
    """Of one role.

    Attributes:
        sessions: how many there may be.
        backlog: bytes that may wait for one that does not read; more end its session.
        unacknowledged: bytes that may be sent to one without being acknowledged.
    """

    sessions: int
    backlog: float
    unacknowledged: int


ENGINES: Final = Bounds(limits.MAX_ENGINES, float("inf"), limits.UNACKNOWLEDGED)
CLIENTS: Final = Bounds(limits.CLIENT_SESSIONS, limits.CLIENT_BACKLOG, limits.UNACKNOWLEDGED)
OBSERVERS: Final = Bounds(limits.OBSERVER_SESSIONS, limits.OBSERVER_BACKLOG, limits.OBSERVER_UNACKNOWLEDGED)


def is_observer(receives: Table) -> bool:
    """Whether a role with these messages can only look: nothing waits or runs for it."""
    return not receives & {m.Command, m.SubmitTasks}


def bounds_of(role: str, receives: Table) -> Bounds:
    """What a role may take up."""
    if role == "engine":
        return ENGINES
    return OBSERVERS if is_observer(receives) else CLIENTS
