"""Streams of bytes with credit: between a rank's debugger and its agent, and between an editor and the client.

What is not granted is not read, so neither end stores more than a window of the other's bytes.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable

from .. import limits
from ..errors import ClientError
from .loop import READ, WRITE, Loop
from .packets import Socket
from .tcptable import tcp_sockets


class ByteStream:
    """One end of a stream, in a loop.

    Args:
        sock: the socket, which is closed by :meth:`close`; or its descriptor.
        on_data: called with bytes that have come, never more than were granted.
        on_taken: called with the number of bytes that the other end has taken.
        on_closed: called once when the other end is gone.
    """

    def __init__(
        self,
        loop: Loop,
        sock: Socket | int,
        on_data: Callable[[bytes], object],
        on_taken: Callable[[int], object],
        on_closed: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._sock = socket.socket(fileno=sock) if isinstance(sock, int) else sock
        self._sock.setblocking(False)
        self._on_data = on_data
        self._on_taken = on_taken
        self._on_closed = on_closed
        self._credit = 0
        self._waiting: deque[memoryview] = deque()
        self._events = 0
        self._is_ending = False
        self.is_open = True

    def grant(self, size: int) -> None:
        """Read so many bytes more."""
        self._credit += size
        self._listen()

    def write(self, data: bytes) -> None:
        """Send bytes; those that the system does not take yet wait here."""
        if self.is_open and data:
            self._waiting.append(memoryview(data))
            self._flush()

    def finish(self) -> None:
        """Close it when everything has been sent; no callback follows but ``on_taken``."""
        self._is_ending = True
        self._credit = 0
        self._flush()

    def close(self) -> None:
        """Close it; no callback follows."""
        if self.is_open:
            self.is_open = False
            self._waiting.clear()
            self._listen()
            self._sock.close()

    def _listen(self) -> None:
        wanted = ((READ if self._credit > 0 else 0) | (WRITE if self._waiting else 0)) if self.is_open else 0
        if wanted != self._events:
            if wanted:
                self._loop.register(self._sock, wanted, self._ready, lambda error: self._failed(error))
            else:  # not for no events: a closed one would be told again and again
                self._loop.unregister(self._sock)
            self._events = wanted

    def _failed(self, error: BaseException) -> None:
        self._loop.report(error)
        self._end()

    def _ready(self, events: int) -> None:
        if events & WRITE or not self._credit:
            self._flush()
        if events & READ and self._credit > 0 and self.is_open:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(min(self._credit, limits.DEBUG_PIECE))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._credit -= len(data)
        self._listen()
        self._on_data(data)

    def _flush(self) -> None:
        taken = 0
        try:
            while self._waiting and self.is_open:
                view = self._waiting[0]
                sent = self._sock.send(view)
                taken += sent
                self._waiting[0] = view[sent:]
                if not self._waiting[0]:
                    self._waiting.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._end()
            return
        if self._is_ending and not self._waiting:
            self.close()
        self._listen()
        if taken:
            self._on_taken(taken)

    def _end(self) -> None:
        if self.is_open:
            told = not self._is_ending
            self.close()
            if told:
                self._on_closed()


class LoopbackServer:
    """Accepts connections of this user's programs on a port of this machine's loopback interface.

    Args:
        port: 0 is a free one.
        on_socket: called with the socket of each connection.
        on_stranger: called with why a connection was refused.

    Attributes:
        port: the port.

    Raises:
        ClientError: the port cannot be had.
    """

    def __init__(
        self, loop: Loop, port: int, on_socket: Callable[[Socket], object], on_stranger: Callable[[str], object]
    ) -> None:
        self._loop = loop
        self._on_socket = on_socket
        self._on_stranger = on_stranger
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._sock.bind(("127.0.0.1", port))
            self._sock.listen(1)
        except OSError as error:
            self._sock.close()
            raise ClientError(
                f"cannot listen on port {port} of 127.0.0.1: {error.strerror or error}. Choose another port, or "
                "none: then the system picks a free one"
            ) from None
        self._sock.setblocking(False)
        self.port: int = self._sock.getsockname()[1]
        loop.register(self._sock, READ, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        owner = owner_of_peer(sock)
        if owner is None or owner == os.geteuid():
            self._on_socket(sock)
            return
        sock.close()
        who = f"user {owner}" if owner >= 0 else "a user that cannot be determined"
        self._on_stranger(f"a connection of {who} was refused: only yours are accepted")

    def close(self) -> None:
        """Listen no more."""
        self._loop.unregister(self._sock)
        self._sock.close()


def owner_of_peer(sock: Socket) -> int | None:
    """The user whose program is at the other end of a loopback connection; -1 if it is not found.

    None where the system does not tell: only Linux does.
    """
    if sys.platform != "linux":
        return None
    try:
        theirs, ours = sock.getpeername()[1], sock.getsockname()[1]
    except OSError:
        return -1
    ends = f":{theirs:04X}", f":{ours:04X}"
    for each in tcp_sockets() or ():
        if each.here.endswith(ends[0]) and each.there.endswith(ends[1]) and _is_loopback(each.here, each.there):
            return each.user
    return -1


def _is_loopback(*addresses: str) -> bool:
    # 127.0.0.1 in the byte order of this machine, in the last 8 digits also where IPv6 holds it.
    here = f"{int.from_bytes(bytes((127, 0, 0, 1)), sys.byteorder):08X}"
    return all(address.partition(":")[0].endswith(here) for address in addresses)
