"""One end of a session: bytes in, events out; messages in, bytes out (sans-IO).

Theory of operation. Outgoing traffic has two lanes. The *control* lane holds complete frames in order:
messages, credit, refusals. The *bulk* lane holds streams; each turn takes one chunk from one of them, round
robin, and only as far as its receiver has given credit. :meth:`Connection.data_to_send` empties the control
lane first, so a message waits for one chunk at most, however much bulk is under way.

A stream starts with no credit (inside ssh, where nothing waits in queues, with some). The receiver of a message
with a large body decides when it wants the bytes (a queue can be long) and how fast; until then they stay where
they are, in the sender's own arrays.

A Connection outlives its links. Frames are counted on both ends, and kept in an outbox until acknowledged;
:meth:`resume` sends again what the peer has not seen. A chunk is handed on piece by piece while it arrives,
so a link can break in the middle of one: the pieces already handed on are skipped when it comes again.

What is not acknowledged is bounded: a peer that reads and never acknowledges is sent nothing more after a while
(:attr:`Connection.is_stalled`). As chunks in the outbox are views of the sender's arrays, nobody may change the
memory of a stream while :meth:`Connection.is_held`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from .. import limits
from ..errors import LocalProtocolError, RemoteProtocolError
from . import messages
from .events import (
    CreditReceived as CreditReceived,
    DataReceived as DataReceived,
    Event as Event,
    MessageReceived as MessageReceived,
    StreamAborted as StreamAborted,
    StreamRefused as StreamRefused,
)
from .frames import COUNT, HEADER_LENGTH, NUMBERED, PREFIX, Buffer, FrameKind, parse_prefix, prefix, size_of
from .messages import AnyMessage
from .opened import cut, opened, sizes_of
from .outbox import Outbox, copied
from .prepared import Prepared as Prepared, check_length, prepare as prepare
from .streams import BodyFile, Carrier, FileFrame, IncomingStream, LanePart, OutgoingStream
from .withdrawn import withdraw_files


class Connection:
    """One end of a session with a peer.

    Args:
        may_receive: the message types that this peer may send (see :mod:`ipmpi.protocol.permissions`).
        resumable: keep an outbox and acknowledge, so that the session survives its link.
        unacknowledged: bytes that may be sent without being acknowledged.
        credit: bytes of each stream that may be sent before its receiver grants any; the same at both ends.
    """

    def __init__(
        self,
        may_receive: frozenset[type[messages.Message]],
        *,
        resumable: bool = True,
        unacknowledged: int = limits.UNACKNOWLEDGED,
        credit: int = 0,
    ) -> None:
        self._may_receive = may_receive
        self._resumable = resumable
        self._unacknowledged = unacknowledged
        self._credit = credit
        self._control: deque[tuple[bool, Sequence[Buffer]]] = deque()
        self._streams: dict[int, OutgoingStream] = {}
        self._ready: deque[OutgoingStream] = deque()
        self._next_stream = 1
        self._incoming: dict[int, IncomingStream] = {}
        self._outbox = Outbox()
        self._buffer = bytearray()
        self._chunk: tuple[int, int] | None = None
        self._handed_on = 0
        self._skip = 0
        self._ping_due = False
        self._pong_due = False
        self._acknowledge_now = False
        self._received_frames = 0
        self._received_bytes = 0
        self.received = 0
        """Numbered frames received in full: what a Hello tells the peer when the session is resumed."""
        self.control_backlog = 0
        """Bytes of messages that wait to be sent."""
        self.files: deque[BodyFile] | None = None
        """Files that came with what the link receives, in order; None if the link carries none."""
        self.takes_lanes = False
        """Whether this is the end of lanes: the peer, a controller, says which stream goes by one."""

    # --- sending -----------------------------------------------------------------------------------------

    def send(self, message: AnyMessage | Prepared, body: Sequence[Buffer] = ()) -> OutgoingStream | None:
        """Queue a message; a large body becomes a stream, which is returned."""
        size = size_of(body)
        if size <= limits.INLINE_BODY:
            self._queue_message(message, list(body), 0)
            return None
        stream = self.send_streamed(message, size)
        for buffer in body:
            self.feed(stream, buffer)
        return stream

    def send_streamed(self, message: AnyMessage | Prepared, total: int) -> OutgoingStream:
        """Queue a message whose body of ``total`` bytes will be fed to the stream returned."""
        if total <= 0:
            raise LocalProtocolError(f"a {type(message).__name__} whose body of {total} bytes is to be a stream")
        stream = OutgoingStream(self._next_stream, total, min(self._credit, total))
        self._queue_message(message, [], stream.id)
        self._next_stream += 1
        self._streams[stream.id] = stream
        return stream

    def _queue_message(self, message: AnyMessage | Prepared, body: list[Buffer], stream: int) -> None:
        name, header = (
            message if isinstance(message, Prepared) else (type(message).__name__, messages.encode(message))
        )
        bulk = size_of(body) if body else 0
        length = HEADER_LENGTH.size + len(header) + bulk
        check_length(name, length)
        head = prefix(FrameKind.MESSAGE, length, stream) + HEADER_LENGTH.pack(len(header)) + header
        if bulk <= 16 * limits.KIB:
            frame: list[Buffer] = [b"".join([head, *body])]
        else:
            # The caller may change or reuse its buffers once send() has returned.
            frame = [head, *[bytes(b) for b in body]]
        self._queue(True, frame)

    def _queue(self, numbered: bool, frame: Sequence[Buffer]) -> None:
        self._control.append((numbered, frame))
        self.control_backlog += size_of(frame)

    def grant(self, stream: int, size: int) -> None:
        """Allow the peer to send ``size`` more bytes of its stream."""
        incoming = self._incoming.get(stream)
        if incoming is None or incoming.refused or size <= 0:
            return
        size = min(size, incoming.total - incoming.granted)
        if size:
            incoming.granted += size
            self._queue(True, [prefix(FrameKind.CREDIT, COUNT.size, stream) + COUNT.pack(size)])

    def allow_files(self, stream: int) -> None:
        """Allow the peer to send its stream in files, where the link carries them; before :meth:`grant`."""
        incoming = self._incoming.get(stream)
        if self.files is not None and incoming is not None and not incoming.files:
            incoming.files = True
            self._queue(True, [prefix(FrameKind.FILES, 0, stream)])

    def allow_lane(self, stream: int, lane: int) -> None:
        """Allow the peer to send what is left of its stream by a bulk lane."""
        incoming = self._incoming.get(stream)
        if incoming is not None and not (incoming.refused or incoming.lane):
            incoming.lane = lane
            self.send(messages.UseLane(stream, lane))

    def carry(self, stream: int, make: Callable[[OutgoingStream], Carrier]) -> None:
        """Send what is left of a stream of ours by a bulk lane, unless it goes in files."""
        outgoing = self._streams.get(stream)
        if outgoing is not None and outgoing.carrier is None and not outgoing.files:
            outgoing.carrier = make(outgoing)

    def is_coming(self, stream: int) -> bool:
        """Whether more of a stream of the peer's can arrive: announced, not complete, aborted or refused."""
        incoming = self._incoming.get(stream)
        return incoming is not None and not incoming.refused

    def is_held(self, stream: OutgoingStream) -> bool:
        """Whether memory that was fed to a stream of ours is still needed: not sent, or not acknowledged."""
        return stream.id in self._streams or not self._outbox.is_free(stream.last_frame)

    def detach(self) -> None:
        """Copy what waits for its acknowledgement, so that the memory of streams that were sent is free."""
        self._outbox.detach()
        self._control = deque(item if item[0] else (False, copied(item[1])) for item in self._control)

    def refuse(self, stream: int) -> None:
        """Tell the peer that its stream is not wanted (any more)."""
        incoming = self._incoming.get(stream)
        if incoming is not None and not incoming.refused:
            incoming.refused = True
            self._queue(True, [prefix(FrameKind.REFUSE, 0, stream)])

    def abort(self, stream: OutgoingStream) -> None:
        """Give up a stream of ours."""
        if self._streams.pop(stream.id, None) is not None:
            stream.clear()
            self._queue(True, [prefix(FrameKind.ABORT, 0, stream.id)])

    def feed(self, stream: OutgoingStream, data: Buffer | BodyFile | LanePart) -> None:
        """Append data to a stream of ours (one that was given up swallows it)."""
        if stream.id in self._streams:
            stream.feed(data)
            self._schedule(stream)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._ping_due = True

    def _schedule(self, stream: OutgoingStream) -> None:
        if stream.ready > 0 and stream not in self._ready:
            self._ready.append(stream)

    @property
    def wants_to_send(self) -> bool:
        """Whether :meth:`data_to_send` has anything."""
        if self._control:
            # What is sent again was counted before.
            frames = not self._control[0][0] or not self.is_stalled
        else:
            frames = bool(self._ready) and not self.is_stalled
        return frames or self._pong_due or self._ping_due or self._acknowledge_now

    @property
    def is_stalled(self) -> bool:
        """Whether the peer has to acknowledge something before anything more is sent to it."""
        return self._outbox.size >= self._unacknowledged

    @property
    def owes_acknowledgement(self) -> bool:
        """Whether frames have arrived of which the peer does not know that; see :meth:`acknowledge`."""
        return self._resumable and self._received_frames > 0

    def acknowledge(self) -> None:
        """Tell the peer soon what has arrived: until then it keeps it, in its user's own arrays."""
        self._acknowledge_now = self.owes_acknowledgement

    def data_to_send(self, budget: int = limits.CHUNK) -> list[Buffer]:
        """Buffers to put on the wire now: all control frames up to about ``budget`` bytes, then chunks."""
        out: list[Buffer] = self._signs()
        size = 0
        while self._control and size < budget:
            numbered, frame = self._control[0]
            if numbered and self.is_stalled:
                return out
            self._control.popleft()
            length = size_of(frame)
            self.control_backlog -= length
            size += length
            if numbered:
                self._number(frame, length)
            out += frame
        while self._ready and size < budget and not self.is_stalled:
            stream = self._ready.popleft()
            if stream.ready > 0 and stream.id in self._streams:
                size += self._send_part(stream, out)
        return out

    def _send_part(self, stream: OutgoingStream, out: list[Buffer]) -> int:
        """Append the next frame of a stream; its bytes."""
        files = stream.files and self.files is not None
        part = stream.take_lane_part()
        file = stream.take_file() if files and part is None else None
        if part is not None:
            frame: list[Buffer] = [part.frame(stream.id)]
            size = len(frame[0])
        elif file is not None:
            frame = [FileFrame.make(stream, file)]
            size = limits.CHUNK  # what the peer need not copy costs it something, too
        else:
            parts = stream.take(min(stream.ready, limits.CHUNK), files=files)
            size = size_of(parts)
            frame = [prefix(FrameKind.CHUNK, size, stream.id), *parts]
        self._number(frame, size)
        stream.last_frame = self._outbox.sent
        out += frame
        if stream.sent == stream.total:
            del self._streams[stream.id]
        elif stream.ready > 0:
            self._ready.append(stream)
        return size

    def _signs(self) -> list[Buffer]:
        """What is not numbered, and goes before all else."""
        if not (self._pong_due or self._ping_due or self._acknowledge_now):
            return []
        out: list[Buffer] = []
        if self.owes_acknowledgement:
            out.append(prefix(FrameKind.ACK, COUNT.size) + COUNT.pack(self.received))
        self._acknowledge_now = False
        self._received_frames = self._received_bytes = 0
        if self._pong_due:
            out.append(prefix(FrameKind.PONG, 0))
        if self._ping_due:
            out.append(prefix(FrameKind.PING, 0))
        self._ping_due = self._pong_due = False
        return out

    def _number(self, frame: Sequence[Buffer], size: int) -> None:
        if self._resumable:
            self._outbox.append(frame, size)

    def resume(self, peer_received: int, *, files: bool = False) -> None:
        """Go on over a new link, which may carry ``files``; the peer has received that many numbered frames."""
        self._outbox.acknowledge(peer_received)
        if not files:
            self._take_files_back()
        self.files = None
        # What was numbered already must not be numbered again; what belongs to the old link only (pings) is
        # dropped; numbered frames that were not sent yet follow.
        self._ping_due = self._pong_due = False
        again = [(False, frame) for frame in self._outbox.unacknowledged()]
        self._control = deque([*again, *(item for item in self._control if item[0])])
        self.control_backlog = sum(size_of(frame) for _, frame in self._control)
        self._buffer.clear()
        if self._chunk:
            self._skip += self._handed_on
        self._chunk = None
        self._handed_on = 0

    def _take_files_back(self) -> None:
        """What the peer was to get in files goes in chunks, as soon as there is credit."""
        for stream, parts in withdraw_files(self._outbox):
            if not stream.is_over:
                stream.put_back(parts)
                self._streams[stream.id] = stream
                self._schedule(stream)

    # --- receiving ---------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer) -> Iterator[Event]:
        """The events in ``data``, which may hold any part of any number of frames.

        Consume the iterator to its end before the next call. Pieces of streams are views of ``data``.
        """
        view = memoryview(data)
        while len(view):
            if self._chunk:
                stream, left = self._chunk
                piece, view = view[:left], view[left:]
                yield from self._receive_piece(stream, piece, left)
                continue
            view, frame = self._next_frame(view)
            if frame is None:
                return
            kind, stream, payload = frame
            if kind is FrameKind.CHUNK:
                continue
            if kind in NUMBERED:
                self._count(len(payload) + PREFIX.size)
            event = self._dispatch(kind, stream, payload)
            if event is not None:
                yield event

    def _next_frame(self, view: memoryview) -> tuple[memoryview, tuple[FrameKind, int, memoryview] | None]:
        """The rest of ``view`` and the first frame in it, or None while it is incomplete.

        The payload of a CHUNK is not waited for; its beginning is noted in ``_chunk``.
        """
        buffered = len(self._buffer)
        if buffered < PREFIX.size:
            if buffered == 0 and len(view) >= PREFIX.size:
                head: Buffer = view[: PREFIX.size]
                kind, length, stream = parse_prefix(head)
                if kind is FrameKind.CHUNK:
                    self._begin_chunk(stream, length)
                    return view[PREFIX.size :], (kind, stream, view[:0])
                end = PREFIX.size + length
                if len(view) >= end:
                    return view[end:], (kind, stream, view[PREFIX.size : end])
                self._buffer += view
                return view[:0], None
            need = PREFIX.size - buffered
            self._buffer += view[:need]
            view = view[need:]
            if len(self._buffer) < PREFIX.size:
                return view, None
        kind, length, stream = parse_prefix(bytes(self._buffer[: PREFIX.size]))
        if kind is FrameKind.CHUNK:
            self._buffer.clear()
            self._begin_chunk(stream, length)
            return view, (kind, stream, view[:0])
        need = PREFIX.size + length - len(self._buffer)
        self._buffer += view[:need]
        view = view[need:]
        if len(self._buffer) < PREFIX.size + length:
            return view, None
        payload = memoryview(bytes(self._buffer))[PREFIX.size :]
        self._buffer.clear()
        return view, (kind, stream, payload)

    def _count(self, size: int) -> None:
        self.received += 1
        self._received_frames += 1
        self._received_bytes += size
        if self._received_frames >= limits.ACK_FRAMES or self._received_bytes >= limits.ACK_BYTES:
            self.acknowledge()

    def _begin_chunk(self, stream: int, length: int) -> None:
        incoming = self._incoming.get(stream)
        if incoming is None:
            raise RemoteProtocolError(f"a chunk of stream {stream}, which is not open")
        if incoming.received - self._skip + length > incoming.granted:
            raise RemoteProtocolError(f"a chunk of stream {stream} that exceeds the credit given")
        self._chunk = (stream, length)
        self._handed_on = 0

    def _receive_piece(self, number: int, piece: memoryview, left: int) -> Iterator[Event]:
        self._handed_on += len(piece)
        size = len(piece)
        self._chunk = (number, left - size) if left > size else None
        if self._chunk is None:
            self._count(self._handed_on + PREFIX.size)
        if self._skip:
            skipped = min(self._skip, size)
            self._skip -= skipped
            piece = piece[skipped:]
        incoming = self._incoming[number]
        incoming.received += len(piece)
        last = incoming.received == incoming.total
        if last:
            del self._incoming[number]
            self.acknowledge()
        if len(piece) and not incoming.refused:
            yield DataReceived(number, piece, last)

    def _dispatch(self, kind: FrameKind, stream: int, payload: memoryview) -> Event | None:
        if kind is FrameKind.MESSAGE:
            return self._receive_message(stream, payload)
        if kind is FrameKind.CREDIT:
            return self._receive_credit(stream, COUNT.unpack(payload)[0])
        if kind is FrameKind.ACK:
            self._outbox.acknowledge(COUNT.unpack(payload)[0])
        elif kind is FrameKind.PING:
            self._pong_due = True  # one answer for all that were asked meanwhile
        elif kind is FrameKind.REFUSE:
            outgoing = self._streams.pop(stream, None)
            if outgoing is not None:
                outgoing.clear()
                self._queue(True, [prefix(FrameKind.ABORT, 0, stream)])
                return StreamRefused(stream)
        elif kind is FrameKind.FILES:
            if (outgoing := self._streams.get(stream)) is not None:
                outgoing.files = True
        elif kind is FrameKind.FILE:
            return self._receive_file(stream, COUNT.unpack(payload)[0])
        elif kind is FrameKind.PASSED:
            return self._receive_passed(stream, LanePart.parsed(payload))
        elif kind is FrameKind.ABORT:
            incoming = self._incoming.pop(stream, None)
            if incoming is not None:
                self.acknowledge()
                is_told = self.takes_lanes or not incoming.refused
                return StreamAborted(stream, was_refused=incoming.refused) if is_told else None
        return None

    def _receive_file(self, number: int, size: int) -> Event | None:
        incoming = self._incoming.get(number)
        if incoming is None or not incoming.files:
            raise RemoteProtocolError(f"a file for stream {number}, which takes none")
        last = incoming.take(size, number, "a file")
        if not self.files:
            raise RemoteProtocolError(f"a frame of stream {number} that announces a file, and none came with it")
        file = self.files.popleft()
        file.claim(size)
        return self._beside(number, incoming, file, last)

    def _receive_passed(self, number: int, part: LanePart) -> Event | None:
        incoming = self._incoming.get(number)
        if incoming is None or not (self.takes_lanes or incoming.lane == part.lane > 0):
            raise RemoteProtocolError(f"bytes of stream {number} that go by lane {part.lane}, which is not for it")
        return self._beside(number, incoming, part, incoming.take(part.size, number, "a part"))

    def _beside(self, number: int, stream: IncomingStream, data: BodyFile | LanePart, last: bool) -> Event | None:
        if last:
            del self._incoming[number]
        self.acknowledge()  # the sender keeps its memory until then
        # The end of a lane has to know what comes by it, wanted or not.
        is_dropped = stream.refused and not (self.takes_lanes and isinstance(data, LanePart))
        return None if is_dropped else DataReceived(number, data, last)

    def _receive_credit(self, number: int, size: int) -> Event | None:
        stream = self._streams.get(number)
        if stream is None:
            return None
        stream.credit += size
        if stream.credit > stream.total:
            raise RemoteProtocolError(f"credit for more than stream {number} has")
        self._schedule(stream)
        return CreditReceived(number)

    def _receive_message(self, stream: int, payload: memoryview) -> Event:
        message, inline = opened(payload, self._may_receive)
        sizes = sizes_of(message)
        if not sizes and not stream and not len(inline):
            return MessageReceived(message, [], 0)
        total = sum(sizes)
        if stream:
            if len(inline) or not total or stream in self._incoming:
                raise RemoteProtocolError("a body that is announced twice, or not at all")
            self._incoming[stream] = IncomingStream(total, min(self._credit, total))
            return MessageReceived(message, [], stream)
        if total != len(inline):
            raise RemoteProtocolError(f"a body of {len(inline)} bytes that was announced with {total}")
        return MessageReceived(message, cut(inline, sizes), 0)
