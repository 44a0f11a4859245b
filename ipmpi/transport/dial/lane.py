"""One end of a bulk lane: a connection with the other end, by which the bytes of streams of the session go.

What is sent is kept until the other end has acknowledged it. If the connection breaks, what it has not received
goes in messages of the session, through the controller, so a stream that has begun to go by a lane always arrives
as a whole and in order. Nothing new goes by that lane then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ... import limits
from ...errors import KernelError, RemoteProtocolError
from ...protocol import messages as m
from ...protocol.connection import Connection, DataReceived, Event, MessageReceived, StreamAborted
from ...protocol.permissions import LANE
from ...protocol.streams import LanePart, OutgoingStream
from ..link import Link
from ..loop import Loop
from .negotiate import Authenticated

_STEP = limits.STREAM_WINDOW // 4


class Carried:
    """A stream of the session on its way out by a lane; see :class:`~ipmpi.protocol.streams.Carrier`."""

    def __init__(self, end: LaneEnd, stream: OutgoingStream) -> None:
        self._end = end
        self._body = stream.id
        self._stream: OutgoingStream | None = None
        self.lane = end.number

    @property
    def is_open(self) -> bool:
        """Whether the lane takes more: one that is begun goes on, and another begins where there is room."""
        return self._end.is_open and (self._stream is not None or self._end.has_room)

    def carry(self, parts: Sequence[memoryview], left: int) -> None:
        """Send the next bytes."""
        connection = self._end.connection
        if self._stream is None:
            self._stream = connection.send_streamed(m.LaneBody(self._body, [left]), left)
            self._end.begun(self._stream)
        for part in parts:
            connection.feed(self._stream, part)
        self._end.wake()

    def drop(self) -> None:
        """Send no more."""
        if self._stream is not None:
            self._end.connection.abort(self._stream)
            self._end.wake()


class _Arrival:
    """A body that comes by the lane. ``told`` counts the bytes that the session has named."""

    def __init__(self, body: int) -> None:
        self.body = body
        self.stream_of_lane = 0
        self.is_dropped = False
        self.stream = 0
        self.told = 0
        self.handed_on = 0
        self.granted = limits.STREAM_WINDOW
        self.ends = False
        self.waiting: deque[memoryview] = deque()
        self.behind: deque[DataReceived] = deque()
        """What came on the session after it was told of bytes that have not come by the lane."""


class LaneEnd:
    """One end of a lane.

    Args:
        number: the controller's.
        send: sends a message on the session.
        deliver: called with the events of streams of the session.
        broken: called if nothing that comes can be believed any more, so that what is under way is lost.
    """

    def __init__(
        self,
        loop: Loop,
        number: int,
        send: Callable[[m.AnyMessage, bytes], object],
        deliver: Callable[[Event], None],
        broken: Callable[[KernelError], None],
    ) -> None:
        self.number = number
        self._loop = loop
        self._send = send
        self._deliver = deliver
        self._broken = broken
        self.connection = Connection(LANE, credit=limits.STREAM_WINDOW, unacknowledged=limits.LANE_UNACKNOWLEDGED)
        self._peer: Authenticated | None = None
        self._link: Link | None = None
        self._is_cut = self._is_tunnel = False
        self._peer_received: int | None = None
        self._leaving: list[OutgoingStream] = []
        """Bodies that were begun and, when it was last looked, were not sent as a whole."""
        self._by_body: dict[int, _Arrival] = {}
        self._by_lane_stream: dict[int, _Arrival] = {}
        self._by_stream: dict[int, _Arrival] = {}

    def start(self, peer: Authenticated) -> None:
        """The handshake is done: bodies may come."""
        self._peer = peer
        self._link = Link(self._loop, peer.pipe, self.connection, self._event, self._closed)
        self._send(m.LaneUp(self.number), b"")
        self._link.feed(peer.leftover)

    @property
    def is_open(self) -> bool:
        """Whether anything new may go by it."""
        return self._link is not None and self._link.is_open

    @property
    def has_room(self) -> bool:
        """Whether one more body may begin to leave by it; the receiver refuses more than LANE_BODIES."""
        if len(self._leaving) >= limits.LANE_BODIES_SENT:
            self._leaving = [each for each in self._leaving if not each.is_over and each.sent < each.total]
        return len(self._leaving) < limits.LANE_BODIES_SENT

    def begun(self, body: OutgoingStream) -> None:
        """A body begins to leave by it."""
        self._leaving.append(body)

    def carrier(self, stream: OutgoingStream) -> Carried:
        """The way of a stream of the session by this lane."""
        self._look_at_wear()
        return Carried(self, stream)

    def wake(self) -> None:
        """Something was sent on the lane."""
        if self._link is not None and self._link.is_open:
            self._link.wake()
        elif self._is_tunnel:
            self._loop.call_at_turn_end(self._send_through_session)

    def close(self) -> None:
        """End it, as the session is over or was begun anew; nothing is sent any more."""
        self._is_cut = True
        self._is_tunnel = False
        self._by_body.clear()
        self._by_stream.clear()
        if self._link is not None:
            self._link.close("the session is over")

    def incomplete(self) -> list[int]:
        """The streams of the session of which the lane still owes bytes that the session has told of."""
        return [stream for stream, arrival in self._by_stream.items() if arrival.handed_on < arrival.told]

    def _look_at_wear(self) -> None:
        if self._peer is not None and self._peer.pipe.records >= limits.TLS_RECORDS and self._link is not None:
            self._link.close("its keys have been used for long enough")

    # --- what the session says

    def passed(self, event: DataReceived, part: LanePart) -> None:
        """So many bytes of a stream come by this lane."""
        arrival = self._by_body.get(part.body) or _Arrival(part.body)
        if arrival.stream not in (0, event.stream) or self._by_stream.get(event.stream, arrival) is not arrival:
            raise RemoteProtocolError(f"body {part.body} of a lane is that of two streams, or one of two")
        self._by_body[part.body] = arrival
        arrival.stream = event.stream
        arrival.told += part.size
        arrival.ends = event.last
        self._by_stream[event.stream] = arrival
        self._hand_on(arrival)

    def holds_back(self, event: DataReceived) -> bool:
        """Whether an event of the session has to wait, and does, for what comes by the lane before it."""
        arrival = self._by_stream.get(event.stream)
        if arrival is None:
            return False
        if arrival.handed_on == arrival.told and not arrival.behind:
            if event.last:
                del self._by_stream[event.stream]
            return False
        arrival.behind.append(event)
        return True

    def aborted(self, stream: int) -> None:
        """A stream of the session will not come."""
        arrival = self._by_stream.pop(stream, None)
        if arrival is not None:
            self._drop(arrival)

    def cut(self, received: int) -> None:
        """The other end has so many frames, and will hear no more on the connection of this lane."""
        self._peer_received = received
        if self._link is not None and self._link.is_open:
            self._link.close("the other end has closed it")
        self._go_through_session()

    def bytes_received(self, data: memoryview) -> None:
        """The next bytes of the lane, in a message of the session."""
        if not self._is_tunnel:
            raise RemoteProtocolError(f"bytes of lane {self.number} in a message, before it was cut")
        for event in self.connection.receive_data(data):
            self._event(event)
        self.connection.acknowledge()
        self.wake()

    # --- the connection of the lane

    def _closed(self, reason: str, orderly: bool, error: KernelError | None) -> None:
        del reason, orderly
        if self._is_cut:
            return
        self._is_cut = True
        if error is None:
            self._send(m.LaneCut(self.number, self.connection.received), b"")
        else:
            self._broken(error)

    def _go_through_session(self) -> None:
        """Send what the other end has not received, when both have said what they have."""
        if self._is_cut and self._peer_received is not None and not self._is_tunnel:
            self.connection.resume(self._peer_received)
            self._is_tunnel = True
            self.wake()

    def _send_through_session(self) -> None:
        while self._is_tunnel and self.connection.wants_to_send:
            data = memoryview(b"".join(self.connection.data_to_send()))
            for at in range(0, len(data), limits.INLINE_BODY):
                piece = data[at : at + limits.INLINE_BODY]
                self._send(m.LaneBytes(self.number, [len(piece)]), bytes(piece))

    def _event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            assert isinstance(event.data, memoryview)
            arrival = self._by_lane_stream.get(event.stream)
            if arrival is None:  # its LaneBody was refused, before the lane was cut
                raise RemoteProtocolError(f"bytes of a body that lane {self.number} does not take")
            arrival.waiting.append(event.data)
            if event.last:
                del self._by_lane_stream[event.stream]
            self._hand_on(arrival)
            self._look_at_wear()
        elif isinstance(event, MessageReceived) and isinstance(event.message, m.LaneBody):
            self._announced(event.message.body, event.stream)
        elif isinstance(event, StreamAborted) and event.stream in self._by_lane_stream:
            # The session may still tell of bytes of it, before it tells the same.
            arrival = self._by_lane_stream.pop(event.stream)
            arrival.is_dropped = True
            arrival.waiting.clear()

    def _announced(self, body: int, stream: int) -> None:
        arrival = self._by_body.get(body) or _Arrival(body)
        if not stream or arrival.stream_of_lane or len(self._by_lane_stream) >= limits.LANE_BODIES:
            raise RemoteProtocolError(f"body {body} of a lane is announced twice, or there are too many")
        self._by_body[body] = arrival
        arrival.stream_of_lane = stream
        self._by_lane_stream[stream] = arrival
        if arrival.is_dropped:
            self._drop(arrival)
        else:
            self._hand_on(arrival)

    def _drop(self, arrival: _Arrival) -> None:
        """Nobody wants what comes of a body, or will be announced."""
        arrival.is_dropped = True
        arrival.waiting.clear()
        arrival.behind.clear()
        if arrival.stream_of_lane:
            self._by_body.pop(arrival.body, None)
            if self._by_lane_stream.pop(arrival.stream_of_lane, None) is not None:
                self.connection.refuse(arrival.stream_of_lane)
                self.wake()

    def _hand_on(self, arrival: _Arrival) -> None:
        """Hand on what the session has told of and the lane has brought, and give credit for more."""
        while arrival.waiting and arrival.handed_on < arrival.told:
            piece = arrival.waiting.popleft()
            room = arrival.told - arrival.handed_on
            if len(piece) > room:
                arrival.waiting.appendleft(piece[room:])
                piece = piece[:room]
            arrival.handed_on += len(piece)
            last = arrival.ends and arrival.handed_on == arrival.told
            if last:
                self._by_body.pop(arrival.body, None)
                self._by_stream.pop(arrival.stream, None)
            self._deliver(DataReceived(arrival.stream, piece, last))
        if arrival.handed_on == arrival.told:
            # Its sender may wait for the memory of what has arrived.
            self.connection.acknowledge()
            self.wake()
            while arrival.behind:
                event = arrival.behind.popleft()
                if event.last:
                    self._by_stream.pop(arrival.stream, None)
                self._deliver(event)
        if arrival.stream_of_lane and arrival.granted - arrival.handed_on <= limits.STREAM_WINDOW - _STEP:
            more = arrival.handed_on + limits.STREAM_WINDOW - arrival.granted
            arrival.granted += more
            self.connection.grant(arrival.stream_of_lane, more)
            self.wake()
