"""The bulk lanes of a session at the end that dialled the controller: a client or an engine set.

The controller says when to make one (:mod:`ipmpi.protocol.lanes`). Both ends dial its port once more, in the way
by which the session came, and make TLS and a handshake *with each other* on that connection. Whatever fails,
bodies go by the session.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from ... import __version__, limits
from ...errors import KernelError, RemoteProtocolError
from ...furl import Furl
from ...protocol import messages as m
from ...protocol.connection import Connection, DataReceived, Event, MessageReceived, StreamAborted
from ...protocol.handshake import DiallerHandshake, Hello, ListenerHandshake, Welcome
from ...protocol.lanes import LANE_ROLE, PREAMBLE
from ...protocol.streams import LanePart
from ...tls import Identity, TlsSession
from ..loop import Loop
from ..pipes import PipeClosed
from ..tlspipe import TlsPipe
from .lane import LaneEnd
from .negotiate import Authenticated, DialNegotiation, ListenNegotiation
from .routes import Cancel, Route

SOFTWARE: Final = f"ipmpi {__version__}"


class _Session(Protocol):
    """The part of a session that is used here."""

    connection: Connection

    def wake(self) -> None:
        """Send what was queued."""

    def lane_way(self) -> tuple[Route, tuple[str, int]]:
        """By which way to dial, and where."""

    def broken(self, error: BaseException) -> None:
        """End the session, because of what nobody foresaw."""


class _Making:
    """A lane that is being made: what the set has offered, and how to stop."""

    def __init__(self, identity: Identity | None = None, secret: bytes = b"") -> None:
        self.identity = identity
        self.secret = secret
        self.stop: Cancel = lambda: None


class Lanes:
    """All lanes of a session. Only for the thread of its loop.

    Args:
        on_event: called with the events of the session that are not about lanes.
    """

    def __init__(self, loop: Loop, session: _Session, on_event: Callable[[Event], None]) -> None:
        self._loop = loop
        self._session = session
        self._on_event = on_event
        self._making: dict[int, _Making] = {}
        self._ends: dict[int, LaneEnd] = {}

    def clear(self) -> None:
        """The session is over, or begins anew."""
        for making in self._making.values():
            making.stop()
        for end in self._ends.values():
            end.close()
        self._making.clear()
        self._ends.clear()

    def handle(self, event: Event) -> None:
        """Handle an event of the session, or hand it on."""
        if isinstance(event, MessageReceived):
            if type(event.message) in _ORDERS:
                self._order(event)
                return
        elif isinstance(event, DataReceived) and isinstance(event.data, LanePart):
            self._passed(event, event.data)
            return
        elif self._ends:
            if isinstance(event, DataReceived):
                if any(end.holds_back(event) for end in self._ends.values()):
                    return
            elif isinstance(event, StreamAborted):
                for end in self._ends.values():
                    end.aborted(event.stream)
        if not (isinstance(event, StreamAborted) and event.was_refused):
            self._on_event(event)

    def _passed(self, event: DataReceived, part: LanePart) -> None:
        self._tell(part.lane, lambda end: end.passed(event, part))
        if part.lane not in self._ends:
            self._lost(event.stream, "it is not known here any more")

    def _tell(self, lane: int, tell: Callable[[LaneEnd], object]) -> None:
        """Tell one end what comes from the other."""
        end = self._ends.get(lane)
        if end is not None:
            try:
                tell(end)
            except RemoteProtocolError as error:
                # Of the other end: the controller, and what else it says, is not to blame.
                self._give_up(lane, error)

    def _give_up(self, lane: int, error: KernelError) -> None:
        self._forget(lane, str(error))
        self._send(m.LaneOver(lane))

    def _lost(self, stream: int, why: str) -> None:
        """Have nobody wait for the bytes of a stream that were to come by a lane, and will not."""
        self._session.connection.refuse(stream)
        self._deliver(StreamAborted(stream, f"the bulk lane by which it came has ended: {why}"))
        self._session.wake()

    # --- orders of the controller

    def _order(self, event: MessageReceived) -> None:
        message = event.message
        if isinstance(message, m.OfferLane):
            self._offer(message.lane)
        elif isinstance(message, m.JoinLane):
            self._join(message)
        elif isinstance(message, m.UseLane):
            end = self._ends.get(message.lane)
            if end is not None and end.is_open:
                self._session.connection.carry(message.stream, end.carrier)
        elif isinstance(message, m.LaneCut):
            self._tell(message.lane, lambda end: end.cut(message.received))
        elif isinstance(message, m.LaneBytes):
            for part in event.body:
                self._tell(message.lane, partial(LaneEnd.bytes_received, data=part))
        elif isinstance(message, m.LaneOver):
            self._forget(message.lane, "its other end is gone, or has given it up")

    def _forget(self, lane: int, why: str) -> None:
        making, end = self._making.pop(lane, None), self._ends.pop(lane, None)
        if making is not None:
            making.stop()
        if end is not None:
            lost = end.incomplete()
            end.close()
            for stream in lost:
                self._lost(stream, why)

    def _offer(self, lane: int) -> None:
        if len(self._making) < limits.LANES:
            identity, secret = Identity.create(time.time()), secrets.token_bytes(32)
            self._making[lane] = _Making(identity, secret)
            self._send(m.LaneOffered(lane, identity.fingerprint, secret))
        else:
            self._send(m.LaneOver(lane))

    def _join(self, order: m.JoinLane) -> None:
        making = self._making.setdefault(order.lane, _Making())
        route, address = self._session.lane_way()

        def failed(error: KernelError) -> None:
            del error
            self._failed(order.lane)

        making.stop = route.connect(
            self._loop, address, lambda sock: self._connected(order, making, TlsPipe(sock, _tls(making))), failed
        )

    def _connected(self, order: m.JoinLane, making: _Making, pipe: TlsPipe) -> None:
        def done(peer: Authenticated, _welcome: Welcome) -> None:
            self._up(order.lane, peer)

        def hello(peer: Authenticated, _hello: Hello, handshake: ListenerHandshake) -> None:
            try:
                peer.pipe.send([handshake.welcome(secrets.token_bytes(16), 0, False)])
            except PipeClosed:
                self._failed(order.lane)
            else:
                self._up(order.lane, peer)

        def failed(_error: KernelError) -> None:
            self._failed(order.lane)

        pipe.send_plain(PREAMBLE + order.ticket)
        negotiation: DialNegotiation | ListenNegotiation
        if making.identity is not None:
            listens = partial(ListenerHandshake, secrets={LANE_ROLE: making.secret}, software=SOFTWARE)
            negotiation = ListenNegotiation(
                self._loop, pipe, making.identity.fingerprint, listens, hello, failed, timeout=limits.LANE_MADE
            )
        else:
            try:
                furl = Furl(order.fingerprint, (("lane", 1),), LANE_ROLE, order.secret)
            except KernelError as error:
                pipe.close()
                failed(error)
                return
            dials = partial(DiallerHandshake, LANE_ROLE, order.secret, software=SOFTWARE)
            negotiation = DialNegotiation(self._loop, pipe, furl, dials, done, failed, "the other end of a lane")
        making.stop = negotiation.cancel

    def _failed(self, lane: int) -> None:
        if self._making.pop(lane, None) is not None:
            self._send(m.LaneOver(lane))

    def _up(self, lane: int, peer: Authenticated) -> None:
        if self._making.pop(lane, None) is None:
            peer.pipe.close()
            return

        def broken(error: KernelError) -> None:
            self._give_up(lane, error)

        end = self._ends[lane] = LaneEnd(self._loop, lane, self._send, self._deliver, broken)
        end.start(peer)

    def _send(self, message: m.AnyMessage, body: bytes = b"") -> None:
        self._session.connection.send(message, [body] if body else [])
        self._session.wake()

    def _deliver(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception as error:  # it is the session whose state nobody knows now, not the lane's
            self._session.broken(error)
            return
        if self._session.connection.wants_to_send:  # its link looks only after what came by itself
            self._session.wake()


_ORDERS: Final[frozenset[type[m.Message]]] = frozenset(
    {m.OfferLane, m.JoinLane, m.UseLane, m.LaneCut, m.LaneBytes, m.LaneOver}
)


def _tls(making: _Making) -> TlsSession:
    return TlsSession.dialler() if making.identity is None else TlsSession.listener(making.identity)
