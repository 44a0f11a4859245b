"""How a TCP connection to a controller is made: directly, or through an HTTP proxy.

A route is asked for a connection to a host and port, and gives a socket which does not block. TLS begins only on
that socket, so what lies on the way, a proxy or a login node, carries ciphertext and is not trusted.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Protocol, cast

from ... import limits
from ...errors import ConnectionError, KernelError, internal_error
from ...furl import place
from ...protocol.httpconnect import ConnectRequest
from ..loop import READ, WRITE, Loop, Timer
from ..tlspipe import prepare

# (host, port), and for IPv6 also flow and scope.
SocketAddress = tuple[str, int] | tuple[str, int, int, int]

Done = Callable[[socket.socket], None]
Failed = Callable[[KernelError], None]
Cancel = Callable[[], None]


class RouteError(ConnectionError):
    """The route itself does not work, whatever the host."""


class Route(Protocol):
    """One way to reach hosts.

    Attributes:
        via: words for messages, as in "through the proxy p:3128"; nothing for the direct way.
    """

    @property
    def via(self) -> str: ...  # noqa: D102

    def serves(self, host: str) -> bool:
        """Whether it should be tried for this host."""
        ...

    def connect(self, loop: Loop, address: tuple[str, int], on_done: Done, on_failed: Failed) -> Cancel:
        """Begin to connect; one of the callbacks will be called, unless the function returned is called before.

        Neither is called before this returns.
        """
        ...


class DirectRoute:
    """TCP to the host itself."""

    via = ""

    def serves(self, host: str) -> bool:
        """Always."""
        del host
        return True

    def connect(self, loop: Loop, address: tuple[str, int], on_done: Done, on_failed: Failed) -> Cancel:
        """Look the host up, and try its addresses one after the other."""
        return _Direct(loop, address, on_done, on_failed).cancel


DIRECT = DirectRoute()


class _Attempt:
    """One attempt to connect: its socket, how long it may take, and who hears of its end."""

    def __init__(self, loop: Loop, on_done: Done, on_failed: Failed) -> None:
        self._loop = loop
        self._on_done = on_done
        self._on_failed = on_failed
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None

    def _let_go(self) -> socket.socket | None:
        """The socket, which is the caller's from now on."""
        if self._timer is not None:
            self._timer.cancel()
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.unregister(sock)
        return sock

    def _close(self) -> None:
        sock = self._let_go()
        if sock is not None:
            sock.close()

    def _hand_over(self) -> None:
        sock = self._let_go()
        assert sock is not None
        try:
            self._on_done(sock)
        except BaseException:
            sock.close()
            raise


class _Direct(_Attempt):
    """Host names are looked up in a thread, so a slow name server holds nothing up."""

    def __init__(self, loop: Loop, address: tuple[str, int], on_done: Done, on_failed: Failed) -> None:
        super().__init__(loop, on_done, on_failed)
        self._address = address
        self._over = False
        self._others: list[tuple[int, SocketAddress]] = []
        if is_address(address[0]):
            self._look_up()
        else:
            threading.Thread(target=self._look_up, daemon=True, name="ipmpi-lookup").start()

    def cancel(self) -> None:
        """Stop; neither callback will be called."""
        self._over = True
        self._close()

    def _broken(self, error: BaseException) -> None:
        # Nobody foresaw it. Whoever dials has to hear that this way has failed.
        self._loop.report(error)
        self._over = True
        self._close()
        self._on_failed(internal_error(error, "while a connection was made"))

    def _look_up(self) -> None:
        try:
            found = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:  # the latter for what cannot be a name at all
            reason = getattr(error, "strerror", None) or str(error)
            problem = ConnectionError(f"its name cannot be looked up: {reason}")
            self._loop.call_threadsafe(lambda: self._fail(problem), self._broken)
            return
        # A name may have several addresses (localhost: that of IPv6 too), of which only one is listened on.
        self._others = [(entry[0], cast(SocketAddress, entry[4])) for entry in found]
        self._loop.call_threadsafe(self._try_next, self._broken)

    def _try_next(self) -> None:
        """Try the first address that is left; the others follow if nobody answers there."""
        if self._over:
            return
        family, address = self._others.pop(0)
        try:
            self._sock = nonblocking_connect(address, family)
        except OSError as error:
            self._unreachable(error.strerror or str(error))
            return
        self._timer = self._loop.call_later(limits.CONNECT_TIMEOUT, lambda: self._connected(0), self._broken)
        self._loop.register(self._sock, WRITE, self._connected, self._broken)

    def _connected(self, events: int) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if events else errno.ETIMEDOUT
        if not code and not leads_elsewhere(self._sock):
            code = errno.ECONNREFUSED
        if code:
            self._close()
            self._unreachable(os.strerror(code))
            return
        self._over = True
        self._hand_over()

    def _unreachable(self, reason: str) -> None:
        if self._others:
            self._try_next()
        else:
            self._fail(ConnectionError(reason))

    def _fail(self, error: KernelError) -> None:
        if not self._over:
            self._over = True
            self._on_failed(error)


class ProxyRoute:
    """Through an HTTP proxy, by the method CONNECT.

    Args:
        address: host and port of the proxy.
        user: ``user:password``, if it wants that; it is sent to the proxy only, and shown nowhere.
        serves: for which hosts it should be tried.
    """

    def __init__(
        self, address: tuple[str, int], user: str = "", serves: Callable[[str], bool] = lambda host: True
    ) -> None:
        self._address = address
        self._user = user
        self._serves = serves

    def __repr__(self) -> str:
        return f"<ProxyRoute {self.name}>"

    @property
    def name(self) -> str:
        """Host and port."""
        return place(*self._address)

    @property
    def via(self) -> str:
        """Words for messages."""
        return f"through the proxy {self.name}"

    def serves(self, host: str) -> bool:
        """Whether it should be tried for this host."""
        return self._serves(host)

    def connect(self, loop: Loop, address: tuple[str, int], on_done: Done, on_failed: Failed) -> Cancel:
        """Connect to the proxy, and have it connect to the host."""
        name = f"the proxy {self.name}"
        request = ConnectRequest(*address, name, self._user)
        return _Tunnel(loop, self._address, name, request, on_done, on_failed).cancel


class _Tunnel(_Attempt):
    def __init__(
        self,
        loop: Loop,
        proxy: tuple[str, int],
        name: str,
        request: ConnectRequest,
        on_done: Done,
        on_failed: Failed,
    ) -> None:
        super().__init__(loop, on_done, on_failed)
        self._name = name
        self._request = request
        self._cancel = DIRECT.connect(loop, proxy, self._connected, self._unreachable)

    def cancel(self) -> None:
        """Stop; neither callback will be called."""
        self._cancel()
        self._close()

    def _broken(self, error: BaseException) -> None:
        self._loop.report(error)
        self._close()
        self._on_failed(internal_error(error, f"while {self._name} was asked"))

    def _unreachable(self, error: KernelError) -> None:
        self._on_failed(ConnectionError(f"{self._name} is not reached: {error}"))

    def _connected(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timer = self._loop.call_later(limits.PROXY_TIMEOUT, self._too_late, self._broken)
        self._loop.register(sock, READ, self._ready, self._broken)
        try:
            # A request fits into the empty buffer of a new connection.
            if sock.send(self._request.data) != len(self._request.data):
                raise OSError(errno.EAGAIN, "it takes no data")
        except OSError as error:
            problem = ConnectionError(error.strerror or str(error))
            self._loop.call_soon(lambda: self._fail(problem), self._broken)

    def _ready(self, _events: int) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._fail(self._request.closed())
            return
        try:
            done = self._request.receive(data)
        except KernelError as error:
            self._fail(error)
            return
        if done:
            self._hand_over()

    def _too_late(self) -> None:
        self._fail(ConnectionError(f"{self._name} gave no answer within {limits.PROXY_TIMEOUT:.0f} s"))

    def _fail(self, error: KernelError) -> None:
        if self._sock is not None:
            self._close()
            self._on_failed(error)


def nonblocking_connect(address: SocketAddress, family: int) -> socket.socket:
    """A socket that is connecting; OSError if that fails at once."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        prepare(sock)
        code = sock.connect_ex(address)
        # The system tells an error that is known at once here, and only here.
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except OSError:
        sock.close()
        raise
    return sock


def leads_elsewhere(sock: socket.socket) -> bool:
    """Whether a connection does not end where it begins; such a one is reset.

    Who dials a port of this machine on which nobody listens is given, once in 28,000 times, that very port as his
    own, and is connected with himself (RFC 9293, section 3.5: simultaneous open). As long as that lasts, a
    controller that comes back cannot listen there.
    """
    try:
        if sock.getsockname() != sock.getpeername():
            return True
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it frees the port
    except OSError:  # it has ended already, as whoever reads from it will see
        return True
    return False


def is_address(host: str) -> bool:
    """Whether it is an IP address, and no name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False
