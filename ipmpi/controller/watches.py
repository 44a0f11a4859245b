"""Which clients want what programs tell in watches; and the watches of monitors, which give no commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import limits
from ..errors import Backpressure, ClientError
from ..protocol import messages as m
from ..protocol.steering import MOST_STEPS, PUBLISHED_NAME, REDUCTIONS
from ..transport.loop import Loop
from .registry import Registry
from .sessions import PeerSession


class Watches:
    """The subscriptions.

    Args:
        registry: the engines.
        sessions: all sessions by key.
        send: sends a message to a session.
        requests, reports: what handles the messages of clients and of engine sets; ours are added.
    """

    def __init__(
        self,
        loop: Loop,
        registry: Registry,
        sessions: Mapping[int, PeerSession],
        send: Callable[[int, m.AnyMessage], None],
        requests: dict[type[m.Message], Callable[[PeerSession, Any], Any]],
        reports: dict[type[m.Message], Callable[[int, Any], object]],
    ) -> None:
        requests[m.Subscribe], requests[m.Unsubscribe] = self.subscribe, self.unsubscribe
        requests[m.WatchPublished] = self.watch_published
        reports[m.Watched] = self.watched
        self._loop = loop
        self._registry = registry
        self._sessions = sessions
        self._send = send
        self._clients: dict[int, set[int]] = {}
        self._of_monitors: dict[int, int] = {}
        """The watches that were begun for a session, and that session."""
        self._next_begin = 0.0

    def subscribe(self, session: PeerSession, message: m.Subscribe) -> None:
        """A client wants what is told in this watch."""
        self._subscribed(session, message.watch)

    def _subscribed(self, session: PeerSession, watch: int) -> None:
        if len(self._clients) >= limits.WATCHES and watch not in self._clients:
            raise Backpressure(
                f"this controller passes on {limits.WATCHES} watches at most: end some of them (watch.stop())"
            )
        self._clients.setdefault(watch, set()).add(session.key)

    def watch_published(self, session: PeerSession, message: m.WatchPublished) -> None:
        """A monitor wants to hear of a published value: have the program begin a watch, which it cannot by itself.

        So what a monitor can choose is this, and nothing that runs anything.

        Raises:
            ClientError, InvalidEngineID: it is no value of a program that is steered.
            Backpressure: there are as many watches of monitors as there may be.
        """
        ((program, _),) = self._registry.by_set(self._registry.resolve([message.engine])).items()
        if not self._registry.sets[program].program:
            raise ClientError(f"engine {message.engine} is not a rank of a program that is steered")
        if not (0 < len(message.name) <= PUBLISHED_NAME and 1 <= message.every <= MOST_STEPS):
            raise ClientError(
                f"a watch has a name of 1 to {PUBLISHED_NAME} characters, and tells once in 1 step or more"
            )
        if message.reduce not in ("", *REDUCTIONS):
            raise ClientError(f"reduce is one of {', '.join(REDUCTIONS)}, or empty")
        if message.watch in self._clients:
            raise ClientError("a watch with this number is there already")
        own = sum(1 for key in self._of_monitors.values() if key == session.key)
        if own >= limits.MONITOR_WATCHES or len(self._of_monitors) >= limits.MONITORS_WATCHES:
            raise Backpressure(
                f"a monitor may have {limits.MONITOR_WATCHES} watches at a time, and all of this controller "
                f"may have {limits.MONITORS_WATCHES}: end some of them (watch.stop())"
            )
        self._subscribed(session, message.watch)
        self._of_monitors[message.watch] = session.key
        begin = m.BeginWatch(message.watch, message.name, message.every, message.reduce)
        now = self._loop.now()
        at = max(now, self._next_begin)
        self._next_begin = at + limits.MONITOR_WATCH_INTERVAL
        self._loop.call_later(at - now, lambda: self._begin(program, begin))

    def _begin(self, program: int, message: m.BeginWatch) -> None:
        if message.watch in self._clients and program in self._sessions:
            self._send(program, message)

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
                self._of_monitors.pop(watch, None)

    def watched(self, key: int, message: m.Watched) -> None:
        """A program tells values: pass them on, except to those who have not read what they have got."""
        clients = self._clients.get(message.watch)
        if clients is None:
            if not message.problem:
                self._send(key, m.Unwatch(message.watch))
            return
        for client in clients:
            session = self._sessions.get(client)
            if session is not None and session.connection.control_backlog <= limits.WATCH_BACKLOG:
                self._send(client, message)
        if message.problem:
            for client in list(clients):
                self._drop(client, message.watch)
