"""Channels between editors at clients and debugpy in engines (no I/O).

A channel belongs to the client that has opened it: nobody else hears it or says something in it. An engine has one
at a time. What a side may send is counted here, so that neither end can fill the controller's memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from ... import limits
from ...errors import RemoteProtocolError
from ...protocol import messages as m
from ...ranges import ranges
from ..effects import Effect, Send
from ..registry import Registry


@dataclass(eq=False)
class _Channel:
    client: int
    number: int
    """The client's number of it."""
    serial: int
    """The controller's."""
    key: int
    rank: int
    engine: int
    down: int = 0
    up: int = 0
    """Bytes that may be sent to the engine, and to the client; 0 until it is open."""
    is_open: bool = False


class DebugChannels:
    """All channels.

    Args:
        first: the first serial number. Engines outlive a controller: none that another one has given.
        perform: called with each effect.
    """

    def __init__(self, registry: Registry, first: int, perform: Callable[[Effect], None]) -> None:
        self._registry = registry
        self._serial = itertools.count(first)
        self._perform = perform
        self._of_client: dict[tuple[int, int], _Channel] = {}
        self._by_serial: dict[int, _Channel] = {}

    # --- clients -------------------------------------------------------------------------------------------

    def from_client(self, client: int, message: m.ChannelMessage) -> None:
        """A client has said something.

        Raises:
            RemoteProtocolError: it sends more than it may.
        """
        if isinstance(message, m.DebugOpen):
            self._open(client, message)
            return
        channel = self._of_client.get((client, message.channel))
        if channel is None:
            return  # it has been closed meanwhile
        if isinstance(message, m.DebugBytes):
            channel.down -= len(message.data)
            if channel.down < 0:
                raise RemoteProtocolError("more bytes for a debugger than it has given credit for")
            self._perform(Send(channel.key, m.DebugBytes(channel.serial, channel.rank, message.data)))
        elif isinstance(message, m.DebugCredit):
            channel.up = _more(channel.up, message.size)
            self._perform(Send(channel.key, m.DebugCredit(channel.serial, channel.rank, message.size)))
        elif isinstance(message, m.DebugClosed):
            self._close_below(channel)

    def _open(self, client: int, message: m.DebugOpen) -> None:
        number = message.channel
        if (client, number) in self._of_client:
            raise RemoteProtocolError(f"there is a channel {number} already")
        refused = self._refused(client, message.engine)
        if refused:
            self._perform(Send(client, m.DebugClosed(number, message.engine, refused)))
            return
        engine = self._registry.engines[message.engine]
        channel = _Channel(client, number, next(self._serial), engine.set_key, engine.rank, engine.id)
        self._of_client[client, number] = self._by_serial[channel.serial] = channel
        self._perform(Send(channel.key, m.DebugOpen(channel.serial, channel.rank)))

    def _refused(self, client: int, engine: int) -> str:
        if engine not in self._registry.engines:
            known = ranges(self._registry.ids()) or "none"
            return f"engine {engine} is not registered (registered: {known})"
        if any(channel.engine == engine for channel in self._by_serial.values()):
            return f"engine {engine} has a debugger attached already; disconnect that one first"
        if sum(owner == client for owner, _ in self._of_client) >= limits.DEBUG_CHANNELS:
            return f"this client has {limits.DEBUG_CHANNELS} debuggers attached, as many as it may; disconnect one"
        return ""

    def client_lost(self, client: int) -> None:
        """A client is gone: debuggers are detached, and their engines go on."""
        for channel in [each for each in self._by_serial.values() if each.client == client]:
            self._close_below(channel)

    def _close_below(self, channel: _Channel) -> None:
        self._forget(channel)
        self._perform(Send(channel.key, m.DebugClosed(channel.serial, channel.rank)))

    # --- engines -------------------------------------------------------------------------------------------

    def from_engine(self, key: int, message: m.ChannelMessage) -> None:
        """A set has said something about one of its ranks.

        Raises:
            RemoteProtocolError: it sends more than it may.
        """
        channel = self._by_serial.get(message.channel)
        if channel is None or channel.key != key or channel.rank != message.engine:
            return  # it has been closed meanwhile
        number, engine = channel.number, channel.engine
        told: m.ChannelMessage
        if isinstance(message, m.DebugOpened):
            if channel.is_open:
                raise RemoteProtocolError("a debugger that is attached for the second time")
            channel.is_open = True
            channel.down = channel.up = limits.DEBUG_WINDOW
            told = m.DebugOpened(number, engine, message.folder[: limits.LINE])
        elif isinstance(message, m.DebugBytes):
            channel.up -= len(message.data)
            if channel.up < 0:
                raise RemoteProtocolError("more bytes of a debugger than its client has given credit for")
            told = m.DebugBytes(number, engine, message.data)
        elif isinstance(message, m.DebugCredit):
            channel.down = _more(channel.down, message.size)
            told = m.DebugCredit(number, engine, message.size)
        else:
            self._forget(channel)
            reason = message.reason if isinstance(message, m.DebugClosed) else ""
            told = m.DebugClosed(number, engine, reason[: limits.SSH_TEXT])
        self._perform(Send(channel.client, told))

    def look(self) -> None:
        """Close the channels of engines that are gone; call it after events."""
        for channel in [each for each in self._by_serial.values() if not self._is_there(each)]:
            self._forget(channel)
            reason = f"engine {channel.engine} is gone"
            self._perform(Send(channel.client, m.DebugClosed(channel.number, channel.engine, reason)))

    def _is_there(self, channel: _Channel) -> bool:
        engine = self._registry.engines.get(channel.engine)
        return engine is not None and (engine.set_key, engine.rank) == (channel.key, channel.rank)

    def _forget(self, channel: _Channel) -> None:
        del self._by_serial[channel.serial]
        del self._of_client[channel.client, channel.number]


def _more(credit: int, size: int) -> int:
    if size <= 0 or credit + size > limits.DEBUG_WINDOW:
        raise RemoteProtocolError("credit for more bytes than were sent to a debugger")
    return credit + size
