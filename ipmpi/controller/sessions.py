"""The sessions of the controller: connection, link and lease of each."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .. import limits, processid
from ..errors import FurlEnded, KernelError, ProtocolError, internal_error
from ..protocol.connection import Connection, Event
from ..protocol.handshake import Hello, ListenerHandshake
from ..protocol.messages import Goodbye
from ..protocol.permissions import Table
from ..protocol.registration import Registration
from ..transport.dial.negotiate import Authenticated
from ..transport.link import Link
from ..transport.loop import Loop, Timer
from ..transport.pipes import PipeClosed
from .bounds import Bounds, bounds_of


@dataclass(eq=False)
class PeerSession:
    """One client or engine set. The session outlives its link by a lease."""

    key: int
    token: bytes
    role: str
    connection: Connection
    peer: str
    bounds: Bounds
    process: str = ""
    """Identity of the peer's process, see :mod:`ipmpi.processid`."""
    registration: Registration = field(default_factory=Registration)
    link: Link | None = None
    lease: Timer | None = None
    heard_at: float = 0.0
    """When it was heard of last, by the loop's clock, if it has no link."""
    farewell: str = ""
    fault: bool = False
    """Whether the peer ended because of an error."""
    is_dead: bool = False
    """Whether its process ended without a message."""
    former: bytes = b""
    """The token of the session that the peer asked for, and which is not known here."""
    is_restored: bool = False
    """Whether it comes from a journal, and its peer has said nothing since."""
    holder: str = ""
    """Names the furl of its peer, if that was given out with terms of its own; "" for that of the role."""
    only: frozenset[int] | None = None
    """Engines that its furl is good for; None for all."""

    def away_since(self, now: float) -> float | None:
        """Return when its peer was heard of last, by the loop's clock; None if it is there, as far as is known."""
        if self.link is None:
            return self.heard_at
        # Who is there answers a ping, or asks by itself, after each interval of silence.
        heard_at = self.link.heard_at
        return heard_at if now - heard_at > 2 * limits.PING_INTERVAL else None

    def wake(self) -> None:
        """Send what was queued on the connection."""
        if self.link is not None:
            self.link.wake()

    def refuse(self, stream: int) -> None:
        """Tell the peer that its stream is not wanted (any more)."""
        self.connection.refuse(stream)
        self.wake()


class EntryCheck(Protocol):
    """Decides who may connect, by the furls that were given out."""

    def check(self, peer: Authenticated, hello: Hello, session: PeerSession | None) -> None:
        """A peer has proved a secret, and comes back to ``session``, if there is one; raises FurlEnded."""

    def entered(self, session: PeerSession, hello: Hello) -> None:
        """A session begins."""


_FIRST_LOOK = 0.05
"""Seconds to wait for the end of a process whose socket has closed."""


class Sessions:
    """All sessions, by the token that resumes them and by their number."""

    def __init__(
        self,
        loop: Loop,
        tables: dict[str, Table],
        on_started: Callable[[PeerSession], None],
        on_event: Callable[[PeerSession, Event], None],
        on_ended: Callable[[PeerSession, str], None],
        has_work: Callable[[PeerSession], bool],
        log: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self.entry: EntryCheck | None = None
        self.journalled = False
        """Whether they are in a journal."""
        self.on_gone: Callable[[], object] = lambda: None
        """Called whenever a session has ended."""
        self.sets: frozenset[bytes] = frozenset()
        """Tokens of engine sets that the journal has. A set that comes back keeps its token, so that the journal
        knows it even if nothing can be written before this controller is killed, too."""
        self._tables = tables
        self._on_started = on_started
        self._on_event = on_event
        self._on_ended = on_ended
        self._has_work = has_work
        self._log = log
        self._by_token: dict[bytes, PeerSession] = {}
        self.by_key: dict[int, PeerSession] = {}
        self._next = 1

    def admit(self, peer: Authenticated, hello: Hello, handshake: ListenerHandshake) -> None:
        """Resume or begin the session of a peer that has proved its role, and reply."""
        known = self._next
        try:
            self._admit(peer, hello, handshake)
        except Exception as error:
            # An incomplete session must not remain: it could never be resumed.
            self._loop.report(error)
            session = self._by_token.get(hello.session) or self.by_key.get(known)
            if session is not None:
                self.end(session, str(internal_error(error, "when it said hello")))
            peer.pipe.close()

    def _admit(self, peer: Authenticated, hello: Hello, handshake: ListenerHandshake) -> None:
        session = self._by_token.get(hello.session)
        if session is not None and session.role != hello.role:
            session = None
        if self.entry is not None:
            try:
                self.entry.check(peer, hello, session)
            except FurlEnded as error:
                self._turn_away(peer, handshake, str(error), "ended")
                return
        if session is not None:
            (self._recover if session.is_restored else self._resume)(session, peer, hello, handshake)
            return
        table = self._tables[hello.role]
        bounds = bounds_of(hello.role, table)
        there = sum(session.role == hello.role for session in self.by_key.values())
        if there >= bounds.sessions:
            self._turn_away(
                peer, handshake, f"it has {there} sessions of the role {hello.role!r}, as many as it may. Close "
                "clients that are not needed, or try later",
            )  # fmt: skip
            return
        connection = Connection(table, unacknowledged=bounds.unacknowledged)
        is_back = hello.role == "engine" and hello.session in self.sets
        token = hello.session if is_back else secrets.token_bytes(16)
        session = PeerSession(self._next, token, hello.role, connection, peer.peer, bounds, is_restored=is_back)
        session.process, session.former = hello.process, hello.session
        self._next += 1
        self._by_token[session.token] = session
        self.by_key[session.key] = session
        if self.entry is not None:
            self.entry.entered(session, hello)
        self._on_started(session)
        self._welcome_anew(session, peer, handshake)

    def _welcome_anew(self, session: PeerSession, peer: Authenticated, handshake: ListenerHandshake) -> None:
        welcome = handshake.welcome(session.token, 0, False, processid.own(), self.journalled)
        self._welcome(session, peer, welcome)

    def restore(self, key: int, token: bytes, role: str) -> None:
        """Keep a session that another controller began, for as long as its peer may need to come back."""
        table = self._tables[role]
        bounds = bounds_of(role, table)
        connection = Connection(table, unacknowledged=bounds.unacknowledged)
        session = PeerSession(key, token, role, connection, "?", bounds, is_restored=True)
        self._by_token[token] = self.by_key[key] = session
        last = self._loop.now() + limits.LEASE_AFTER_SILENCE
        self._look_in(limits.LEASE_LOOK, session, "the controller was started again", last, last)

    def continue_after(self, key: int) -> None:
        """Give new sessions larger numbers than this one."""
        self._next = max(self._next, key + 1)

    def knows(self, role: str) -> bool:
        """Return whether there is such a role here."""
        return role in self._tables

    def _recover(
        self, session: PeerSession, peer: Authenticated, hello: Hello, handshake: ListenerHandshake
    ) -> None:
        """Go on with a session from the journal: over a new connection, as nothing is known of the old one."""
        self._detach(session)
        session.connection = Connection(self._tables[session.role], unacknowledged=session.bounds.unacknowledged)
        session.process = hello.process
        if self.entry is not None:
            self.entry.entered(session, hello)
        self._log(f"{session.role} {session.key} is back from {peer.peer}, after a restart of the controller")
        self._on_started(session)
        self._welcome_anew(session, peer, handshake)

    def _turn_away(
        self, peer: Authenticated, handshake: ListenerHandshake, reason: str, code: str = "busy"
    ) -> None:
        self._log(f"{peer.peer} is turned away: {reason}")
        with contextlib.suppress(KernelError, PipeClosed):
            peer.pipe.send([handshake.refuse(code, reason)])
        peer.pipe.close()

    def _resume(
        self, session: PeerSession, peer: Authenticated, hello: Hello, handshake: ListenerHandshake
    ) -> None:
        self._detach(session)
        try:
            session.connection.resume(hello.received, files=peer.pipe.files is not None)
        except ProtocolError as error:
            peer.pipe.close()
            self.end(session, str(error))
            return
        self._log(f"{session.role} {session.key} is back from {peer.peer}")
        session.process = hello.process
        received = session.connection.received
        welcome = handshake.welcome(session.token, received, True, processid.own(), self.journalled)
        self._welcome(session, peer, welcome)

    def _detach(self, session: PeerSession) -> None:
        """A peer has come back."""
        old, session.link = session.link, None
        if old is not None:
            # The peer has noticed first that the old link is dead.
            old.close("the peer came back over a new link")
        if session.lease is not None:
            session.lease.cancel()
            session.lease = None

    def _welcome(self, session: PeerSession, peer: Authenticated, welcome: bytes) -> None:
        try:
            peer.pipe.send([welcome])
        except (KernelError, PipeClosed) as error:
            # It disconnected right after its Hello.
            peer.pipe.close()
            self._link_closed(session, str(error), True, None)
            return
        self._attach(session, peer)

    def _attach(self, session: PeerSession, peer: Authenticated) -> None:
        session.peer = peer.peer

        def event(happened: Event) -> None:
            session.is_restored = False
            self._on_event(session, happened)

        def closed(reason: str, orderly: bool, error: KernelError | None) -> None:
            if session.link is link:
                session.link, session.heard_at = None, link.heard_at
                try:
                    self._link_closed(session, reason, orderly, error)
                except Exception as failed:
                    self.broken(session, failed)

        # Engine sets have their link in an agent process, without user code.
        silence = limits.SILENCE if session.role == "engine" else limits.SILENCE_OF_USER_CODE
        link = session.link = Link(
            self._loop, peer.pipe, session.connection, event, closed,
            silence=silence, pause_above=limits.READ_PAUSE,
        )  # fmt: skip
        link.feed(peer.leftover)

    def _link_closed(self, session: PeerSession, reason: str, orderly: bool, error: KernelError | None) -> None:
        if session.key not in self.by_key:
            return
        if error is not None or session.farewell:
            self.end(session, str(error) if error is not None else f"it said goodbye: {session.farewell}")
            return
        lease = limits.LEASE_WITH_WORK if orderly else limits.LEASE_AFTER_SILENCE
        without_work = limits.LEASE_AFTER_CLOSE if orderly else lease
        now = self._loop.now()
        short = lease if self._has_work(session) else without_work
        self._log(
            f"{session.role} {session.key} at {session.peer}: {reason}; it may come back within {short:.0f} s"
        )
        self._look_in(_FIRST_LOOK, session, reason, now + without_work, now + lease)

    def _look_in(self, delay: float, session: PeerSession, reason: str, without_work: float, last: float) -> None:
        session.lease = self._loop.call_later(
            delay,
            lambda: self._look(session, reason, without_work, last),
            lambda error: self.broken(session, error),
        )

    def _look(self, session: PeerSession, reason: str, without_work: float, last: float) -> None:
        """Check whether to keep a session without a link: until ``last``, or ``without_work``."""
        now = self._loop.now()
        if processid.is_gone(session.process):
            session.is_dead = True
            self.end(session, f"{reason}, and its process has ended")
        elif now >= last or (now >= without_work and not self._has_work(session)):
            self.end(session, f"{reason}, and it did not come back")
        else:
            self._look_in(limits.LEASE_LOOK, session, reason, without_work, last)

    def dismiss(self, reason: str) -> None:
        """Say goodbye to all peers."""
        for session in list(self.by_key.values()):
            session.connection.send(Goodbye(reason))
            self.end(session, reason)

    def end(self, session: PeerSession, reason: str) -> None:
        """End a session."""
        if self.by_key.pop(session.key, None) is None:
            return
        self._by_token.pop(session.token, None)
        if session.lease is not None:
            session.lease.cancel()
        link, session.link = session.link, None
        if link is not None:
            session.heard_at = link.heard_at
            link.close(reason)
        self._on_ended(session, reason)
        self.on_gone()

    def broken(self, session: PeerSession, error: BaseException) -> None:
        """End a session because of an unexpected exception, and tell its peer."""
        self._loop.report(error)
        reason = str(internal_error(error, "while this peer was dealt with"))
        if session.link is not None:
            try:
                session.connection.send(Goodbye(reason, True))
            except Exception as another:
                self._loop.report(another)
        self.end(session, reason)
