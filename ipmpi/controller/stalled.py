"""Clients that take nothing of their answers, although others wait for the engines (layer L4)."""

from __future__ import annotations

from collections.abc import Callable

from ..protocol import messages as m
from ..transport.loop import Loop
from .farm import Farm
from .router import Router
from .sessions import Session

_LOOK = 0.5
"""Seconds between looks whether a client is heard again. There are such looks only while a client is stalled."""


class Stalled:
    """Which clients are: they get no further large answers, and their tasks wait, until they are heard again.

    Args:
        sessions: by number.
        changed: called when tasks may be given again.
    """

    def __init__(
        self,
        loop: Loop,
        router: Router,
        farm: Farm,
        sessions: dict[int, Session],
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

    def __contains__(self, client: int) -> bool:
        if client in self._since:
            self._listen(client)
        return client in self._since

    def stuck(self, key: int, message: m.AnswerStuck) -> None:
        """An engine cannot get rid of an answer."""
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
            self._log(f"client {client} takes nothing of an answer that others wait behind: it is given up")

    def _others_have_tasks(self, engine: int, client: int) -> bool:
        found = self._router.registry.engines.get(engine)
        return found is not None and self._farm.has_tasks_of_others(found.set_key, client)

    def _others_wait(self, engine: int, client: int) -> bool:
        there = engine in self._router.registry.engines
        return there and (
            self._router.is_wanted_by_others(engine, client) or self._others_have_tasks(engine, client)
        )

    def _listen(self, client: int) -> None:
        """See whether a client has been heard again, or is gone."""
        session = self._sessions.get(client)
        if session is None or (session.link is not None and session.link.heard_at > self._since[client]):
            del self._since[client]
            self._farm.resume(client)
            self._log(f"client {client} is heard again")
            self._changed()

    def _look(self) -> None:
        for client in list(self._since):
            self._listen(client)
        if self._since:
            self._loop.call_later(_LOOK, self._look)

    def who_holds(self, engine: int) -> list[str]:
        """Answers of an engine that are on their way: what was asked, and to whom they go."""
        both = [self._router.passing(), self._farm.large.passing()]
        found = []
        for label, client in [item for passing in both for item in passing.get(engine, ())]:
            session = self._sessions.get(client)
            where = "" if session is None else f" at {session.peer}"
            found.append(f"{label} to {'client' if session is None else session.role} {client}{where}")
        return found
