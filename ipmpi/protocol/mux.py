"""Many channels in one byte stream, each with credit of its own (sans-IO).

This is what the two ends of an ssh session speak. The *near* end (the laptop) opens channels by a request; the
*far* end (the login node) serves them. The far end begins with one line, the greeting, so that whatever the login
prints before it can be skipped. After it, both directions are frames with the twelve bytes of
:mod:`ipmpi.protocol.frames` before each, and the kinds below.

Each direction of a channel may have MUX_WINDOW bytes under way. Its receiver gives new credit when data has left
for good, so a channel that nobody reads stops its own sender, holds a window of memory, and disturbs no other: the
stream itself is always read. A sender takes data in only as far as there is credit, and one chunk ahead
(:meth:`Mux.room`), so nothing piles up at its end either. Channels take turns chunk by chunk, and what is no data
overtakes data.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import msgspec

from .. import limits
from ..errors import LocalProtocolError, RemoteProtocolError, VersionError
from .frames import COUNT, PREFIX, Buffer
from .handshake import printable

VERSION = 1
_GREETING = re.compile(rb"\nipmpi-relay (\d{1,6}) ([^\n]{0,200})\n")
_TEXT = 4000


class MuxKind(enum.IntEnum):
    """The kinds of frame."""

    OPEN = 1
    OPENED = 2
    DATA = 3
    CREDIT = 4
    END = 5
    RESET = 6
    PING = 7
    PONG = 8
    BYE = 9


_KINDS = {int(kind): kind for kind in MuxKind}
# Exact length, or the largest one allowed, of each kind's payload.
EXACT = {MuxKind.OPENED: 0, MuxKind.CREDIT: COUNT.size, MuxKind.PING: 0, MuxKind.PONG: 0}
LARGEST = {
    MuxKind.OPEN: limits.MUX_REQUEST,
    MuxKind.DATA: limits.MUX_CHUNK,
    MuxKind.END: 5 * _TEXT,
    MuxKind.RESET: 4 * _TEXT,
    MuxKind.BYE: 4 * _TEXT,
}
_OF_NO_CHANNEL = frozenset({MuxKind.PING, MuxKind.PONG, MuxKind.BYE})


# --- what the near end asks for -----------------------------------------------------------------------------


class ConnectTo(msgspec.Struct, frozen=True, tag="connect", forbid_unknown_fields=True):
    """A TCP connection from the far end; the channel carries its bytes."""

    host: Annotated[str, msgspec.Meta(max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class RunCommand(msgspec.Struct, frozen=True, tag="run", forbid_unknown_fields=True):
    """``ipcluster`` with these arguments; the channel carries what it prints, its end the exit code."""

    arguments: list[str]


class ReadFurl(msgspec.Struct, frozen=True, tag="furl", forbid_unknown_fields=True):
    """The furl of a role: of a named cluster, or the default file's. The channel carries it."""

    role: Annotated[str, msgspec.Meta(max_length=32)]
    cluster: str = ""


Request = ConnectTo | RunCommand | ReadFurl


class _Ending(msgspec.Struct, frozen=True, array_like=True):
    code: int = 0
    text: str = ""


_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_endings: msgspec.msgpack.Decoder[_Ending] = msgspec.msgpack.Decoder(_Ending)


# --- what happens -------------------------------------------------------------------------------------------


class Requested(NamedTuple):
    """The near end opens a channel (only at the far end)."""

    channel: int
    request: Request


class Opened(NamedTuple):
    """The far end has what was asked for (only at the near end)."""

    channel: int


class Data(NamedTuple):
    """Bytes; call :meth:`Mux.consumed` when they have left."""

    channel: int
    data: bytes


class Room(NamedTuple):
    """There is new credit."""

    channel: int


class Ended(NamedTuple):
    """The other end sends no more on this channel; how it went is for the request to say."""

    channel: int
    code: int
    text: str


class StreamReset(NamedTuple):
    """The channel is over, and what was under way on it is lost."""

    channel: int
    reason: str


class Bye(NamedTuple):
    """The other end leaves."""

    reason: str


Event = Requested | Opened | Data | Room | Ended | StreamReset | Bye


@dataclass(eq=False)
class _Channel:
    credit: int = limits.MUX_WINDOW
    """Bytes that may be sent."""
    window: int = limits.MUX_WINDOW
    """Bytes that may arrive."""
    consumed: int = 0
    """Bytes that have left, and for which no new credit was given yet."""
    queue: deque[Buffer] = field(default_factory=deque)
    queued: int = 0
    ending: bytes | None = None
    sent_end: bool = False
    got_end: bool = False


class Mux:
    """One end. Bytes in by :meth:`receive_data`, bytes out by :meth:`data_to_send`.

    Args:
        near: whether this end opens channels.
    """

    def __init__(self, *, near: bool) -> None:
        self._near = near
        self._channels: dict[int, _Channel] = {}
        self._newest = 0
        self._buffer = bytearray()
        self._control: deque[bytes] = deque()
        self._turns: dict[int, None] = {}
        """Channels with data, or an end, to send; the first has its turn."""
        self._pong_due = False
        self.control_backlog = 0
        """Bytes that wait to be sent and are no data."""

    # --- saying ------------------------------------------------------------------------------------------

    def open(self, request: Request) -> int:
        """Open a channel; gives its number."""
        if not self._near:
            raise LocalProtocolError("the far end opens no channels")
        if len(self._channels) >= limits.MUX_CHANNELS:
            raise LocalProtocolError(
                f"there are {limits.MUX_CHANNELS} connections through this ssh session already"
            )
        try:
            payload = _encoder.encode(request)
        except UnicodeEncodeError:
            raise LocalProtocolError("a request with bytes that are no text (UTF-8)") from None
        if len(payload) > limits.MUX_REQUEST:
            raise LocalProtocolError(f"a request of {len(payload)} bytes; {limits.MUX_REQUEST} is the limit")
        self._newest += 1
        self._channels[self._newest] = _Channel()
        self._say(MuxKind.OPEN, self._newest, payload)
        return self._newest

    def accept(self, channel: int) -> None:
        """What was asked for is there."""
        if channel in self._channels:
            self._say(MuxKind.OPENED, channel)

    def room(self, channel: int) -> int:
        """How many bytes :meth:`send` takes now."""
        state = self._channels.get(channel)
        if state is None or state.ending is not None or state.sent_end:
            return 0
        return min(state.credit, limits.MUX_CHUNK) - state.queued

    def send(self, channel: int, data: Buffer) -> None:
        """Send bytes; not more than there is room for."""
        size = len(data)
        if size > self.room(channel):
            raise LocalProtocolError(
                f"{size} bytes for channel {channel}, which has room for {self.room(channel)}"
            )
        if size:
            state = self._channels[channel]
            state.queue.append(data)
            state.queued += size
            self._turns[channel] = None

    def end(self, channel: int, code: int = 0, text: str = "") -> None:
        """Send no more on this channel, after what was sent so far."""
        state = self._channels.get(channel)
        if state is not None and state.ending is None and not state.sent_end:
            state.ending = _encoder.encode(_Ending(code, _sendable(text).decode()))
            self._turns[channel] = None

    def reset(self, channel: int, reason: str) -> None:
        """End a channel at once, both ways."""
        if self._channels.pop(channel, None) is not None:
            self._turns.pop(channel, None)
            self._say(MuxKind.RESET, channel, _sendable(reason))

    def consumed(self, channel: int, count: int) -> None:
        """So many bytes that arrived have left; the other end may send as many."""
        state = self._channels.get(channel)
        if state is None or state.got_end:
            return
        state.consumed += count
        # A frame for each quarter: three quarters are still under way, so the sender need not stop.
        if state.consumed >= limits.MUX_WINDOW // 4:
            self._say(MuxKind.CREDIT, channel, COUNT.pack(state.consumed))
            state.window += state.consumed
            state.consumed = 0

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._say(MuxKind.PING, 0)

    def bye(self, reason: str) -> None:
        """Leave; all channels end."""
        self._channels.clear()
        self._turns.clear()
        self._say(MuxKind.BYE, 0, _sendable(reason))

    def _say(self, kind: MuxKind, channel: int, payload: bytes = b"") -> None:
        frame = PREFIX.pack(len(payload), kind, channel) + payload
        self._control.append(frame)
        self.control_backlog += len(frame)

    @property
    def wants_to_send(self) -> bool:
        """Whether :meth:`data_to_send` has anything."""
        return bool(self._control or self._turns or self._pong_due)

    def data_to_send(self) -> list[Buffer]:
        """All that is no data, and the next chunk of the channel whose turn it is."""
        if self._pong_due:
            self._pong_due = False
            self._say(MuxKind.PONG, 0)
        out: list[Buffer] = list(self._control)
        self._control.clear()
        self.control_backlog = 0
        if self._turns:
            channel = next(iter(self._turns))
            del self._turns[channel]
            self._take(channel, self._channels[channel], out)
        return out

    def _take(self, channel: int, state: _Channel, out: list[Buffer]) -> None:
        if state.queued:
            # There is never more than one chunk, see room().
            out.append(PREFIX.pack(state.queued, MuxKind.DATA, channel))
            out += state.queue
            state.credit -= state.queued
            state.queue.clear()
            state.queued = 0
        if state.ending is not None:
            out.append(PREFIX.pack(len(state.ending), MuxKind.END, channel) + state.ending)
            state.ending = None
            state.sent_end = True
            self._forget_if_over(channel, state)

    def _forget_if_over(self, channel: int, state: _Channel) -> None:
        if state.sent_end and state.got_end:
            del self._channels[channel]

    # --- hearing -----------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer) -> Iterator[Event]:
        """What the bytes mean.

        Raises:
            RemoteProtocolError: no end of ours sends this.
        """
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= PREFIX.size:
                kind, length, channel = self._parse_prefix(at)
                if len(self._buffer) - at < PREFIX.size + length:
                    return
                payload = bytes(memoryview(self._buffer)[at + PREFIX.size : at + PREFIX.size + length])
                at += PREFIX.size + length
                event = self._handle(kind, channel, payload)
                if event is not None:
                    yield event
        finally:
            del self._buffer[:at]

    def _parse_prefix(self, at: int) -> tuple[MuxKind, int, int]:
        length, number, channel = PREFIX.unpack_from(self._buffer, at)
        kind = _KINDS.get(number)
        if kind is None or any(self._buffer[at + 5 : at + 8]):
            raise RemoteProtocolError(f"a frame of unknown kind {number}: something else writes into this stream")
        exact = EXACT.get(kind)
        if length != exact if exact is not None else length > LARGEST[kind]:
            raise RemoteProtocolError(f"a {kind.name} frame of {length} bytes")
        if (kind in _OF_NO_CHANNEL) != (channel == 0):
            raise RemoteProtocolError(f"a {kind.name} frame of channel {channel}")
        return kind, length, channel

    def _handle(self, kind: MuxKind, channel: int, payload: bytes) -> Event | None:
        if kind is MuxKind.PING:
            self._pong_due = True
            return None
        if kind is MuxKind.PONG:
            return None
        if kind is MuxKind.BYE:
            self._channels.clear()
            self._turns.clear()
            return Bye(_text(payload))
        if (kind is MuxKind.OPEN and self._near) or (kind is MuxKind.OPENED and not self._near):
            raise RemoteProtocolError(f"a {kind.name} frame, which only the other end sends")
        if kind is MuxKind.OPEN:
            return self._requested(channel, payload)
        if channel > self._newest:
            raise RemoteProtocolError(f"a {kind.name} frame of channel {channel}, which was never opened")
        state = self._channels.get(channel)
        # What was under way when a channel was reset here still arrives.
        return None if state is None else self._handle_open(kind, channel, state, payload)

    def _requested(self, channel: int, payload: bytes) -> Event:
        if channel != self._newest + 1:
            raise RemoteProtocolError(f"channel {channel} is opened where {self._newest + 1} is next")
        if len(self._channels) >= limits.MUX_CHANNELS:
            raise RemoteProtocolError(f"more than {limits.MUX_CHANNELS} channels")
        try:
            request = _requests.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"a request that cannot be understood: {error}") from None
        self._newest = channel
        self._channels[channel] = _Channel()
        return Requested(channel, request)

    def _handle_open(self, kind: MuxKind, channel: int, state: _Channel, payload: bytes) -> Event | None:
        if kind is MuxKind.OPENED:
            return Opened(channel)
        if kind is MuxKind.CREDIT:
            (count,) = COUNT.unpack(payload)
            if not 0 < count <= limits.MUX_WINDOW - state.credit:
                raise RemoteProtocolError(f"credit of {count} bytes for channel {channel}, more than was used")
            state.credit += count
            return Room(channel)
        if kind is MuxKind.RESET:
            del self._channels[channel]
            self._turns.pop(channel, None)
            return StreamReset(channel, _text(payload))
        if state.got_end:
            raise RemoteProtocolError(f"a {kind.name} frame on channel {channel} after its end")
        if kind is MuxKind.DATA:
            if not 0 < len(payload) <= state.window:
                raise RemoteProtocolError(
                    f"{len(payload)} bytes on channel {channel}, which has credit for {state.window}"
                )
            state.window -= len(payload)
            return Data(channel, payload)
        try:
            ending = _endings.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"an end that cannot be understood: {error}") from None
        state.got_end = True
        self._forget_if_over(channel, state)
        return Ended(channel, ending.code, printable(ending.text, _TEXT))


def _sendable(text: str) -> bytes:
    # The name of a file may have bytes that are no text.
    return text[:_TEXT].encode("utf-8", "replace")


def _text(payload: bytes) -> str:
    return printable(payload.decode("utf-8", "replace"), _TEXT)


# --- the greeting -------------------------------------------------------------------------------------------


def greeting(software: str) -> bytes:
    """The far end's first bytes; a line of its own, whatever was printed before."""
    return f"\nipmpi-relay {VERSION} {printable(software, 100)}\n".encode("ascii", "replace")


class GreetingReader:
    """Skips what a login prints, up to the greeting.

    Attributes:
        skipped: what came so far, for messages.
    """

    def __init__(self) -> None:
        self.skipped = bytearray(b"\n")

    def receive(self, data: Buffer) -> bytes | None:
        """The bytes after the greeting, or None while it has not come.

        Raises:
            VersionError: the far end speaks another version.
            RemoteProtocolError: there is no end of what it prints.
        """
        self.skipped += data
        found = _GREETING.search(self.skipped)
        if found is None:
            if len(self.skipped) > limits.SSH_BANNER:
                raise RemoteProtocolError("it prints more than any greeting has, and ipmpi does not answer")
            return None
        version = int(found[1])
        if version != VERSION:
            other = printable(found[2].decode("ascii", "replace").strip())
            raise VersionError(
                f"its {other} speaks version {version} of the relay protocol, this ipmpi version {VERSION}: "
                f"upgrade {'the one there' if version < VERSION else 'this one'}"
            )
        rest = bytes(self.skipped[found.end() :])
        del self.skipped[found.start() + 1 :]
        return rest
