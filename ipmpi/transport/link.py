"""A link: one pipe, pumped into and out of one Connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .. import limits
from ..errors import KernelError, RemoteProtocolError, internal_error
from ..protocol.connection import Connection, Event
from ..protocol.frames import Buffer
from ..protocol.liveness import Liveness
from ..protocol.messages import Goodbye
from .loop import READ, WRITE, Loop, Timer
from .pipes import Pipe, PipeClosed

_READS_A_TURN = 4
"""Pieces of up to a chunk that one link may read before the others have their turn. With half as many, bulk takes
4 % more processor time."""

_SMALL = 16 * limits.KIB

_EVENTS_A_TURN = 64
"""Events of a peer for which too much waits, and which acknowledges nothing, that are handled in one turn."""


def _nobody(*_: object) -> None:
    """Hear of nothing: the link has ended."""


class Link:
    """Moves bytes between ``pipe`` and ``connection`` until one of them ends.

    ``on_event(event)`` is called for every event; ``on_closed(reason, orderly, error)`` once, at the end. Without
    an ``error`` the session may go on over another link; if ``on_event`` raises, it may not. After anything was
    sent on the connection, call :meth:`wake`: it goes out at the end of the loop's turn.

    Args:
        watch: ask for signs of life, and end when there are none.
        silence: seconds without a sign of life after which the link ends.
        pause_above: read nothing while more bytes than this wait for the peer; 0 for no such limit. Only one end
            of a link may have one: two that wait for each other to read would wait for ever.
        on_taken: called whenever the pipe has taken what the connection had to send, as far as it goes at a time.
    """

    def __init__(
        self,
        loop: Loop,
        pipe: Pipe,
        connection: Connection,
        on_event: Callable[[Event], None],
        on_closed: Callable[[str, bool, KernelError | None], None],
        *,
        watch: bool = True,
        silence: float = limits.SILENCE,
        pause_above: int = 0,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        self.loop = loop
        self.pipe = pipe
        self.connection = connection
        self._on_event = on_event
        self._on_closed = on_closed
        self._open = True
        self._writing = False
        self._liveness = Liveness(loop.now(), silence)
        self._timer: Timer | None = None
        self._acknowledge_timer: Timer | None = None
        self._pause_above = pause_above
        self._on_taken = on_taken
        connection.files = pipe.files
        self._unheard: Iterator[Event] | None = None
        """While reading is paused: what has been read and not been looked at."""
        self._register()
        if watch:
            self._timer = loop.call_later(limits.PING_INTERVAL, self._watch, self.fail)
        # The pipe may hold the end of a handshake, the connection what an earlier link could not send.
        self.wake()

    @property
    def is_open(self) -> bool:
        """Whether the link still works."""
        return self._open

    @property
    def heard_at(self) -> float:
        """When the last byte came from the peer, or the link was made."""
        return self._liveness.heard_at

    def wake(self) -> None:
        """There is something to send."""
        if self._open and not self._writing:
            self.loop.call_at_turn_end(self._write, self.fail)

    def feed(self, data: Buffer) -> None:
        """Bytes that arrived before the link was made (the end of a handshake's last read)."""
        if len(data) and self._open:
            try:
                self._receive(data)
            except Exception as error:
                self.fail(error)

    def close(self, reason: str = "closed here") -> None:
        """End the link; what was queued and fits goes out before."""
        if self._open:
            self._send_what_fits()
            self._end(reason, True, None)

    def _ready(self, events: int) -> None:
        if events & READ:
            self.readable()
        if (events & WRITE or self._unheard is not None) and self._open:
            self._write()

    def _writable(self, _events: int) -> None:
        self._write()

    def fail(self, error: BaseException) -> None:
        """Something went wrong that nobody foresaw, while this peer was dealt with: that is its session's end.

        It cannot be resumed: the message counts as received, and nobody knows how much of what it asks for was
        done. Both ends log the reason, here with the traceback.
        """
        self.loop.report(error)
        if self._open:
            failure = internal_error(error, "while this peer was dealt with")
            try:
                self.connection.send(Goodbye(str(failure), True))
                self._send_what_fits()
            except Exception as another:
                self.loop.report(another)
            self._end(str(failure), False, failure)

    def readable(self) -> None:
        """Read what has arrived."""
        for _ in range(_READS_A_TURN):
            if not self._open or self._unheard is not None:
                return
            try:
                data = self.pipe.receive()
            except PipeClosed as closed:
                self._end(str(closed), closed.orderly, None)
                return
            if not len(data):
                return
            self._receive(data)
            if len(data) < _SMALL:
                return  # most likely all there was; if not, the loop comes back

    def _receive(self, data: Buffer) -> None:
        self._liveness.heard(self.loop.now())
        self._hear(self.connection.receive_data(data))

    def _hear(self, events: Iterator[Event]) -> None:
        """Handle events. If too much waits for the peer, the rest of them follows when it has read some."""
        connection, pause_above = self.connection, self._pause_above
        handled = 0
        try:
            for event in events:
                self._on_event(event)
                if not self._open:
                    return
                if pause_above and connection.control_backlog > pause_above:
                    handled += 1
                    if handled >= _EVENTS_A_TURN or not connection.is_stalled:
                        self._unheard = events
                        break
        except RemoteProtocolError as error:
            self._refuse(error)
            return
        if connection.wants_to_send or self._unheard is not None:
            self.wake()
        if connection.owes_acknowledgement and self._acknowledge_timer is None:
            self._acknowledge_timer = self.loop.call_later(limits.ACK_DELAY, self._acknowledge, self.fail)

    def _acknowledge(self) -> None:
        self._acknowledge_timer = None
        if self._open and self.connection.owes_acknowledgement:
            self.connection.acknowledge()
            self.wake()

    def _go_on(self) -> None:
        """Look at more of what was read before reading was paused."""
        events, self._unheard = self._unheard, None
        if events is not None and self._open:
            self._hear(events)
            if self._open:
                self._register()

    def _refuse(self, error: RemoteProtocolError) -> None:
        """Tell the peer why, if it listens, and end."""
        self.connection.send(Goodbye(str(error)))
        self._send_what_fits()
        self._end(str(error), False, error)

    def _send_what_fits(self) -> None:
        try:
            while self.connection.wants_to_send and self.pipe.flush():
                self.pipe.send(self.connection.data_to_send())
            self.pipe.flush()
        except PipeClosed:
            return

    def _hear_last_words(self) -> None:
        """Read what the peer said before it closed: it may have said goodbye, and why."""
        try:
            while self._open and len(data := self.pipe.receive()):
                self._receive(data)
        except PipeClosed as closed:
            if self._open:
                self._end(str(closed), closed.orderly, None)

    def _write(self) -> None:
        if not self._open:
            return
        try:
            done = self.pipe.flush()
            while done and (data := self.connection.data_to_send()):
                self.pipe.send(data)
                self._on_taken()
                done = self.pipe.flush()
        except PipeClosed as closed:
            self._hear_last_words()
            if self._open:
                self._end(str(closed), closed.orderly, None)
            return
        if done == self._writing:
            self._writing = not done
            self._register()
        if self._unheard is not None:
            # Who does not acknowledge is read on: the acknowledgement may be in it.
            if self.connection.is_stalled or self.connection.control_backlog <= self._pause_above:
                self.loop.call_soon(self._go_on, self.fail)
            else:
                self._register()

    def _register(self) -> None:
        """Wait for what is waited for."""
        reader, writer = self.pipe.fileno(), self.pipe.write_fileno()
        reading = READ if self._unheard is None else 0
        writing = WRITE if self._writing else 0
        if reader is None or writer is None:
            return
        if reader == writer:
            self.loop.register(reader, reading | writing, self._ready, self.fail)
            return
        # A pipe of one direction whose other end is gone is always ready.
        for descriptor, events, ready in ((reader, reading, self._ready), (writer, writing, self._writable)):
            if events:
                self.loop.register(descriptor, events, ready, self.fail)
            else:
                self.loop.unregister(descriptor)

    def _watch(self) -> None:
        if self._open and self._liveness.is_lost(self.loop.now()):
            # Perhaps it is this thread that was kept from reading, by a library that holds the GIL.
            self.readable()
        if not self._open:
            return
        now = self.loop.now()
        if self._liveness.is_lost(now):
            self._end(f"nothing was heard for {self._liveness.silence:.0f} s", False, None)
            return
        if self._liveness.should_ping(now):
            self.connection.ping()
            self.wake()
        self._timer = self.loop.call_later(limits.PING_INTERVAL / 3, self._watch, self.fail)

    def _end(self, reason: str, orderly: bool, error: KernelError | None) -> None:
        self._open = False
        for timer in (self._timer, self._acknowledge_timer):
            if timer is not None:
                timer.cancel()
        for descriptor in {self.pipe.fileno(), self.pipe.write_fileno()} - {None}:
            self.loop.unregister(descriptor)
        try:
            self.pipe.close()
        except Exception as raised:
            self.loop.report(raised)
        try:
            self._on_closed(reason, orderly, error)
        except Exception as raised:
            # Nobody may go on waiting for this peer: what could not be told of a break is told of an end.
            self.loop.report(raised)
            self._on_closed(
                reason, False, error or internal_error(raised, "while the end of a link was dealt with")
            )
        finally:
            # They refer to this link, mostly: then it would stay until the garbage collector looks at all objects.
            self._on_event = self._on_closed = self._on_taken = _nobody
            self._unheard = None
