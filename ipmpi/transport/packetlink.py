"""The agent's end of the socket of a rank."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from ..errors import internal_error
from .loop import HANGUP, READ, WRITE, Loop
from .packets import close_files, receive_packet, send_packet

_GONE: Final = (BrokenPipeError, ConnectionResetError)


class PacketLink:
    """The agent's end of a rank's socket, in its loop.

    Args:
        on_packet: called with each packet's bytes and descriptors, which are its to close.
        on_closed: called once when the other end is gone.
        on_sent: called with the number of packets that have been handed to the system, for each of them.

    Attributes:
        failure: why this side gave it up, if it did.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        on_packet: Callable[[bytes, list[int]], None],
        on_closed: Callable[[str], None],
        on_sent: Callable[[int], None] = lambda count: None,
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_packet = on_packet
        self._on_closed = on_closed
        self.on_sent = on_sent
        self.sent = 0
        self.failure = ""
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self.is_open = True
        loop.register(sock, READ, self._ready, self._failed)

    @property
    def promised(self) -> int:
        """Number of packets that have been sent, and of those that wait here."""
        return self.sent + len(self._waiting)

    def send(self, packet: bytes, files: tuple[int, ...] = ()) -> None:
        """Send a packet, with copies of open files; what the system does not take yet waits here."""
        if not self.is_open:
            return
        if not self._waiting:
            try:
                send_packet(self._sock, packet, list(files))
            except BlockingIOError:
                pass
            except _GONE:
                return  # the loop tells of that in its turn, after what the rank has said before
            except OSError as error:
                reason = error.strerror or str(error)
                self._loop.call_soon(lambda: self._give_up(f"a message to it could not be sent: {reason}"))
                return
            else:
                self._count()
                return
            self._loop.register(self._sock, READ | WRITE, self._ready, self._failed)
        self._waiting.append((packet, [os.dup(descriptor) for descriptor in files]))

    def _ready(self, events: int) -> None:
        if events & HANGUP:
            # To its end at once: which of several ranks was the first to end?
            while self.is_open and self._read():
                pass
        elif events & READ:
            self._read()
        if events & WRITE and self.is_open:
            self._write()

    def _read(self) -> bool:
        # One packet: most often there is no other, and to find that out costs as much. The loop comes back.
        try:
            packet = receive_packet(self._sock)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end(error.strerror or str(error))
            return False
        if packet is None:
            self._end("its end of the socket is closed")
            return False
        self._on_packet(*packet)
        return True

    def _write(self) -> None:
        while self._waiting:
            packet, files = self._waiting[0]
            try:
                send_packet(self._sock, packet, files)
            except BlockingIOError:
                return
            except _GONE:
                break
            except OSError as error:
                self._give_up(f"a message to it could not be sent: {error.strerror or error}")
                return
            self._waiting.popleft()
            close_files(files)
            self._count()
        self._loop.register(self._sock, READ, self._ready, self._failed)

    def _count(self) -> None:
        self.sent += 1
        self.on_sent(self.sent)

    def _failed(self, error: BaseException) -> None:
        self._loop.report(error)
        self._give_up(str(internal_error(error, "while this rank was dealt with")))

    def _give_up(self, reason: str) -> None:
        if self.is_open:
            self.failure = reason
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self.is_open:
            self.close()
            self._on_closed(reason)

    def close(self) -> None:
        """Close the socket; no callback follows."""
        if self.is_open:
            self.is_open = False
            self._loop.unregister(self._sock)
            self._sock.close()
            for _, files in self._waiting:
                close_files(files)
            self._waiting.clear()
