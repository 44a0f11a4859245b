"""The history of commands, with the clock, the sessions and the file of the controller."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from ..journal.notefile import NoteFile
from ..protocol import messages as m
from ..quantities import sized
from ..transport.loop import Loop
from .commands.router import Router
from .effects import Effect
from .namedtasks import holder_of
from .sessions import PeerSession

GROWS: Final = 4 << 20
"""Bytes by which the file may grow, beyond twice of what is kept, until it is written anew."""

RETRY: Final = 30.0
"""Seconds after which it is tried again to write, if that has failed."""


class ClientHistory:
    """Says who is there, and when those that are not were heard of last; writes what is to outlive this process.

    Args:
        router: has the history.
        sessions: all sessions.
        log: called with lines for the log.
    """

    def __init__(
        self, loop: Loop, router: Router, sessions: Mapping[int, PeerSession], log: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._router = router
        self._history = router.history
        self._sessions = sessions
        self._log = log
        self._file: NoteFile | None = None
        self._most = 0
        """Bytes of the file from which it is written anew."""
        self._is_failing = False
        """Whether the last attempt to write has failed, and another one will be made."""

    # --- the file --------------------------------------------------------------------------------------------

    def keep_in(self, file: NoteFile) -> None:
        """Begin with what is in a file, and write there what is noted from now on.

        Raises:
            SecurityError: somebody else could have written it.
        """
        try:
            self._history.restore(file.read())
        except (msgspec.DecodeError, OSError) as error:
            self._log(f"the history of commands in {file.path} cannot be read to its end: {error}")
        self._file = file
        self._history.written()
        self._history.is_away = self._is_away
        self._write_whole(file)

    @property
    def clients(self) -> Collection[int]:
        """The numbers of clients that are in the history."""
        return self._history.clients

    def flush(self, now: float) -> list[Effect]:
        """Return the effects of the router since the last call. What they tell clients of commands is written."""
        effects = self._router.flush(now)
        file = self._file
        if file is None or not (notes := self._history.written()) or self._is_failing:
            return effects  # if writing has failed, all is written anew soon
        if file.size > self._most:
            self._write_whole(file)
            return effects
        try:
            file.append(notes)
        except OSError as error:
            self._failed(file, error)
        return effects

    def _write_whole(self, file: NoteFile) -> None:
        try:
            file.replace(self._history.whole())
        except OSError as error:
            self._failed(file, error)
            return
        self._most = 2 * file.size + GROWS
        if self._is_failing:
            self._log(f"the history of commands is written again: {sized(file.size)}")
            self._is_failing = False

    def _failed(self, file: NoteFile, error: OSError) -> None:
        if not self._is_failing:
            why = error.strerror or error
            self._log(
                f"the history of commands cannot be written to {file.path} ({why}): if the controller is killed "
                "before that is possible, the next one does not know the last commands"
            )
        self._is_failing = True
        self._loop.call_later(RETRY, lambda: self._write_whole(file), self._loop.report)

    # --- sessions --------------------------------------------------------------------------------------------

    def began(self, session: PeerSession) -> None:
        """A client's session has begun."""
        self._history.came(session.key, holder_of(session.role, session.holder))

    def may_come(self, key: int, holder: str) -> None:
        """A client of another controller may come back: it is not taken for one that is gone."""
        self._history.came(key, holder)
        now, seen = self._loop.now(), self._history.seen(key)
        self._sessions[key].heard_at = now if seen is None else min(now, now - (time.time() - seen))

    def _is_away(self, key: int) -> bool:
        session = self._sessions.get(key)
        return session is None or session.away_since(self._loop.now()) is not None

    def told(self, key: int, message: m.CommandOrigin | m.FollowCommand | m.CommandHistory) -> None:
        """A client says who it is, or wants to hear of commands; raises ClientError."""
        if isinstance(message, m.CommandOrigin):
            self._history.origin(key, message)
        elif isinstance(message, m.FollowCommand):
            self._history.follow(key, message)
        else:
            now = self._loop.now()
            others = [each for each in self._sessions.values() if each.role != "engine"]
            away = [(each.key, heard) for each in others if (heard := each.away_since(now)) is not None]
            self._history.ask(key, message, [(other, self.wall(heard)) for other, heard in away])

    def wall(self, when: float) -> float:
        """Return a time of the loop's clock in seconds since 1970."""
        return time.time() - (self._loop.now() - when)
