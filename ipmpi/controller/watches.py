"""Which clients want what programs tell in watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import limits
from ..errors import Backpressure
from ..protocol import messages as m
from .sessions import PeerSession


class Watches:
    """The subscriptions.

    Args:
        sessions: all sessions by key.
        send: sends a message to a session.
        requests, reports: what handles the messages of clients and of engine sets; ours are added.
    """

    def __init__(
        self,
        sessions: Mapping[int, PeerSession],
        send: Callable[[int, m.AnyMessage], None],
        requests: dict[type[m.Message], Callable[[PeerSession, Any], Any]],
        reports: dict[type[m.Message], Callable[[int, Any], object]],
    ) -> None:
        requests[m.Subscribe], requests[m.Unsubscribe] = self.subscribe, self.unsubscribe
        reports[m.Watched] = self.watched
        self._sessions = sessions
        self._send = send
        self._clients: dict[int, set[int]] = {}

    def subscribe(self, session: PeerSession, message: m.Subscribe) -> None:
        """A client wants what is told in this watch."""
        if len(self._clients) >= limits.WATCHES and message.watch not in self._clients:
            raise Backpressure(
                f"this controller passes on {limits.WATCHES} watches at most: end some of them (watch.stop())"
            )
        self._clients.setdefault(message.watch, set()).add(session.key)

    def unsubscribe(self, session: PeerSession, message: m.Unsubscribe) -> None:
        """A client does not want it any more."""
        self._drop(session.key, message.watch)

    def client_lost(self, key: int) -> None:
        """A client is gone."""
        for watch in list(self._clients):
            self._drop(key, watch)

    def _drop(self, key: int, watch: int) -> None:
        clients = self._clients.get(watch)
        if clients is not None:
            clients.discard(key)
            if not clients:
                del self._clients[watch]

    def watched(self, key: int, message: m.Watched) -> None:
        """A program tells values: pass them on, except to those who have not read what they have got."""
        clients = self._clients.get(message.watch)
        if clients is None:
            self._send(key, m.Unwatch(message.watch))
            return
        for client in clients:
            session = self._sessions.get(client)
            if session is not None and session.connection.control_backlog <= limits.WATCH_BACKLOG:
                self._send(client, message)
