"""Joining pairs of connections, whose bytes nobody here looks into: the middle of a bulk lane.

One thread serves all pairs. The kernel moves the bytes (splice(2)) where it can, in pieces of up to a pipe's size,
so that no byte is copied into this process; else they are read and written. Python's lock is not held meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .. import limits
from .errorlog import ErrorLog

Socket = socket.socket

_SIZE: Final = limits.CHUNK
_TURNS: Final = 8
"""Pieces of one direction before others have their turn."""
_splice: Any = getattr(os, "splice", None)


class _Way:
    """One direction: from a socket into another."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.inside = 0
        """Bytes that were read and not written."""
        self.is_over = False
        self._data = memoryview(b"")
        self._pipe: tuple[int, int] | None = None
        if _splice is not None:
            self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._pipe[1], getattr(fcntl, "F_SETPIPE_SZ", 1031), limits.LANE_PIPE)

    def move(self) -> None:
        """Move what is there; OSError if an end is gone."""
        for _ in range(_TURNS):
            if not self.inside and not self._fill():
                return
            if not self._empty():
                return

    def _fill(self) -> bool:
        try:
            self.inside = self._read()
        except (BlockingIOError, InterruptedError):
            return False
        self.is_over = not self.inside
        return self.inside > 0

    def _read(self) -> int:
        if self._pipe is not None:
            try:
                return int(_splice(self.source.fileno(), self._pipe[1], limits.LANE_PIPE, flags=_FLAGS))
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS):
                    raise
                self._no_pipe()
        self._data = memoryview(self.source.recv(_SIZE))
        return len(self._data)

    def _empty(self) -> bool:
        while self.inside:
            try:
                self.inside -= self._write()
            except (BlockingIOError, InterruptedError):
                return False
        return True

    def _write(self) -> int:
        if self._pipe is not None:
            return int(_splice(self._pipe[0], self.sink.fileno(), self.inside, flags=_FLAGS))
        count = self.sink.send(self._data)
        self._data = self._data[count:]
        return count

    def _no_pipe(self) -> None:
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None

    def close(self) -> None:
        """Free the pipe."""
        self._no_pipe()


_FLAGS: Final = getattr(os, "SPLICE_F_NONBLOCK", 2) | getattr(os, "SPLICE_F_MOVE", 1)


class _Pair:
    def __init__(self, one: socket.socket, other: socket.socket) -> None:
        for sock in (one, other):  # the last piece of a window must not wait for the answer to the one before it
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets = one, other
        forth = _Way(one, other)
        try:
            self.ways = forth, _Way(other, one)
        except (OSError, MemoryError):
            forth.close()
            raise
        self.waits_for = {one: select.EPOLLIN, other: select.EPOLLIN}
        """What the poller was told."""

    def events(self, sock: socket.socket) -> int:
        """What to wait for on one of the sockets."""
        forth, back = self.ways if sock is self.sockets[0] else self.ways[::-1]
        return (0 if forth.inside else select.EPOLLIN) | (select.EPOLLOUT if back.inside else 0)

    def move(self) -> bool:
        """Move what is there; False if this pair is over."""
        try:
            for way in self.ways:
                way.move()
        except (OSError, MemoryError):
            return False
        return not any(way.is_over for way in self.ways)

    def close(self) -> None:
        """Close both sockets."""
        for way in self.ways:
            way.close()
        for sock in self.sockets:
            sock.close()


class Splicer:
    """All pairs of this process. Its methods may be called from any thread.

    Whatever the system refuses (descriptors, memory) ends the pair that needed it, and no other.

    Args:
        on_end: called with the number of a pair that is over, and closed, or could not be made; in the thread of
            the splicer, or of who joins where there is none.
    """

    def __init__(self, on_end: Callable[[int], None]) -> None:
        self._on_end = on_end
        self._thread: threading.Thread | None = None
        self._errors = ErrorLog(time.monotonic)
        self._asked: deque[Callable[[], None]] = deque()
        self._pairs: dict[int, _Pair] = {}
        self._by_file: dict[int, tuple[int, socket.socket]] = {}
        self._is_closed = False

    def join(self, number: int, one: socket.socket, other: socket.socket) -> None:
        """Pass on bytes between two sockets, which are the splicer's from now on, until one of them ends."""
        try:
            if self._is_closed:
                raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))
            if self._thread is None:
                self._begin()
        except (OSError, RuntimeError):  # no descriptors, or no thread
            self._not_made(number, (one, other))
        else:
            self._ask(lambda: self._add(number, one, other))

    def end(self, number: int) -> None:
        """End a pair."""
        if self._thread is not None:
            self._ask(lambda: self._over(number))

    def close(self) -> None:
        """End all pairs, and the thread."""
        if self._thread is not None and not self._is_closed:
            self._is_closed = True
            self._ask(lambda: None)
            self._thread.join(5)

    def _begin(self) -> None:
        with contextlib.ExitStack() as undo:
            self._poller = undo.enter_context(contextlib.closing(select.epoll()))
            self._wake_read, self._wake_write = map(undo.enter_context, socket.socketpair())
            self._wake_read.setblocking(False)
            self._wake_write.setblocking(False)
            self._poller.register(self._wake_read, select.EPOLLIN)
            thread = threading.Thread(target=self._run, name="ipmpi-lanes", daemon=True)
            thread.start()
            self._thread = thread
            undo.pop_all()

    def _ask(self, call: Callable[[], None]) -> None:
        self._asked.append(call)
        with contextlib.suppress(OSError):  # full, so it will wake
            self._wake_write.send(b"!")

    def _run(self) -> None:
        while not self._is_closed:
            for descriptor, events in self._poller.poll():
                if descriptor == self._wake_read.fileno():
                    with contextlib.suppress(OSError):
                        self._wake_read.recv(4096)
                elif descriptor in self._by_file:
                    number = self._by_file[descriptor][0]
                    self._ready(number)
                    if events & (select.EPOLLHUP | select.EPOLLERR):  # it would be told again and again
                        self._over(number)
            self._do_asked()
        self._do_asked()
        for number in list(self._pairs):
            self._over(number)
        self._poller.close()
        self._wake_read.close()
        self._wake_write.close()

    def _do_asked(self) -> None:
        while self._asked:
            self._asked.popleft()()

    def _add(self, number: int, one: socket.socket, other: socket.socket) -> None:
        try:
            pair = self._pairs[number] = _Pair(one, other)
        except (OSError, MemoryError):
            self._not_made(number, (one, other))
            return
        try:
            for sock in pair.sockets:
                self._by_file[sock.fileno()] = number, sock
                self._poller.register(sock, select.EPOLLIN)
        except (OSError, ValueError):  # ValueError: it was closed
            self._over(number)

    def _ready(self, number: int) -> None:
        pair = self._pairs[number]
        if not pair.move():
            self._over(number)
            return
        try:
            for sock in pair.sockets:
                if (events := pair.events(sock)) != pair.waits_for[sock]:
                    self._poller.modify(sock, events)
                    pair.waits_for[sock] = events
        except OSError:
            self._over(number)

    def _over(self, number: int) -> None:
        pair = self._pairs.pop(number, None)
        if pair is not None:
            for sock in pair.sockets:
                self._by_file.pop(sock.fileno(), None)
                with contextlib.suppress(OSError, ValueError):
                    self._poller.unregister(sock)
            pair.close()
            self._tell(number)

    def _not_made(self, number: int, sockets: tuple[socket.socket, ...]) -> None:
        for sock in sockets:
            sock.close()
        self._tell(number)

    def _tell(self, number: int) -> None:
        try:
            self._on_end(number)
        except Exception as error:  # all other pairs need this thread
            self._errors.report(error)
