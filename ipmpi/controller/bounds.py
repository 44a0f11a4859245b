"""Limits on the controller's resources for each role."""

from __future__ import annotations

from typing import Final, NamedTuple

from .. import limits
from ..protocol import messages as m
from ..protocol.permissions import Table


class Bounds(NamedTuple):
    """The limits of one role.

    Attributes:
        sessions: number of sessions.
        backlog: bytes that may be queued for a peer that does not read; more end its session.
        unacknowledged: bytes that may be sent without being acknowledged.
    """

    sessions: int
    backlog: float
    unacknowledged: int


ENGINES: Final = Bounds(limits.MAX_ENGINES, float("inf"), limits.UNACKNOWLEDGED)
CLIENTS: Final = Bounds(limits.CLIENT_SESSIONS, limits.CLIENT_BACKLOG, limits.UNACKNOWLEDGED)
OBSERVERS: Final = Bounds(limits.OBSERVER_SESSIONS, limits.OBSERVER_BACKLOG, limits.OBSERVER_UNACKNOWLEDGED)


def is_observer(receives: Table) -> bool:
    """Return whether a role with these messages can only observe, so that no work depends on it."""
    return not receives & {m.Command, m.SubmitTasks}


def bounds_of(role: str, receives: Table) -> Bounds:
    """Return the limits of a role."""
    if role == "engine":
        return ENGINES
    return OBSERVERS if is_observer(receives) else CLIENTS
