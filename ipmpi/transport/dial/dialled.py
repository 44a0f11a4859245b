"""A session that dials, and dials again when its link breaks: the client's and the engine set's.

The session outlives its links. A new link resumes it where the old one broke; if the controller does not know
it any more (it was restarted, or the lease ran out) a fresh one begins, and the owner is told. If the controller
was restarted and has the session in its journal, the session goes on over a connection that starts anew. A link
whose keys have encrypted as much as they should is replaced as well: it goes on until the new one is about to say
Hello.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ... import limits, processid
from ...errors import (
    ClientError,
    ConnectionError,
    FurlEnded,
    InternalError,
    KernelError,
    SecurityError,
    VersionError,
    internal_error,
)
from ...furl import Furl
from ...protocol import messages
from ...protocol.connection import Connection, Event
from ...protocol.handshake import DiallerHandshake, Welcome
from ..link import Link
from ..loop import Loop, Timer
from ..pipes import SecurePipe
from .dial import Candidate, Dial, ways_to
from .lanes import SOFTWARE as SOFTWARE, Lanes
from .negotiate import Authenticated
from .redialling import Redialling
from .routes import DIRECT, Route


@dataclass
class Callbacks:
    """What the owner of a session is told, always in the loop's thread."""

    event: Callable[[Event], None]
    started: Callable[[], None]
    """A fresh connection is up: the first one; or a new one because the controller forgot the old session; or the
    session goes on, and what was under way on the old connection is lost."""
    interrupted: Callable[[str], None]
    """The link broke; dialling goes on."""
    ended: Callable[[KernelError], None]
    """The session is over and will not come back."""


class DialledSession:
    """One session with a controller, over one link at a time.

    Args:
        may_receive: message types that the controller may send here.
        patience: seconds to keep dialling after the link broke; 0 for the first contact means one attempt.
        routes: ways to reach the controller, best first.
    """

    def __init__(
        self,
        loop: Loop,
        furl: Furl,
        may_receive: frozenset[type[messages.Message]],
        callbacks: Callbacks,
        *,
        patience: float = limits.ENGINE_RECONNECT,
        renew: bool = True,
        routes: Sequence[Route] = (DIRECT,),
    ) -> None:
        self._loop = loop
        self._furl = furl
        self._may_receive = may_receive
        self._callbacks = callbacks
        self._patience = patience
        self._renew = renew
        self._routes = routes
        self._way: Candidate | None = None
        self._session = b""
        self._controller = ""
        """The controller's process, see :mod:`ipmpi.processid`."""
        self.is_journalled = self.was_journalled = False
        """Whether the controller has the session in a journal, and whether that of the connection before had."""
        self._redialling = Redialling()
        self._give_up_at: float | None = None
        self._dial: Dial | None = None
        self._timer: Timer | None = None
        self._wear_timer: Timer | None = None
        self._pipe: SecurePipe | None = None
        self._over = False
        self.link: Link | None = None
        self._latest: Link | None = None
        """The link that is here, or was here last; those before it have no say any more."""
        self.lanes = Lanes(loop, self, callbacks.event)
        self.connection = self._new_connection()

    def open(self) -> None:
        """Dial for the first time; a failure now ends the session."""
        self._start_dial()

    def wake(self) -> None:
        """Something was sent on the connection."""
        if self.link is not None:
            self.link.wake()

    def close(self, reason: str, fault: bool = False) -> None:
        """Say goodbye and end the session; no callback follows. ``fault``: something went wrong here."""
        if self._over:
            return
        self._dial_no_more()
        if self.link is not None:
            self.connection.send(messages.Goodbye(reason, fault))
            self.link.close(reason)

    def lane_way(self) -> tuple[Route, tuple[str, int]]:
        """By which route to dial the controller for a bulk lane, and where: as the session came, by TCP."""
        assert self._way is not None
        return (DIRECT if self._way.is_local else self._way.route), (self._way.host, self._way.port)

    def _new_connection(self) -> Connection:
        connection = Connection(self._may_receive)
        connection.takes_lanes = True
        return connection

    def _handshake(self, exporter: bytes) -> DiallerHandshake:
        if self.link is not None:
            # What arrives from now on is not in the count that Hello tells.
            link, self.link, self._latest = self.link, None, None
            self._give_up_at = self._loop.now() + self._patience
            link.close("replaced by a new link")
        return DiallerHandshake(
            self._furl.role,
            self._furl.secret,
            exporter,
            SOFTWARE,
            session=self._session,
            received=self.connection.received,
            process=processid.own(),
        )

    def _start_dial(self) -> None:
        self._timer = None
        if not self._over:
            # A Unix socket does not break by itself. If it did although the controller lives, TCP may be better.
            broken = self._way is not None and self._way.is_local and not processid.is_gone(self._controller)
            candidates = ways_to(self._furl, self._routes, self._way, not broken)
            self._dial = Dial(self._loop, self._furl, self._handshake, self._connected, self._failed, candidates)

    def _look_at_wear(self) -> None:
        """Begin to replace the link, if it has been used for long enough."""
        worn = self._pipe is not None and self._pipe.records >= limits.TLS_RECORDS
        if self._over or self.link is None:
            return
        if worn and self._dial is None:
            self._start_dial()
        self._look_at_wear_later()

    def _look_at_wear_later(self) -> None:
        if self._wear_timer is not None:
            self._wear_timer.cancel()
        delay = limits.PING_INTERVAL / 3
        self._wear_timer = self._loop.call_later(delay, self._look_at_wear, self.broken)

    def broken(self, error: BaseException) -> None:
        """End the session, because of what nobody foresaw."""
        if self.link is not None:  # the controller has to hear of it, too
            self.link.fail(error)
        else:
            self._loop.report(error)
            self._end(internal_error(error, "while the controller was dialled"))

    def _connected(self, peer: Authenticated, welcome: Welcome, candidate: Candidate) -> None:
        self._dial = None
        self._way = candidate
        self._give_up_at = None
        self._redialling.link_is_up()
        fresh = not welcome.resumed
        self.was_journalled, self.is_journalled = self.is_journalled, welcome.journalled
        try:
            if fresh:
                if self._session and not self._renew and welcome.session != self._session:
                    raise ConnectionError(
                        "the controller does not know this session any more (it was started anew, or the link was "
                        "down for too long); what was under way is lost. Make a new client."
                    )
                self.lanes.clear()
                self.connection = self._new_connection()
            else:
                self.connection.resume(welcome.received, files=peer.pipe.files is not None)
        except KernelError as error:
            peer.pipe.close()
            self._end(error)
            return
        self._session = welcome.session
        self._controller = welcome.process
        self._pipe = peer.pipe
        self._look_at_wear_later()

        def closed(reason: str, orderly: bool, error: KernelError | None) -> None:
            del orderly
            if self._latest is link:
                self._closed(reason, error)

        event, silence = self.lanes.handle, limits.SILENCE
        link = Link(self._loop, peer.pipe, self.connection, event, closed, silence=silence)
        self.link = self._latest = link
        try:
            if fresh:
                self._callbacks.started()
            link.feed(peer.leftover)
            if self.connection.wants_to_send:
                self.wake()
        except Exception as error:
            link.fail(error)

    def _failed(self, error: KernelError) -> None:
        self._dial = None
        if self.link is not None:
            if isinstance(error, InternalError):  # something went wrong after all had gone well
                self.link.fail(error)
            return  # else the link that was to be replaced still works, and is looked at again
        now = self._loop.now()
        final = isinstance(error, SecurityError | VersionError | ClientError)
        if isinstance(error, SecurityError) and self._session and not isinstance(error, FurlEnded):
            # This furl was good before: the link died between Hello and Welcome, or the controller did, and
            # somebody else has its port for now.
            final = False
        if not self._renew and not self.is_journalled and processid.is_gone(self._controller):
            # What was under way was lost with it, so there is nothing to wait for.
            self._end(
                ConnectionError(
                    f"the controller (process {processid.number(self._controller)} on this machine) has ended; "
                    "what was under way is lost. Make a new client when there is a controller again "
                    "(ipcluster -n 4 starts one)"
                )
            )
            return
        if self._give_up_at is None or final or now >= self._give_up_at:
            self._end(error)
            return
        is_direct = self._way is not None and (self._way.is_local or self._way.route is DIRECT)
        pause = self._redialling.pause(now, is_cheap=is_direct)
        self._timer = self._loop.call_later(pause, self._start_dial, self.broken)

    def _closed(self, reason: str, error: KernelError | None) -> None:
        self.link = None
        if self._over:
            return
        if error is not None:
            self._end(error)
            return
        self._give_up_at = self._loop.now() + self._patience
        self._callbacks.interrupted(reason)
        if self._dial is not None:
            self._dial.cancel()
        self._start_dial()

    def _end(self, error: KernelError) -> None:
        if not self._over:
            self._dial_no_more()
            self._callbacks.ended(error)

    def _dial_no_more(self) -> None:
        """The session is over: nothing of it remains under way."""
        self._over = True
        self.lanes.clear()
        for timer in (self._timer, self._wear_timer):
            if timer is not None:
                timer.cancel()
        if self._dial is not None:
            self._dial.cancel()
