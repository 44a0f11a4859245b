"""Clients that do not read their replies, or do not send, while others wait for the engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from .. import limits
from ..ids import Ids
from ..protocol import messages as m
from ..transport.loop import Loop, Timer
from .commands.router import Router
from .farm.farm import Farm
from .sessions import PeerSession

_LOOK = 0.5
"""Seconds between checks whether a stalled client is active again; none without stalled clients."""


class Stalled:
    """The stalled clients: they get no further large replies, and their tasks wait, until they are active again.

    Args:
        sessions: the sessions by number.
        changed: called when tasks may be given again.
    """

    def __init__(
        self,
        loop: Loop,
        router: Router,
        farm: Farm,
        sessions: dict[int, PeerSession],
        log: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._router = router
        self._farm = farm
        self._sessions = sessions
        self._log = log
        self._changed = changed
        self._since: dict[int, float] = {}
        self._asked: dict[int, float] = {}
        self._listening: Timer | None = None

    def look_for_silent_senders(self) -> None:
        """Check, for a new command, whether it waits behind one whose data do not arrive.

        The senders are pinged, and checked again while commands wait for them.
        """
        if self._listening is None:
            self._listen_to_senders()

    def _listen_to_senders(self) -> None:
        self._listening = None
        now, in_the_way = self._loop.now(), self._router.held_up()
        self._asked = {client: since for client, since in self._asked.items() if client in in_the_way}
        for client, work in in_the_way.items():
            session = self._sessions.get(client)
            heard_at = -math.inf if session is None or session.link is None else session.link.heard_at
            since = self._asked.get(client)
            if since is None or since <= heard_at:
                self._asked[client] = now
                if session is not None:
                    session.connection.ping()
                    session.wake()
            elif now - since >= limits.SENDER_SILENT:
                self._log(f"client {client} does not send, and others wait: {work.label} is deferred")
                self._router.give_way(work)
                self._changed()
        if in_the_way:
            self._listening = self._loop.call_later(limits.SENDER_SILENT / 3, self._listen_to_senders)

    def __contains__(self, client: int) -> bool:
        if client in self._since:
            self._listen(client)
        return client in self._since

    def stuck(self, key: int, message: m.AnswerStuck) -> None:
        """An engine cannot send a reply, since the client does not read it."""
        about_command = bool(message.id)
        client = (
            self._router.stuck(key, message, self._others_have_tasks)
            if about_command
            else self._farm.large.stuck(key, message, self._others_wait)
        )
        if client and client not in self._since:
            if not self._since:
                self._loop.call_later(_LOOK, self._look)
            self._since[client] = self._loop.now()
            self._farm.pause(client)
            self._log(f"client {client} does not read a reply that others wait behind: it is dropped")

    def _others_have_tasks(self, engine: int, client: int) -> bool:
        found = self._router.registry.engines.get(engine)
        return found is not None and self._farm.has_tasks_of_others(found.set_key, client)

    def _others_wait(self, engine: int, client: int) -> bool:
        there = engine in self._router.registry.engines
        return there and (
            self._router.is_wanted_by_others(engine, client) or self._others_have_tasks(engine, client)
        )

    def _listen(self, client: int) -> None:
        """Check whether a client is active again, or disconnected."""
        session = self._sessions.get(client)
        if session is None or (session.link is not None and session.link.heard_at > self._since[client]):
            del self._since[client]
            self._farm.resume(client)
            self._log(f"client {client} is active again")
            self._changed()

    def _look(self) -> None:
        for client in list(self._since):
            self._listen(client)
        if self._since:
            self._loop.call_later(_LOOK, self._look)

    def queue_status(self, targets: Iterable[int] | None) -> list[list[object]]:
        """See :class:`ipmpi.protocol.messages.QueueStatus`."""
        now = self._loop.now()
        held = self._who_holds()
        found: list[list[object]] = []
        for part, runs, waiting in self._router.queue_status(targets):
            since = self._router.busy_since(part[0])
            seconds = None if since is None else max(0.0, now - since)
            free = Ids.of(engine for engine in part if engine not in held) if held else Ids.of(part)
            found += [[free, runs, waiting, [], seconds]] * bool(free)
            found += [[Ids.of([e]), runs, waiting, held[e], seconds] for e in part if e in held]
        return found

    def _who_holds(self) -> dict[int, list[str]]:
        """Return the replies that engines are sending, with their requests and clients, by engine."""
        found: dict[int, list[str]] = {}
        for passing in (self._router.passing(), self._farm.large.passing()):
            for engine, replies in passing.items():
                found.setdefault(engine, []).extend(self._described(*reply) for reply in replies)
        return found

    def _described(self, label: str, client: int) -> str:
        session = self._sessions.get(client)
        where = "" if session is None else f" at {session.peer}"
        return f"{label} to {'client' if session is None else session.role} {client}{where}"
