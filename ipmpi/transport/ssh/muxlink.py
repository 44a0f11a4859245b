"""Both ends of an ssh session: two pipes pumped into one Mux, and sockets joined to its channels."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ... import limits
from ...errors import RemoteProtocolError
from ...protocol import mux
from ...protocol.frames import Buffer
from ...protocol.liveness import Liveness
from ..loop import READ, WRITE, Loop, Timer
from ..pipes import PipeClosed, closed_by, flush_socket

log = logging.getLogger("ipmpi")

_READ_SIZE = 256 * limits.KIB
_READS_A_TURN = 8
_GATHER = 64


class ChannelEnd(Protocol):
    """What a channel leads to in this process."""

    def opened(self) -> None:
        """The far end has what was asked for."""
        ...

    def data(self, data: bytes) -> None:
        """Bytes arrived; the link is told by ``consumed`` when they have left."""
        ...

    def room(self) -> None:
        """More can be sent again."""
        ...

    def ended(self, code: int, text: str) -> None:
        """The other end sends no more."""
        ...

    def lost(self, reason: str) -> None:
        """The channel is over; nothing more can be done with it."""
        ...


class MuxLink:
    """Moves bytes between two pipes and a Mux, and events to the ends of its channels.

    Args:
        reader, writer: descriptors of the pipes, which this closes.
        on_request: called for what the near end asks for.
        on_closed: called once, at the end, with the reason; all channels have been told before.
        silence: seconds without a byte after which the other end counts as lost.
    """

    def __init__(
        self,
        loop: Loop,
        reader: int,
        writer: int,
        *,
        near: bool,
        on_closed: Callable[[str], None],
        on_request: Callable[[int, mux.Request], None] = lambda channel, request: None,
        silence: float = limits.SILENCE,
    ) -> None:
        self.loop = loop
        self.mux = mux.Mux(near=near)
        self._reader = reader
        self._writer = writer
        self._on_closed = on_closed
        self._on_request = on_request
        self._ends: dict[int, ChannelEnd] = {}
        self._waiting: set[int] = set()
        """Channels that would send, and have no room."""
        self._out: deque[memoryview] = deque()
        self._writing = False
        self._reading = True
        self._open = True
        self.on_idle: Callable[[], None] = lambda: None
        """Called whenever the last channel has come to its end."""
        self.is_broken = False
        """Whether the pipes ended under it, without a goodbye."""
        self._liveness = Liveness(loop.now(), silence)
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        loop.register(reader, READ, self._readable)
        self._timer: Timer = loop.call_later(limits.PING_INTERVAL / 3, self._watch)

    @property
    def is_open(self) -> bool:
        """Whether it still works."""
        return self._open

    @property
    def is_idle(self) -> bool:
        """Whether there is no channel."""
        return not self._ends

    def attach(self, channel: int, end: ChannelEnd) -> None:
        """Tell ``end`` what happens on a channel."""
        self._ends[channel] = end

    def open(self, request: mux.Request, end: ChannelEnd) -> int:
        """Open a channel that leads to ``end`` here."""
        channel = self.mux.open(request)
        self._ends[channel] = end
        self.wake()
        return channel

    def accept(self, channel: int) -> None:
        """What was asked for is there."""
        self.mux.accept(channel)
        self.wake()

    def send(self, channel: int, data: Buffer) -> None:
        """Send bytes, for which there is room."""
        self.mux.send(channel, data)
        self.wake()

    def end(self, channel: int, code: int = 0, text: str = "") -> None:
        """Send no more on a channel."""
        self.mux.end(channel, code, text)
        self.wake()

    def detach(self, channel: int) -> None:
        """Its end is done with this channel."""
        self._ends.pop(channel, None)
        self._waiting.discard(channel)
        if self.is_idle:
            self.on_idle()

    def reset(self, channel: int, reason: str) -> None:
        """End a channel at once. Its end is not told, as it knows."""
        self.detach(channel)
        self.mux.reset(channel, reason)
        self.wake()

    def consumed(self, channel: int, count: int) -> None:
        """Bytes of a channel have left."""
        self.mux.consumed(channel, count)
        if self.mux.wants_to_send:
            self.wake()

    def room(self, channel: int) -> int:
        """Bytes that a channel takes now; if none, its end hears when there is room again."""
        free = self.mux.room(channel)
        if free <= 0 and channel in self._ends:
            self._waiting.add(channel)
        return max(free, 0)

    def wake(self) -> None:
        """There is something to send."""
        if self._open and not self._writing:
            self.loop.call_at_turn_end(self._write)

    def close(self, reason: str) -> None:
        """Say goodbye and end; channels and owner are told."""
        if self._open:
            self.mux.bye(reason)
            self._write()
            self._end(reason)

    # --- pumping -----------------------------------------------------------------------------------------

    def _readable(self, _events: int) -> None:
        try:
            for _ in range(_READS_A_TURN):
                if not self._open or not self._reading:
                    return
                data = self._read()
                if data is None:
                    return
                self._receive(data)
        except RemoteProtocolError as error:
            self.close(str(error))
        except Exception as error:
            # A bug of ours must not keep a tunnel that is half alive.
            log.exception("an ssh session failed in a way that was not foreseen; please report this")
            self._end(f"an error in ipmpi: {error!r}")

    def _read(self) -> bytes | None:
        try:
            data = os.read(self._reader, _READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            self._break(error.strerror or str(error))
            return None
        if not data:
            self._break("the other end is gone")
            return None
        return data

    def feed(self, data: bytes) -> None:
        """Bytes that came before this was made."""
        try:
            self._receive(data)
        except RemoteProtocolError as error:
            self.close(str(error))

    def _receive(self, data: bytes) -> None:
        self._liveness.heard(self.loop.now())
        for event in self.mux.receive_data(data):
            self._handle(event)
            if not self._open:
                return
        if self.mux.wants_to_send:
            self.wake()
        self._watch_reader()

    def _watch_reader(self) -> None:
        """Do not read from a peer that does not read: answers to it would pile up."""
        reading = self.mux.control_backlog < limits.MUX_CONTROL
        if reading != self._reading and self._open:
            self._reading = reading
            if reading:
                self.loop.register(self._reader, READ, self._readable)
            else:
                self.loop.unregister(self._reader)

    def _handle(self, event: mux.Event) -> None:
        if isinstance(event, mux.Requested):
            self._on_request(event.channel, event.request)
            return
        if isinstance(event, mux.Bye):
            self._end(event.reason or "the other end left")
            return
        end = self._ends.get(event.channel)
        if end is None:
            return
        if isinstance(event, mux.Data):
            end.data(event.data)
        elif isinstance(event, mux.Room):
            self._offer_room(event.channel)
        elif isinstance(event, mux.Ended):
            end.ended(event.code, event.text)
        elif isinstance(event, mux.Opened):
            end.opened()
        else:
            self.detach(event.channel)
            end.lost(event.reason)

    def _offer_room(self, channel: int) -> None:
        end = self._ends.get(channel)
        if end is not None and channel in self._waiting and self.mux.room(channel) > 0:
            self._waiting.discard(channel)
            end.room()

    def _write(self) -> None:
        if not self._open:
            return
        try:
            done = self._flush()
            while done and self.mux.wants_to_send:
                self._out.extend(memoryview(buffer) for buffer in self.mux.data_to_send() if len(buffer))
                for channel in list(self._waiting):
                    self._offer_room(channel)
                done = self._flush()
        except OSError as error:
            self._break(error.strerror or str(error))
            return
        if done == self._writing:
            self._writing = not done
            if done:
                self.loop.unregister(self._writer)
            else:
                self.loop.register(self._writer, WRITE, lambda events: self._write())
        self._watch_reader()

    def _flush(self) -> bool:
        while self._out:
            try:
                count = os.writev(self._writer, [self._out[i] for i in range(min(len(self._out), _GATHER))])
            except (BlockingIOError, InterruptedError):
                return False
            while count:
                first = self._out[0]
                if len(first) > count:
                    self._out[0] = first[count:]
                    break
                count -= len(first)
                self._out.popleft()
        return True

    def _watch(self) -> None:
        if self._liveness.is_lost(self.loop.now()):
            # Perhaps it is this thread that was kept from reading, by a library that holds the GIL.
            self._readable(READ)
        now = self.loop.now()
        if not self._open:
            return
        if self._liveness.is_lost(now):
            self._break(f"nothing was heard for {self._liveness.silence:.0f} s")
            return
        if self._liveness.should_ping(now):
            self.mux.ping()
            self.wake()
        self._timer = self.loop.call_later(limits.PING_INTERVAL / 3, self._watch)

    def _break(self, reason: str) -> None:
        self.is_broken = True
        self._end(reason)

    def _end(self, reason: str) -> None:
        if not self._open:
            return
        self._open = False
        self._timer.cancel()
        self.loop.unregister(self._reader)
        self.loop.unregister(self._writer)
        os.close(self._reader)
        if self._writer != self._reader:
            os.close(self._writer)
        ends, self._ends = self._ends, {}
        self._waiting.clear()
        for end in ends.values():
            end.lost(reason)
        self._on_closed(reason)


class SocketForwarder:
    """Joins a socket to a channel, until both have ended in both directions.

    Args:
        keep: takes the socket if the link breaks; without it, it is closed.
    """

    def __init__(
        self,
        link: MuxLink,
        channel: int,
        sock: socket.socket,
        keep: Callable[[socket.socket], None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self._keep = keep
        self._link = link
        self._channel = channel
        self._sock = sock
        self._out: deque[memoryview] = deque()
        self._events = 0
        self._read_over = False
        self._peer_over = False
        self._write_over = False
        self._closed = False
        link.attach(channel, self)
        self._watch()

    def opened(self) -> None:
        """Nothing to do: it is made when there is a socket."""

    def data(self, data: bytes) -> None:
        """Bytes for the socket."""
        if self._write_over or self._closed:
            return
        self._out.append(memoryview(data))
        self._write()

    def room(self) -> None:
        """The socket may be read again."""
        self._watch()

    def ended(self, code: int, text: str) -> None:
        """The other end sends no more: neither does the socket, once what came is out."""
        del code, text
        self._peer_over = True
        self._write()

    def lost(self, reason: str) -> None:
        """The channel is gone."""
        del reason
        if self._keep is not None and self._link.is_broken and not self._closed:
            self._closed = True
            self._link.loop.unregister(self._sock)
            self._keep(self._sock)
        else:
            self._close()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if events & READ and not self._closed and not self._read_over:
            self._read()

    def _read(self) -> None:
        room = self._link.room(self._channel)
        if room:
            try:
                data = self._sock.recv(room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(closed_by(error))
                return
            if data:
                self._link.send(self._channel, data)
            else:
                self._read_over = True
                self._link.end(self._channel)
        self._watch()
        self._close_if_over()

    def _write(self) -> None:
        if self._closed:
            return
        try:
            done = flush_socket(self._sock, self._out, self._sent)
        except PipeClosed as closed:
            self._fail(closed)
            return
        if done and self._peer_over and not self._write_over:
            self._write_over = True
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._fail(closed_by(error))
                return
        self._watch()
        self._close_if_over()

    def _sent(self, count: int) -> None:
        self._link.consumed(self._channel, count)

    def _watch(self) -> None:
        """Wait for what can be done: without credit the socket is not read, so its own sender stops."""
        if self._closed:
            return
        events = WRITE if self._out else 0
        if not self._read_over and self._link.room(self._channel):
            events |= READ
        if events == self._events:
            return
        self._events = events
        if events:
            self._link.loop.register(self._sock, events, self._ready)
        else:
            self._link.loop.unregister(self._sock)

    def _fail(self, closed: PipeClosed) -> None:
        self._link.reset(self._channel, str(closed))
        self._close()

    def _close_if_over(self) -> None:
        if self._read_over and self._write_over:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.detach(self._channel)
            self._link.loop.unregister(self._sock)
            self._sock.close()
            self._out.clear()
