"""What is wanted of an ssh session: connections, and answers of the far end.

Each is handed to the session's thread, and begins when ssh is there.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from ...errors import ConnectionError, KernelError
from ...furl import FILE_BYTES
from ...protocol import mux
from ..dial.routes import Done, Failed, RouteError
from ..loop import Loop
from .muxlink import MuxLink, SocketForwarder


class RelayRequest(Protocol):
    """Something that is done as soon as ssh is there.

    Attributes:
        may_ask: whether somebody waits who can answer a question of ssh.
    """

    @property
    def may_ask(self) -> bool: ...  # noqa: D102

    def begin(self, link: MuxLink) -> None:
        """It is."""
        ...

    def fail(self, error: KernelError) -> None:
        """It is not, and why."""
        ...

    def drop(self) -> None:
        """Nobody wants it any more."""
        ...


class ConnectRequest:
    """A connection that is being made, for a loop in another thread."""

    may_ask = False

    def __init__(self, loop: Loop, address: tuple[str, int], on_done: Done, on_failed: Failed) -> None:
        self._loop = loop
        self._address = address
        self._on_done = on_done
        self._on_failed = on_failed
        self.cancelled = False
        """Set in the thread of the other loop; this object's own thread then hears of it by drop()."""
        self._link: MuxLink | None = None
        self._channel = 0

    def drop(self) -> None:
        """Nobody wants it any more."""
        if self._link is not None:
            self._link.reset(self._channel, "nobody wants it any more")
            self._link = None

    def begin(self, link: MuxLink) -> None:
        """There is an ssh."""
        if not self.cancelled:
            self._channel = link.open(mux.ConnectTo(*self._address), self)
            self._link = link

    def fail(self, error: KernelError) -> None:
        """There is none."""
        own = RouteError(str(error)) if type(error) is ConnectionError else error
        self._tell(own)

    def opened(self) -> None:
        """The far end is connected."""
        link, self._link = self._link, None
        assert link is not None
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        SocketForwarder(link, self._channel, ours)
        self._loop.call_threadsafe(lambda: self._hand_over(theirs))

    def _hand_over(self, sock: socket.socket) -> None:
        if self.cancelled:
            sock.close()
        else:
            self._on_done(sock)

    def lost(self, reason: str) -> None:
        """It cannot connect, or ssh died."""
        self._link = None
        self._tell(ConnectionError(reason))

    def _tell(self, error: KernelError) -> None:
        self._loop.call_threadsafe(lambda: None if self.cancelled else self._on_failed(error))

    def data(self, data: bytes) -> None:
        """The far end sends nothing before it is connected."""

    def room(self) -> None:
        """Nothing is sent yet."""

    def ended(self, code: int, text: str) -> None:
        """The same."""


class ForwardRequest:
    """A connection of a plain client on this machine, while the far end looks for the host that answers."""

    may_ask = False

    def __init__(self, sock: socket.socket, hints: list[tuple[str, int]]) -> None:
        self._sock = sock
        self._hints = hints
        self._link: MuxLink | None = None
        self._channel = 0

    def begin(self, link: MuxLink) -> None:
        """There is an ssh."""
        self._link = link
        self._channel = link.open(mux.ConnectTo(*self._hints.pop(0)), self)

    def fail(self, error: KernelError) -> None:
        """There is none; the client dials again as long as it has patience."""
        del error
        self._sock.close()

    def drop(self) -> None:
        """Of other wishes only: whoever connects here says nothing when he leaves."""

    def opened(self) -> None:
        """The far end is connected."""
        assert self._link is not None
        SocketForwarder(self._link, self._channel, self._sock)

    def lost(self, reason: str) -> None:
        """This host does not answer, or ssh died."""
        if self._hints and self._link is not None and self._link.is_open:
            self.begin(self._link)
        else:
            self.fail(ConnectionError(reason))

    def data(self, data: bytes) -> None:
        """The far end sends nothing before it is connected."""

    def room(self) -> None:
        """Nothing is sent yet."""

    def ended(self, code: int, text: str) -> None:
        """The same."""


class ArrivingSocket:
    """Only that there be an ssh."""

    may_ask = True

    def __init__(self) -> None:
        self.future: Future[None] = Future()

    def begin(self, link: MuxLink) -> None:
        """There is one."""
        del link
        self.future.set_result(None)

    def fail(self, error: KernelError) -> None:
        """There is none."""
        self.future.set_exception(error)

    def drop(self) -> None:
        """Nobody waits for it any more; nothing has been asked of the far end."""


class Asking:
    """A request whose answer is some text and an end; the future gives the end."""

    may_ask = True

    def __init__(self, request: mux.Request, on_data: Callable[[bytes], Any] | None = None) -> None:
        self._request = request
        self._on_data = on_data
        self._link: MuxLink | None = None
        self._channel = 0
        self.output = b""
        self.future: Future[tuple[int, str]] = Future()

    def begin(self, link: MuxLink) -> None:
        """There is an ssh."""
        if not self.future.done():
            self._link = link
            self._channel = link.open(self._request, self)

    def drop(self) -> None:
        """Nobody waits for it any more."""
        if not self.future.done():
            if self._link is not None:
                self._link.reset(self._channel, "nobody waits for it any more")
            self.fail(ConnectionError("nobody waits for it any more"))

    def fail(self, error: KernelError) -> None:
        """It will not be answered."""
        if not self.future.done():
            self.future.set_exception(error)

    def opened(self) -> None:
        """The command has started."""

    def data(self, data: bytes) -> None:
        """A piece of the answer."""
        if self._on_data is not None:
            self._on_data(data)  # who takes it says so by consumed()
            return
        if len(self.output) <= FILE_BYTES:
            self.output += data
        self.consumed(len(data))

    def consumed(self, count: int) -> None:
        """So many bytes of the answer were used."""
        if self._link is not None and self._link.is_open:
            self._link.consumed(self._channel, count)

    def room(self) -> None:
        """Nothing is sent."""

    def ended(self, code: int, text: str) -> None:
        """The answer is complete."""
        assert self._link is not None
        self._link.end(self._channel)
        self._link.detach(self._channel)
        if not self.future.done():
            self.future.set_result((code, text))

    def lost(self, reason: str) -> None:
        """It cannot be done, or ssh died."""
        self.fail(ConnectionError(reason))
