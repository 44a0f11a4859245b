"""Reaching a controller by the host hints of its furl (layer L3).

All hints are tried, the first at once and each further one a little later or as soon as its forerunner has
failed; the first that authenticates wins. Host names are looked up in a thread, so a slow name server holds
nothing up.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import cast

from .. import limits
from ..errors import ConnectionError, KernelError, SecurityError, VersionError
from ..furl import Furl
from ..protocol.handshake import DiallerHandshake, Welcome
from .loop import WRITE, Loop, Timer
from .negotiate import Authenticated, DialNegotiation, SocketAddress, nonblocking_connect

_STAGGER = 0.5
"""Seconds before the next hint is tried while the one before it has not answered."""


class Dial:
    """One attempt to reach a controller; ends in one call of ``on_done`` or ``on_failed``."""

    def __init__(
        self,
        loop: Loop,
        furl: Furl,
        handshake: Callable[[bytes], DiallerHandshake],
        on_done: Callable[[Authenticated, Welcome], None],
        on_failed: Callable[[KernelError], None],
    ) -> None:
        self._loop = loop
        self._furl = furl
        self._handshake = handshake
        self._on_done = on_done
        self._on_failed = on_failed
        self._hints = list(furl.hints)
        self._next = 0
        self._under_way: dict[int, Callable[[], None]] = {}
        self._failures: list[tuple[str, KernelError]] = []
        self._over = False
        self._stagger: Timer | None = None
        loop.call_soon(self._try_next)

    def cancel(self) -> None:
        """Stop trying; neither callback will be called."""
        self._over = True
        if self._stagger is not None:
            self._stagger.cancel()
        for stop in list(self._under_way.values()):
            stop()
        self._under_way.clear()

    def _try_next(self) -> None:
        if self._over:
            return
        if self._stagger is not None:
            self._stagger.cancel()
        if self._next == len(self._hints):
            if not self._under_way:
                self._give_up()
            return
        number, (host, port) = self._next, self._hints[self._next]
        self._next += 1
        self._under_way[number] = lambda: None
        lookup = partial(self._look_up, number, host, port)
        if _is_address(host):
            lookup()
        else:
            threading.Thread(target=lookup, daemon=True, name="ipmpi-lookup").start()
        if self._next < len(self._hints):
            self._stagger = self._loop.call_later(_STAGGER, self._try_next)

    def _look_up(self, number: int, host: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            problem = ConnectionError(f"its name cannot be looked up: {error.strerror or error}")
            self._loop.call_threadsafe(lambda: self._failed(number, problem))
            return
        # A name may have several addresses (localhost: that of IPv6 too), of which only one is listened on.
        addresses: list[tuple[int, SocketAddress]] = [(entry[0], cast(SocketAddress, entry[4])) for entry in found]
        self._loop.call_threadsafe(lambda: self._connect(number, addresses))

    def _connect(self, number: int, addresses: list[tuple[int, SocketAddress]]) -> None:
        """Try the first address; the others follow if nobody answers there."""
        if self._over:
            return
        (family, address), *others = addresses
        try:
            sock = nonblocking_connect(address, family)
        except OSError as error:
            self._unreachable(number, others, error.strerror or str(error))
            return

        def ready(events: int) -> None:
            self._connected(number, sock, timer, events, others)

        def stop() -> None:
            timer.cancel()
            self._loop.unregister(sock)
            sock.close()

        timer = self._loop.call_later(limits.CONNECT_TIMEOUT, lambda: ready(0))
        self._under_way[number] = stop
        self._loop.register(sock, WRITE, ready)

    def _unreachable(self, number: int, others: list[tuple[int, SocketAddress]], reason: str) -> None:
        if others:
            self._connect(number, others)
        else:
            self._failed(number, ConnectionError(reason))

    def _connected(
        self,
        number: int,
        sock: socket.socket,
        timer: Timer,
        events: int,
        others: list[tuple[int, SocketAddress]],
    ) -> None:
        timer.cancel()
        self._loop.unregister(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if events else errno.ETIMEDOUT
        if code:
            sock.close()
            self._unreachable(number, others, os.strerror(code))
            return
        negotiation = DialNegotiation(
            self._loop,
            sock,
            self._furl,
            self._handshake,
            self._succeeded,
            lambda error: self._failed(number, error),
        )
        self._under_way[number] = negotiation.cancel

    def _succeeded(self, peer: Authenticated, welcome: Welcome) -> None:
        self.cancel()
        self._on_done(peer, welcome)

    def _failed(self, number: int, error: KernelError) -> None:
        if self._over:
            return
        self._under_way.pop(number, None)
        self._failures.append(("{}:{}".format(*self._hints[number]), error))
        self._try_next()

    def _give_up(self) -> None:
        self._over = True
        # Somebody who answered and is wrong explains more than somebody who did not answer.
        for _, error in self._failures:
            if isinstance(error, SecurityError | VersionError):
                self._on_failed(error)
                return
        tried = "; ".join(f"{host}: {error}" for host, error in self._failures)
        self._on_failed(
            ConnectionError(
                f"no controller answers ({tried}). Is it running? `ipcluster -n 4` starts one here; if it runs on "
                "another machine, that machine must be reachable at the address in the furl file "
                "(ipcontroller --client-location / --engine-location)."
            )
        )


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
