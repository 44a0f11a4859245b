"""The history of commands, with the clock and the sessions of the controller."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ..protocol import messages as m
from ..transport.loop import Loop
from .commands.history import CommandHistory
from .namedtasks import holder_of
from .sessions import PeerSession


class ClientHistory:
    """Says who is there, and when those that are not were heard of last."""

    def __init__(self, loop: Loop, history: CommandHistory, sessions: Mapping[int, PeerSession]) -> None:
        self._loop = loop
        self._history = history
        self._sessions = sessions

    def began(self, session: PeerSession) -> None:
        """A client's session has begun."""
        self._history.came(session.key, holder_of(session.role, session.holder))

    def told(self, key: int, message: m.CommandOrigin | m.FollowCommand) -> None:
        """A client says who it is, or wants to hear of a command; raises ClientError."""
        if isinstance(message, m.CommandOrigin):
            self._history.origin(key, message)
        else:
            self._history.follow(key, message)

    def listed(self, session: PeerSession, message: m.CommandHistory) -> dict[str, Any]:
        """Return the commands of all who hold the furl of this client."""
        now = self._loop.now()
        others = [each for each in self._sessions.values() if each.role != "engine"]
        away = [(each.key, heard) for each in others if (heard := each.away_since(now)) is not None]
        return self._history.listed(session.key, message, [(key, self.wall(heard)) for key, heard in away])

    def wall(self, when: float) -> float:
        """Return a time of the loop's clock in seconds since 1970."""
        return time.time() - (self._loop.now() - when)
