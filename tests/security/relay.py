"""A TCP relay between two ends, which can record what passes and cut connections."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_LINGER = struct.pack("ii", 1, 0)


class Relay:
    """Listens on a port of its own and passes everything on to ``target`` (or to what that returns).

    Args:
        target: address; or a function that returns it, called for each connection.
        budget: says after how many bytes (both directions together) the next connection is cut and how:
            ``(bytes, reset)``; bytes < 0 is never.
        delay: seconds for which each piece of data is kept.
        twins: whether each connection is made a second time, and hears the same; what it answers goes nowhere.
    """

    def __init__(
        self,
        target: tuple[str, int] | Callable[[], tuple[str, int]],
        budget: Callable[[], tuple[int, bool]] = lambda: (-1, False),
        *,
        delay: float = 0.0,
        twins: bool = False,
    ) -> None:
        self._target = target
        self._budget = budget
        self.delay = delay
        self._twins = twins
        self.passes = threading.Event()
        """Clear it, and nothing arrives and nothing ends: the network is away. Set it, and all arrives."""
        self.passes.set()
        self.recorded = bytearray()
        """What diallers sent."""
        self.connections = 0
        self.cuts = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._sock.getsockname()[:2]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._sock.accept()
            except OSError:
                return
            self.passes.wait()
            try:
                target = self._target() if callable(self._target) else self._target
                far = socket.create_connection(target, 5)
                twin = socket.create_connection(target, 5) if self._twins else None
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self.connections += 1
            left, reset = self._budget()
            pair = _Pair(self, near, far, left, reset, twin)
            self._pairs.append(pair)
            with self._lock:
                self._open |= {near, far}
            for source, sink, record in ((near, far, True), (far, near, False)):
                thread = threading.Thread(target=pair.pump, args=(source, sink, record), daemon=True)
                self._threads.append(thread)
                thread.start()

    def forget(self, *socks: socket.socket) -> None:
        """Sockets that were closed."""
        with self._lock:
            self._open -= set(socks)

    def passed_all_on(self) -> None:
        """Return when all connections have been ended by who dialled, and the other ends have been told."""
        for thread in self._threads[1:]:
            thread.join(10)
            assert not thread.is_alive()

    def cut_all(self, reset: bool = True) -> None:
        """Cut every connection now."""
        with self._lock:
            socks = list(self._open)
        for sock in socks:
            _end(sock, reset)
        self.cuts += 1

    def cut_far_ends(self) -> None:
        """Cut every connection now, so that only its far end sees it: the near end hears nothing any more."""
        for pair in list(self._pairs):
            pair.cut_far_end()
        self.cuts += 1

    def close(self) -> None:
        """Stop."""
        self.passes.set()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self.cut_all()
        for thread in self._threads:
            thread.join(5)
        for pair in self._pairs:
            pair.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pair:
    def __init__(
        self, relay: Relay, near: socket.socket, far: socket.socket, left: int, reset: bool,
        twin: socket.socket | None = None,
    ) -> None:  # fmt: skip
        self._relay = relay
        self._socks = (near, far)
        self._twin = twin
        self._left = left
        self._reset = reset
        self._lock = threading.Lock()
        self._running = 2
        self._silent = False

    def cut_far_end(self) -> None:
        """Close the far end, and leave the near one open."""
        self._silent = True
        _end(self._socks[1], False)

    def close(self) -> None:
        """Close both ends; nobody uses them any more."""
        for sock in self._socks:
            sock.close()
        if self._twin is not None:
            self._twin.close()

    def pump(self, source: socket.socket, sink: socket.socket, record: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if record:
                    self._relay.recorded += data
                if self._relay.delay:
                    time.sleep(self._relay.delay)
                self._relay.passes.wait()
                if record and self._twin is not None:
                    with suppress(OSError):
                        self._twin.sendall(data)
                with self._lock:
                    cut = 0 <= self._left <= len(data)
                    if cut:
                        data = data[: self._left]
                    self._left -= len(data) if self._left >= 0 else 0
                sink.sendall(data)
                if cut:
                    self._relay.cuts += 1
                    break
        self._relay.passes.wait()
        for sock in self._socks[1:] if self._silent else self._socks:
            _end(sock, self._reset)
        with self._lock:
            self._running -= 1
            last = not self._running
        if last and not self._silent:
            self.close()
            self._relay.forget(*self._socks)


def _end(sock: socket.socket, reset: bool) -> None:
    """Wake the threads that use a socket; it is closed by the last of them."""
    with suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        sock.shutdown(socket.SHUT_RDWR)
