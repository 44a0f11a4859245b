"""Bulk lanes of a running controller: it introduces client and engine set, and joins their connections.

:class:`~ipmpi.controller.lanetable.LaneTable` decides; this sends what it leads to, holds the connections of those
who have come first, and says of the streams that are passed on which may go by a lane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .. import limits
from ..errors import RemoteProtocolError, SecurityError
from ..protocol import messages as m
from ..protocol.connection import MessageReceived
from ..transport.loop import Loop
from ..transport.splicer import Socket, Splicer
from .interfaces import Interface
from .lanetable import Lane, LaneState, LaneTable, Pair
from .sessions import PeerSession

_WAITING = 64
"""Streams of a client and a set that begin while a lane is made, and go by it then; others never do."""


class BulkLanes:
    """Makes lanes when there are large bodies.

    Args:
        sessions: by number.
        send: sends a message, with a body, to a session.
        interfaces: of roles; those of which the ends of lanes are received have lanes.
    """

    def __init__(
        self,
        loop: Loop,
        sessions: Mapping[int, PeerSession],
        send: Callable[[int, m.AnyMessage, Sequence[Any]], None],
        interfaces: Mapping[str, Interface],
        log: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._sessions = sessions
        self._send = send
        self._interfaces = interfaces
        self._log = log
        self._table = LaneTable()
        self._splicer = Splicer(lambda number: None)  # both ends see that, and say what they have
        self._first: dict[int, Socket] = {}
        self._waiting: dict[int, list[tuple[PeerSession, int]]] = {}

    # --- streams

    def began(self, source: PeerSession, stream: int, sinks: Sequence[tuple[Any, Any]], size: int) -> None:
        """A stream is passed on: have it go by a lane if that is worth it."""
        if size < limits.LANE_BODY or len(sinks) != 1 or not isinstance(sinks[0][0], PeerSession):
            return
        pair = self._pair(source, sinks[0][0])
        if pair is None:
            return
        lane = self._table.current(pair) or self._begin(pair)
        if lane is None:
            return
        if lane.state is LaneState.UP:
            source.connection.allow_lane(stream, lane.number)
            source.wake()
        elif len(waiting := self._waiting.setdefault(lane.number, [])) < _WAITING:
            waiting.append((source, stream))

    def _pair(self, one: PeerSession, other: PeerSession) -> Pair | None:
        """Return client and set; None if there is no lane between these, as one of them is on this machine."""
        client, engines = (other, one) if one.role == "engine" else (one, other)
        if engines.role != "engine" or client.role == "engine":
            return None
        if m.LaneUp not in self._interfaces[client.role].receives:
            return None
        if any(each.connection.files is not None for each in (client, engines)):
            return None  # its bytes come or go unencrypted and in files, and one TLS is all there is anyway
        return client.key, engines.key

    def _begin(self, pair: Pair) -> Lane | None:
        lane = self._table.begin(pair, self._loop.now())
        if lane is not None:
            self._send(pair[1], m.OfferLane(lane.number), ())
            self._loop.call_later(limits.LANE_MADE, self._look)
        return lane

    def _look(self) -> None:
        for lane in self._table.overdue(self._loop.now()):
            self._not_made(lane)

    # --- what the ends say

    def heard(self, session: PeerSession, event: MessageReceived) -> bool:
        """Handle what an end says about a lane; False if this message is about something else."""
        message: Any = event.message
        if type(message) not in _ABOUT_LANES:
            return False
        if event.stream:
            raise RemoteProtocolError("the bytes of a lane that was cut come in small messages")
        key, now = session.key, self._loop.now()
        lane = self._table.of(key, message.lane)
        if isinstance(message, m.LaneOffered):
            self._accepted(key, message)
        elif isinstance(message, m.LaneUp):
            if (lane := self._table.is_ready(key, message.lane)) is not None:
                self._up(lane)
        elif isinstance(message, m.LaneCut):
            found = self._table.cut(key, message.lane, now)
            if found is not None:
                lane, forgotten = found
                self._close(lane)
                self._send(lane.other(key), message, ())
                for old in forgotten:
                    self._close(old)
                    self._tell(old, m.LaneOver(old.number))
        elif isinstance(message, m.LaneBytes):
            if self._table.is_rest(key, message.lane, sum(message.sizes)):
                assert lane is not None
                self._send(lane.other(key), message, event.body)
            elif lane is not None and self._table.given_up(key, message.lane, now) is not None:
                self._given_up(lane, "one of them sends what it cannot have left")
        elif (lane := self._table.failed(key, message.lane, now)) is not None:
            self._not_made(lane)
        elif (lane := self._table.given_up(key, message.lane, now)) is not None:
            self._given_up(lane, "one of them could not make sense of what came by it")
        return True

    def _accepted(self, key: int, message: m.LaneOffered) -> None:
        found = self._table.accepted(key, message.lane)
        if found is not None:
            lane, of_client, of_set = found
            number = lane.number
            self._send(lane.pair[1], m.JoinLane(number, of_set), ())
            self._send(lane.pair[0], m.JoinLane(number, of_client, message.fingerprint, message.secret), ())

    def came(self, ticket: bytes, sock: Socket) -> None:
        """Somebody has dialled with a ticket; raises SecurityError if it is not good."""
        found = self._table.came(ticket, self._loop.now())
        if found is None:
            raise SecurityError("its ticket for a bulk lane is not good (any more)")
        lane, _ = found
        first = self._first.pop(lane.number, None)
        if first is None:
            self._first[lane.number] = sock
        else:
            self._splicer.join(lane.number, first, sock)

    def _up(self, lane: Lane) -> None:
        self._log(f"client {lane.pair[0]} and engine set {lane.pair[1]} have a bulk lane")
        for source, stream in self._waiting.pop(lane.number, ()):
            if self._sessions.get(source.key) is source:
                source.connection.allow_lane(stream, lane.number)
                source.wake()

    def _not_made(self, lane: Lane) -> None:
        self._log(
            f"client {lane.pair[0]} and engine set {lane.pair[1]} have no bulk lane: bodies go by the session"
        )
        self._close(lane)
        self._tell(lane, m.LaneOver(lane.number))

    def _given_up(self, lane: Lane, why: str) -> None:
        self._log(f"client {lane.pair[0]} and engine set {lane.pair[1]} have lost a bulk lane: {why}")
        self._close(lane)
        self._tell(lane, m.LaneOver(lane.number))

    def _tell(self, lane: Lane, message: m.AnyMessage) -> None:
        for key in lane.pair:
            self._send(key, message, ())

    def _close(self, lane: Lane) -> None:
        self._waiting.pop(lane.number, None)
        self._splicer.end(lane.number)
        first = self._first.pop(lane.number, None)
        if first is not None:
            first.close()

    # --- ends

    def session_ended(self, key: int) -> None:
        """A session is over, or is begun anew: so are its lanes."""
        for lane in self._table.ended(key):
            self._close(lane)
            # What it is told of its calls in this turn says more of them than that their bytes will not come.
            self._loop.call_at_turn_end(partial(self._send, lane.other(key), m.LaneOver(lane.number), ()))

    def close(self) -> None:
        """End all lanes."""
        self._splicer.close()
        for sock in self._first.values():
            sock.close()


_ABOUT_LANES = frozenset({m.LaneOffered, m.LaneUp, m.LaneCut, m.LaneBytes, m.LaneOver})
