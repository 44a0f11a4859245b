"""The channels of a session between editors here and debugpy in engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...errors import KernelError
from ...protocol import messages as m


class ChannelEnd(Protocol):
    """Who hears what comes through a channel, in the session's thread."""

    def opened(self, folder: str) -> None:
        """Debugpy is attached; ``folder`` is the current one of the engine."""

    def data(self, data: bytes) -> None:
        """Bytes have come."""

    def credit(self, size: int) -> None:
        """So many more bytes may be sent."""

    def closed(self, reason: str) -> None:
        """The channel is closed; nothing follows."""


class DebugChannels:
    """The open channels, by number. All methods are for the session's thread.

    Args:
        send: sends a message to the controller.
    """

    def __init__(self, send: Callable[[m.AnyMessage], None]) -> None:
        self._send = send
        self._ends: dict[int, ChannelEnd] = {}
        self._failure: KernelError | None = None

    def open(self, number: int, engine: int, end: ChannelEnd) -> None:
        """Open channel ``number``, which no other has; the end hears whether that succeeds."""
        if self._failure is not None:
            end.closed(str(self._failure))
            return
        self._ends[number] = end
        self._send(m.DebugOpen(number, engine))

    def send(self, message: m.DebugBytes | m.DebugCredit) -> None:
        """Send bytes, or grant some, if the channel is open."""
        if message.channel in self._ends:
            self._send(message)

    def close(self, number: int, engine: int) -> None:
        """Close a channel; its end hears nothing more."""
        if self._ends.pop(number, None) is not None:
            self._send(m.DebugClosed(number, engine))

    def heard(self, message: m.ChannelMessage) -> None:
        """Pass on a message of the controller."""
        end = self._ends.get(message.channel)
        if end is None:
            return  # it was closed meanwhile
        if isinstance(message, m.DebugOpened):
            end.opened(message.folder)
        elif isinstance(message, m.DebugBytes):
            end.data(message.data)
        elif isinstance(message, m.DebugCredit):
            end.credit(message.size)
        elif isinstance(message, m.DebugClosed):
            del self._ends[message.channel]
            end.closed(message.reason)

    def fail(self, failure: KernelError) -> None:
        """The session has ended."""
        self._failure = failure
        ends, self._ends = list(self._ends.values()), {}
        for end in ends:
            end.closed(str(failure))
