"""What is wanted of an ssh session: connections, and answers of the far end.

Each is handed to the session's thread, and begins when ssh is there.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ...errors import ConnectionError, KernelError
from ...protocol import sshmessages as m
from ..dial.routes import Done, Failed, RouteError
from ..loop import Loop
from .channels import Channel, ChannelLink, ChannelUser, SocketForwarder


class RelayRequest(ChannelUser):
    """Something that is done as soon as ssh is there.

    Attributes:
        may_ask: whether somebody waits who can answer a question of ssh.
    """

    may_ask = False
    _channel: Channel | None = None

    def begin(self, link: ChannelLink) -> None:
        """It is."""
        raise NotImplementedError

    def fail(self, error: KernelError) -> None:
        """It is not, and why."""
        raise NotImplementedError

    def drop(self) -> None:
        """Nobody wants it any more."""
        if self._channel is not None:
            self._channel.reset("nobody wants it any more")
            self._channel = None

    def lost(self, reason: str) -> None:
        """It cannot be done, or ssh died."""
        self._channel = None
        self.fail(ConnectionError(reason))


class ConnectRequest(RelayRequest):
    """A connection that is being made, for a loop in another thread."""

    def __init__(self, loop: Loop, address: tuple[str, int], on_done: Done, on_failed: Failed) -> None:
        self._loop = loop
        self._address = address
        self._on_done = on_done
        self._on_failed = on_failed
        self.cancelled = False
        """Set in the thread of the other loop; this object's own thread then hears of it by drop()."""

    def begin(self, link: ChannelLink) -> None:
        """There is an ssh."""
        if not self.cancelled:
            self._channel = link.open(lambda number: m.ConnectTo(number, *self._address), self)

    def fail(self, error: KernelError) -> None:
        """There is none."""
        self._tell(RouteError(str(error)) if type(error) is ConnectionError else error)

    def opened(self) -> None:
        """The far end is connected."""
        channel, self._channel = self._channel, None
        assert channel is not None
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        SocketForwarder(channel, ours)
        self._loop.call_threadsafe(lambda: self._hand_over(theirs))

    def _hand_over(self, sock: socket.socket) -> None:
        if self.cancelled:
            sock.close()
        else:
            self._on_done(sock)

    def lost(self, reason: str) -> None:
        """It cannot connect, or ssh died."""
        self._channel = None
        self._tell(ConnectionError(reason))

    def _tell(self, error: KernelError) -> None:
        self._loop.call_threadsafe(lambda: None if self.cancelled else self._on_failed(error))


class ForwardRequest(RelayRequest):
    """A connection of a plain client on this machine, while the far end looks for the host that answers."""

    def __init__(self, sock: socket.socket, hints: list[tuple[str, int]]) -> None:
        self._sock = sock
        self._hints = hints

    def begin(self, link: ChannelLink) -> None:
        """There is an ssh."""
        address = self._hints.pop(0)
        self._channel = link.open(lambda number: m.ConnectTo(number, *address), self)

    def fail(self, error: KernelError) -> None:
        """There is none; the client dials again as long as it has patience."""
        del error
        self._sock.close()

    def opened(self) -> None:
        """The far end is connected."""
        assert self._channel is not None
        SocketForwarder(self._channel, self._sock)

    def lost(self, reason: str) -> None:
        """This host does not answer, or ssh died."""
        if self._hints and self._channel is not None and self._channel.link.is_open:
            self.begin(self._channel.link)
        else:
            super().lost(reason)


class ArrivingSocket(RelayRequest):
    """Only that there be an ssh."""

    may_ask = True

    def __init__(self) -> None:
        self.future: Future[None] = Future()

    def begin(self, link: ChannelLink) -> None:
        """There is one."""
        del link
        self.future.set_result(None)

    def fail(self, error: KernelError) -> None:
        """There is none."""
        self.future.set_exception(error)


class Asking(RelayRequest):
    """A request that ends in an answer, a code and a text, which the future gives.

    Args:
        ask: makes the request, with the number of its channel.
        on_data: called with what comes before the answer; who takes it says so by :meth:`consumed`.
    """

    may_ask = True

    def __init__(self, ask: Callable[[int], m.Request], on_data: Callable[[bytes], Any] | None = None) -> None:
        self._ask = ask
        self._on_data = on_data
        self.future: Future[tuple[int, str]] = Future()

    def begin(self, link: ChannelLink) -> None:
        """There is an ssh."""
        if not self.future.done():
            self._channel = link.open(self._ask, self)

    def drop(self) -> None:
        """Nobody waits for it any more."""
        if not self.future.done():
            super().drop()
            self.fail(ConnectionError("nobody waits for it any more"))

    def fail(self, error: KernelError) -> None:
        """It will not be answered."""
        if not self.future.done():
            self.future.set_exception(error)

    def data(self, data: memoryview) -> None:
        """A piece of what the command prints."""
        if self._on_data is None:
            super().data(data)
        else:
            self._on_data(bytes(data))

    def consumed(self, count: int) -> None:
        """So many bytes of it were used."""
        if self._channel is not None:
            self._channel.consumed(count)

    def answered(self, code: int, text: str) -> None:
        """The answer is complete."""
        assert self._channel is not None
        self._channel.detach()
        self._channel = None
        if not self.future.done():
            self.future.set_result((code, text))
