"""The controller's listening TCP sockets, and a bound on peers that have not authenticated.

Whoever connects has :data:`limits.HANDSHAKE_TIMEOUT` seconds to prove who it is. When :data:`limits.HALF_OPEN`
peers are at that, the next ones wait in the kernel until some are done, or have been slow
(:mod:`ipmpi.transport.dial.unauthenticated`) and are dropped. So an honest peer gets in after a moment at most.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ... import limits
from ...errors import ConnectionError, KernelError, internal_error
from ...protocol.handshake import Hello, ListenerHandshake
from ...shortage import is_out_of_files
from ...tls import Identity, TlsSession
from ..loop import READ, Loop, Timer
from ..pipes import SecurePipe
from ..tlspipe import TlsPipe, prepare
from .addresses import plain
from .dialled import SOFTWARE
from .listensocket import listen
from .negotiate import Authenticated, ListenNegotiation, OnLane
from .unauthenticated import UnauthenticatedPeers

OnHello = Callable[[Authenticated, Hello, ListenerHandshake], None]
Given = Callable[[str, bytes], bytes | None]


def nothing_given(role: str, key: bytes) -> bytes | None:
    """There are no furls but those of the roles."""
    del role, key
    return None


_ACCEPTS_A_TURN = 32
_EXHAUSTED_PAUSE = 0.2
"""Seconds without accepting when there is no room or descriptor left: what waits stays ready all the time."""


class Acceptor:
    """Lets peers of the given roles in by one listening socket.

    Args:
        sock: which listens, and is this object's from now on.
        fingerprint: of the controller's certificate.
        secrets: secret of each role that may come here.
        on_hello: called for each peer that has proved its role.
        log: called with a line about a peer that did not, at most once per source and minute.
        given: see :class:`ListenerHandshake`.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        fingerprint: bytes,
        secrets: Mapping[str, bytes],
        on_hello: OnHello,
        log: Callable[[str], None],
        given: Given = nothing_given,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fingerprint = fingerprint
        self._secrets, self._given = secrets, given
        self._on_hello = on_hello
        self.on_lane: OnLane | None = None
        """Takes those that come for a bulk lane, by TCP; raises KernelError if it does not."""
        self._log = log
        self._unauthenticated = UnauthenticatedPeers(loop.now)
        self._numbers = itertools.count()
        self._logged: dict[str, float] = {}
        self._resume: Timer | None = None
        loop.register(sock, READ, self._accept)

    def _source(self, address: Any) -> str:
        """Where a peer comes from, for the log."""
        raise NotImplementedError

    def _pipe(self, sock: socket.socket) -> SecurePipe | None:
        """The pipe to a peer; None if it may not come, or is gone."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop listening."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.unregister(self._sock)
        self._sock.close()
        for peer in self._unauthenticated:
            peer.cancel()

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            self._unauthenticated.drop_slow(limits.HALF_OPEN - 1)
            if len(self._unauthenticated) >= limits.HALF_OPEN:
                self._pause(f"{len(self._unauthenticated)} others have connected and not yet said who they are")
                return
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                there = len(self._unauthenticated)
                if is_out_of_files(error):
                    # It says so also when nobody waits: whoever got the last one must have time to speak.
                    self._unauthenticated.drop_slow(there - 1)
                if len(self._unauthenticated) < there:
                    continue
                self._pause(error.strerror or str(error))
                return
            try:
                self._begin(sock, self._source(address))
            except Exception as error:
                # Only this peer is affected: the others get in.
                self._loop.unregister(sock)
                sock.close()
                self._loop.report(error)
                self._report(self._source(address), internal_error(error, "while a connection was accepted"))

    def _pause(self, reason: str) -> None:
        self._report("anybody", ConnectionError(f"it cannot be accepted: {reason}"))
        self._loop.unregister(self._sock)
        self._resume = self._loop.call_later(
            _EXHAUSTED_PAUSE,
            lambda: self._loop.register(self._sock, READ, self._accept),
            lambda error: self._pause(str(error)),
        )

    def _begin(self, sock: socket.socket, source: str) -> None:
        number = next(self._numbers)

        def hello(peer: Authenticated, message: Hello, handshake: ListenerHandshake) -> None:
            self._unauthenticated.remove(number)
            self._on_hello(peer, message, handshake)

        def failed(error: KernelError) -> None:
            self._unauthenticated.remove(number)
            self._report(source, error)

        def lane(ticket: bytes, joins: socket.socket) -> None:
            self._unauthenticated.remove(number)
            assert self.on_lane is not None
            try:
                self.on_lane(ticket, joins)
            except KernelError as error:
                self._report(source, error)
                joins.close()
            except Exception as error:
                self._loop.report(error)
                self._report(source, internal_error(error, "while a connection for a bulk lane was taken"))
                joins.close()

        pipe = self._pipe(sock)
        if pipe is None:
            sock.close()
            return
        negotiation = ListenNegotiation(
            self._loop,
            pipe,
            self._fingerprint,
            lambda exporter: ListenerHandshake(exporter, self._secrets, SOFTWARE, given=self._given),
            hello,
            failed,
            lambda: self._unauthenticated.stepped(number),
            None if self.on_lane is None else lane,
        )
        self._unauthenticated.add(number, negotiation)

    def _report(self, source: str, error: KernelError) -> None:
        now = self._loop.now()
        if now - self._logged.get(source, -limits.REFUSAL_LOG_INTERVAL) >= limits.REFUSAL_LOG_INTERVAL:
            if len(self._logged) > 10_000:
                self._logged.clear()
            self._logged[source] = now
            self._log(f"refused a connection from {source}: {error}")


class Listener(Acceptor):
    """One listening TCP socket for peers of the given roles.

    Args:
        identity: the certificate that peers see.

    Attributes:
        address: on which it listens, as a number.
        port: of that.
        ipv6: whether peers may come by IPv6.
    """

    def __init__(
        self,
        loop: Loop,
        address: tuple[str, int],
        identity: Identity,
        secrets: Mapping[str, bytes],
        on_hello: OnHello,
        log: Callable[[str], None],
        given: Given = nothing_given,
    ) -> None:
        identity.check()  # an OpenSSL that is not good enough is found now, and not with the first peer
        self._identity = identity
        sock = listen(*address)
        super().__init__(loop, sock, identity.fingerprint, secrets, on_hello, log, given)
        self.address: str = sock.getsockname()[0]
        self.port: int = sock.getsockname()[1]
        self.ipv6 = sock.family == socket.AF_INET6

    def _source(self, address: Any) -> str:
        return plain(str(address[0]))

    def _pipe(self, sock: socket.socket) -> SecurePipe | None:
        try:
            prepare(sock)
        except OSError:
            return None
        return TlsPipe(sock, TlsSession.listener(self._identity))
