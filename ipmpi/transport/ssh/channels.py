"""Both ends of an ssh session: a link over its two pipes, and channels in it, joined to what they lead to.

Each direction of a channel may have SSH_WINDOW bytes under way. Its receiver gives new credit when data has left
for good, so a channel that nobody reads stops its own sender, holds a window of memory, and disturbs no other: the
pipes are always read. A sender takes data in only as far as there is credit, and one chunk ahead
(:meth:`Channel.room`), so nothing piles up at its end either.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

from ... import limits
from ...errors import KernelError, LocalProtocolError, RemoteProtocolError
from ...protocol import sshmessages as m
from ...protocol.connection import (
    Connection,
    CreditReceived,
    DataReceived,
    Event,
    MessageReceived,
    StreamAborted,
    prepare,
)
from ...protocol.frames import Buffer
from ...protocol.handshake import printable
from ...protocol.messages import AnyMessage, Goodbye, encode
from ...protocol.permissions import Table
from ...protocol.streams import OutgoingStream
from ..link import Link
from ..loop import READ, WRITE, Loop
from ..pipes import Pipe, PipeClosed, closed_by, flush


class ChannelUser:
    """What a channel leads to in this process; by default it takes no data, and does nothing."""

    def opened(self) -> None:
        """The far end has what was asked for."""

    def data(self, data: memoryview) -> None:
        """Bytes arrived; the channel is told by ``consumed`` when they have left."""
        raise RemoteProtocolError(f"{len(data)} bytes on a channel that is not open yet")

    def room(self) -> None:
        """More can be sent again."""

    def ended(self) -> None:
        """The other end sends no more."""

    def answered(self, code: int, text: str) -> None:
        """What was asked for is over, and how it went."""

    def lost(self, reason: str) -> None:
        """The channel is over; nothing more can be done with it."""


_NOBODY = ChannelUser()


class Channel:
    """One end of a channel.

    Attributes:
        user: told what happens.
    """

    def __init__(self, link: ChannelLink, number: int, user: ChannelUser) -> None:
        self.link = link
        self.number = number
        self.user = user
        self.incoming = 0
        self.outgoing: OutgoingStream | None = None
        self._consumed = 0
        """Bytes that have left, and for which no new credit was given yet."""
        self._is_ending = False
        self._last_word: m.Ended | None = None

    def accept(self) -> None:
        """What was asked for is there."""
        self.outgoing = self.link.connection.send_streamed(m.Opened(self.number), m.ENDLESS)
        self.link.wake()

    def room(self) -> int:
        """Bytes that :meth:`send` takes now; if none, the user hears when there is room again."""
        stream = self.outgoing
        if stream is None or self._is_ending:
            return 0
        free = min(stream.credit, stream.sent + limits.SSH_CHUNK) - stream.fed
        if free > 0:
            return free
        self.link.wait_for_room(self)
        return 0

    def send(self, data: Buffer) -> None:
        """Send bytes, for which there is room."""
        if self.outgoing is not None:
            self.link.connection.feed(self.outgoing, data)
            self.link.wake()

    def end(self, last_word: m.Ended | None = None) -> None:
        """Send no more, after what was sent so far."""
        self._is_ending, self._last_word = True, last_word
        self.offer_room()

    def offer_room(self) -> None:
        """More may have gone out: do what waits for that."""
        if not self._is_ending:
            if self.room():
                self.user.room()
        elif self.outgoing is None or self.outgoing.sent == self.outgoing.fed:
            self._end()
        else:
            self.link.wait_for_room(self)

    def _end(self) -> None:
        if self._last_word is not None:
            self.link.connection.send(self._last_word)
        self._abort()
        self._is_ending = False
        if self.user is _NOBODY:
            self.link.forget(self)

    def _abort(self) -> None:
        if self.outgoing is not None:
            self.link.connection.abort(self.outgoing)
            self.outgoing = None
        self.link.wake()

    def consumed(self, count: int) -> None:
        """Bytes that arrived have left; the other end may send as many."""
        self._consumed += count
        # A frame for each quarter: three quarters are still under way, so the sender need not stop.
        if self._consumed >= limits.SSH_WINDOW // 4:
            self.link.connection.grant(self.incoming, self._consumed)
            self._consumed = 0
            self.link.wake()

    def detach(self) -> None:
        """Its user is done with it."""
        self.user = _NOBODY
        if not self._is_ending:
            self.link.forget(self)

    def reset(self, reason: str) -> None:
        """End it at once, both ways. Its user is not told, as it knows."""
        self.link.connection.send(m.ChannelReset(self.number, m.sendable(reason)))
        self.drop()

    def drop(self) -> None:
        """Forget it, and what was to be sent on it."""
        self._is_ending = False
        self._abort()
        self.link.forget(self)


class ChannelLink:
    """Moves bytes between two pipes and a connection, and events to the users of its channels.

    Args:
        pipe: what the other end writes to and reads; this closes it.
        may_receive: what the other end may say.
        on_request: called with a new channel for what the laptop asks for.
        on_closed: called once, at the end; all channels have been told before.
        silence: seconds without a byte after which the other end counts as lost.
        pause_above: see :class:`~ipmpi.transport.link.Link`.

    Attributes:
        on_idle: called whenever the last channel has come to its end.
        is_broken: whether the pipes ended under it, without a goodbye.
    """

    def __init__(
        self,
        loop: Loop,
        pipe: Pipe,
        may_receive: Table,
        on_closed: Callable[[], None],
        *,
        on_request: Callable[[Channel, m.Request], None] = lambda channel, request: None,
        silence: float = limits.SILENCE,
        pause_above: int = 0,
    ) -> None:
        self.loop = loop
        self.connection = Connection(may_receive, resumable=False, credit=limits.SSH_WINDOW)
        self._on_closed = on_closed
        self._on_request = on_request
        self._channels: dict[int, Channel] = {}
        self._by_stream: dict[int, Channel] = {}
        self._waiting: dict[Channel, None] = {}
        """Channels that would send, and have no room."""
        self._newest = 0
        self._opened = 0
        self.on_idle: Callable[[], None] = lambda: None
        self.is_broken = False
        self._link = Link(
            loop, pipe, self.connection, self._handle, self._closed,
            silence=silence, pause_above=pause_above, on_taken=self._offer_room,
        )  # fmt: skip
        self.wake = self._link.wake
        self.feed = self._link.feed

    @property
    def is_open(self) -> bool:
        """Whether it still works."""
        return self._link.is_open

    @property
    def is_idle(self) -> bool:
        """Whether there is no channel."""
        return not self._channels

    def open(self, ask: Callable[[int], m.Request], user: ChannelUser) -> Channel:
        """Open a channel that leads to ``user`` here.

        Args:
            ask: gives the request that opens the channel with this number.
            user: told what happens on it.

        Raises:
            LocalProtocolError: there are too many channels, or the request cannot be sent.
        """
        if len(self._channels) >= limits.SSH_CHANNELS:
            raise LocalProtocolError(
                f"there are {limits.SSH_CHANNELS} connections through this ssh session already"
            )
        request = ask(self._newest + 1)
        try:
            size = len(encode(request))
        except UnicodeEncodeError:
            raise LocalProtocolError("a request with bytes that are no text (UTF-8)") from None
        if size > limits.SSH_REQUEST:
            raise LocalProtocolError(f"a request of {size} bytes; {limits.SSH_REQUEST} is the limit")
        prepared = prepare(request)
        channel = self._add(user)
        if isinstance(request, m.ConnectTo):
            channel.outgoing = self.connection.send_streamed(prepared, m.ENDLESS)
        else:
            self.connection.send(prepared)
        self.wake()
        return channel

    def _add(self, user: ChannelUser) -> Channel:
        self._newest += 1
        channel = self._channels[self._newest] = Channel(self, self._newest, user)
        return channel

    def wait_for_room(self, channel: Channel) -> None:
        """Tell a channel when more may have gone out."""
        self._waiting[channel] = None

    def forget(self, channel: Channel) -> None:
        """A channel has come to its end."""
        self._channels.pop(channel.number, None)
        self._by_stream.pop(channel.incoming, None)
        self._waiting.pop(channel, None)
        if self.is_idle:
            self.on_idle()

    def close(self, reason: str) -> None:
        """Say goodbye and end; channels and owner are told."""
        if self.is_open:
            self.connection.send(Goodbye(m.sendable(reason)))
            self._link.close(reason)

    def _offer_room(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for channel in waiting:
            channel.offer_room()

    # --- what the other end says -------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            channel = self._by_stream.get(event.stream)
            if channel is not None and isinstance(event.data, memoryview):  # as always: there are no files
                channel.user.data(event.data)
        elif isinstance(event, MessageReceived):
            self._hear(event.message, event.stream)
        elif isinstance(event, CreditReceived):
            self._offer_room()
        elif isinstance(event, StreamAborted):
            channel = self._by_stream.pop(event.stream, None)
            if channel is not None:
                channel.user.ended()

    def _hear(self, message: AnyMessage, stream: int) -> None:
        if isinstance(message, Goodbye):
            self._link.close(printable(message.reason, limits.SSH_TEXT) or "the other end left")
        elif isinstance(message, m.Request):
            self._begin(message, stream)
        elif isinstance(message, m.Answer):
            if not 0 < message.channel <= self._newest:
                raise RemoteProtocolError(
                    f"{type(message).__name__} of channel {message.channel}, which was never opened"
                )
            channel = self._channels.get(message.channel)
            if isinstance(message, m.Opened):
                self._accepted(channel, stream)
            elif channel is not None:  # what was under way when a channel was reset here still arrives
                self._end(channel, message)

    def _begin(self, request: m.Request, stream: int) -> None:
        if request.channel != self._newest + 1:
            raise RemoteProtocolError(f"channel {request.channel} is opened where {self._newest + 1} is next")
        if len(self._channels) >= limits.SSH_CHANNELS:
            raise RemoteProtocolError(f"more than {limits.SSH_CHANNELS} channels")
        if isinstance(request, m.ConnectTo) != bool(stream):
            raise RemoteProtocolError("a connection without a stream")
        channel = self._add(_NOBODY)
        self._join(channel, stream)
        self._on_request(channel, request)

    def _accepted(self, channel: Channel | None, stream: int) -> None:
        self._opened += 1
        if not stream or self._opened > self._newest or (channel is not None and channel.incoming):
            raise RemoteProtocolError("a channel is opened twice, or without a stream")
        if channel is not None:
            self._join(channel, stream)
            channel.user.opened()

    def _join(self, channel: Channel, stream: int) -> None:
        if stream:
            channel.incoming = stream
            self._by_stream[stream] = channel

    @staticmethod
    def _end(channel: Channel, message: m.Ended | m.ChannelReset) -> None:
        if isinstance(message, m.Ended):
            channel.user.answered(message.code, printable(message.text, limits.SSH_TEXT))
        else:
            channel.drop()
            channel.user.lost(printable(message.reason, limits.SSH_TEXT))

    def _closed(self, reason: str, orderly: bool, error: KernelError | None) -> None:
        self.is_broken = not orderly and error is None
        channels, self._channels = self._channels, {}
        self._by_stream.clear()
        self._waiting.clear()
        for channel in channels.values():
            channel.user.lost(reason)
        self._on_closed()


class SocketForwarder(ChannelUser):
    """Joins a socket to a channel, until both have ended in both directions.

    Args:
        keep: takes the socket if the link breaks; without it, it is closed.
    """

    def __init__(
        self, channel: Channel, sock: socket.socket, keep: Callable[[socket.socket], None] | None = None
    ) -> None:
        sock.setblocking(False)
        self._keep = keep
        self._loop = channel.link.loop
        self._channel = channel
        self._sock = sock
        self._out: deque[memoryview] = deque()
        self._events = 0
        self._read_over = False
        self._peer_over = False
        self._write_over = False
        self._closed = False
        channel.user = self
        self._watch()

    def data(self, data: memoryview) -> None:
        """Bytes for the socket."""
        if self._write_over or self._closed:
            return
        self._out.append(data)
        self._write()
        if self._out:
            # A view of a few bytes would keep all that was read with them.
            self._out[-1] = memoryview(bytes(self._out[-1]))

    def room(self) -> None:
        """The socket may be read again."""
        self._watch()

    def ended(self) -> None:
        """The other end sends no more: neither does the socket, once what came is out."""
        self._peer_over = True
        self._write()

    def lost(self, reason: str) -> None:
        """The channel is gone."""
        del reason
        if self._keep is not None and self._channel.link.is_broken and not self._closed:
            self._closed = True
            self._loop.unregister(self._sock)
            self._keep(self._sock)
        else:
            self._close()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if events & READ and not self._closed and not self._read_over:
            self._read()

    def _read(self) -> None:
        room = self._channel.room()
        if room:
            try:
                data = self._sock.recv(room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(closed_by(error))
                return
            if data:
                self._channel.send(data)
            else:
                self._read_over = True
                self._channel.end()
        self._watch()
        self._close_if_over()

    def _write(self) -> None:
        if self._closed:
            return
        try:
            done = flush(self._sock.sendmsg, self._out, self._channel.consumed)
            if done and self._peer_over and not self._write_over:
                self._write_over = True
                self._sock.shutdown(socket.SHUT_WR)
        except (PipeClosed, OSError) as error:
            self._fail(closed_by(error) if isinstance(error, OSError) else error)
            return
        self._watch()
        self._close_if_over()

    def _watch(self) -> None:
        """Wait for what can be done: without credit the socket is not read, so its own sender stops."""
        if self._closed:
            return
        events = WRITE if self._out else 0
        if not self._read_over and self._channel.room():
            events |= READ
        if events == self._events:
            return
        self._events = events
        if events:
            self._loop.register(self._sock, events, self._ready)
        else:
            self._loop.unregister(self._sock)

    def _fail(self, closed: PipeClosed) -> None:
        self._channel.reset(str(closed))
        self._close()

    def _close_if_over(self) -> None:
        if self._read_over and self._write_over:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._channel.detach()
            self._loop.unregister(self._sock)
            self._sock.close()
            self._out.clear()
