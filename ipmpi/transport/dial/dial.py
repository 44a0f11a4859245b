"""Reaching a controller by the host hints of its furl.

All hints are tried by all routes, the first at once and each further one a little later or as soon as its
forerunner has failed; the first that authenticates wins. Several may be ways to the same controller, which takes a
second Hello for a session that comes back. So only one at a time says Hello; others that have come as far wait.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...errors import (
    ClientError,
    ConnectionError,
    FurlEnded,
    InternalError,
    KernelError,
    SecurityError,
    VersionError,
    internal_error,
)
from ...furl import Furl, place
from ...protocol.handshake import DiallerHandshake, Welcome
from ...tls import TlsSession
from ..localpipe import LocalPipe, is_possible
from ..loop import Loop, Timer
from ..pipes import SecurePipe
from ..tlspipe import TlsPipe
from .local import LocalRoute
from .negotiate import Authenticated, DialNegotiation, TurnedAway, Unanswered
from .routes import DIRECT, Route, RouteError

_STAGGER = 0.5
"""Seconds before the next way is tried while the one before it has not answered."""


class Candidate(NamedTuple):
    """One hint, by one route."""

    host: str
    port: int
    route: Route

    def __str__(self) -> str:
        return f"{place(self.host, self.port)} {self.route.via}".rstrip()

    @property
    def is_local(self) -> bool:
        """Whether it is the Unix socket of a controller on this machine, if there is one."""
        return isinstance(self.route, LocalRoute)

    def pipe(self, sock: socket.socket) -> SecurePipe:
        """What is to be made secure on a connection that was made by this way."""
        return LocalPipe(sock) if self.is_local else TlsPipe(sock, TlsSession.dialler())


def ways_to(
    furl: Furl, routes: Sequence[Route], first: Candidate | None = None, local_first: bool = True
) -> list[Candidate]:
    """All hints by the first route, then by the second, and so on; ``first`` (what worked before) before all.

    Who may connect directly may be on the controller's machine: its Unix socket comes before all that, or after it
    if not ``local_first``.
    """
    candidates = [
        Candidate(host, port, route) for route in routes for host, port in furl.hints if route.serves(host)
    ]
    if first in candidates:
        candidates.remove(first)
        candidates.insert(0, first)
    if DIRECT not in routes or not is_possible():
        return candidates
    ports = {port: host for host, port in reversed(furl.hints)}
    local = [Candidate(host, port, LocalRoute(furl.fingerprint)) for port, host in ports.items()]
    return [*local, *candidates] if local_first else [*candidates, *local]


class Dial:
    """One attempt to reach a controller; ends in one call of ``on_done`` or ``on_failed``."""

    def __init__(
        self,
        loop: Loop,
        furl: Furl,
        handshake: Callable[[bytes], DiallerHandshake],
        on_done: Callable[[Authenticated, Welcome, Candidate], None],
        on_failed: Callable[[KernelError], None],
        candidates: Sequence[Candidate] = (),
    ) -> None:
        self._loop = loop
        self._furl = furl
        self._handshake = handshake
        self._on_done = on_done
        self._on_failed = on_failed
        self._candidates = list(candidates) or ways_to(furl, (DIRECT,))
        self._next = 0
        self._under_way: dict[int, Callable[[], None]] = {}
        self._failures: list[tuple[Candidate, KernelError]] = []
        self._speaks: int | None = None
        """The way by which Hello was said, and an answer is waited for."""
        self._waits: dict[int, DialNegotiation] = {}
        """Ways by which it could be said next."""
        self._over = False
        self._stagger: Timer | None = None
        loop.call_soon(self._try_next, self._broken)

    def cancel(self) -> None:
        """Stop trying; neither callback will be called."""
        self._over = True
        if self._stagger is not None:
            self._stagger.cancel()
        for stop in list(self._under_way.values()):
            stop()
        self._under_way.clear()
        self._waits.clear()

    def _try_next(self) -> None:
        if self._over:
            return
        if self._stagger is not None:
            self._stagger.cancel()
        if self._next == len(self._candidates):
            if not self._under_way:
                self._give_up()
            return
        number, candidate = self._next, self._candidates[self._next]
        self._next += 1
        self._under_way[number] = candidate.route.connect(
            self._loop,
            (candidate.host, candidate.port),
            lambda sock: self._connected(number, sock),
            lambda error: self._failed(number, error),
        )
        if self._next < len(self._candidates):
            self._stagger = self._loop.call_later(_STAGGER, self._try_next, self._broken)

    def _broken(self, error: BaseException) -> None:
        """Something went wrong that nobody foresaw: this attempt has failed, and says so."""
        self._loop.report(error)
        if not self._over:
            self.cancel()
            self._on_failed(internal_error(error, "while the controller was dialled"))

    def _connected(self, number: int, sock: socket.socket) -> None:
        candidate = self._candidates[number]
        try:
            negotiation = DialNegotiation(
                self._loop,
                candidate.pipe(sock),
                self._furl,
                self._handshake,
                lambda peer, welcome: self._succeeded(peer, welcome, candidate),
                lambda error: self._failed(number, error),
                str(candidate),
                lambda secure: self._secured(number, secure),
            )
        except KernelError as error:  # this OpenSSL is not good enough, for instance
            sock.close()
            self._failed(number, error)
            return
        except Exception as error:
            sock.close()
            self._broken(error)
            return
        self._under_way[number] = negotiation.cancel

    def _secured(self, number: int, negotiation: DialNegotiation) -> None:
        self._waits[number] = negotiation
        self._speak()

    def _speak(self) -> None:
        if self._speaks is None and self._waits:
            self._speaks = min(self._waits)
            self._waits.pop(self._speaks).speak()

    def _succeeded(self, peer: Authenticated, welcome: Welcome, candidate: Candidate) -> None:
        self.cancel()
        try:
            self._on_done(peer, welcome, candidate)
        except Exception as error:
            self._loop.report(error)
            self._on_failed(internal_error(error, "when the controller had answered"))
            descriptor = peer.pipe.fileno()
            if descriptor is not None:
                self._loop.unregister(descriptor)
            peer.pipe.close()

    def _failed(self, number: int, error: KernelError) -> None:
        if self._over:
            return
        stop = self._under_way.pop(number, None)
        if stop is not None:
            stop()  # something may have gone wrong elsewhere, while it went on
        self._waits.pop(number, None)
        if isinstance(error, FurlEnded):  # from the controller itself, which says the same by all other ways
            self.cancel()
            self._on_failed(error)
            return
        if self._speaks == number:
            self._speaks = None
        if not self._candidates[number].is_local:  # most often there is no such socket, and TCP tells the reason
            self._failures.append((self._candidates[number], error))
        self._speak()
        self._try_next()

    def _give_up(self) -> None:
        self._over = True
        # The controller itself explains more than somebody who did not answer.
        for _, error in self._failures:
            if isinstance(error, TurnedAway | Unanswered | VersionError | ClientError | InternalError):
                self._on_failed(error)
                return
        # A wrong certificate says nothing about other hints: its address may be another machine's in another
        # network, as loopback is everywhere.
        wrong = [error for _, error in self._failures if isinstance(error, SecurityError)]
        if len(wrong) == len(self._failures):
            self._on_failed(wrong[0])
            return
        if all(isinstance(error, RouteError) for _, error in self._failures):
            self._on_failed(self._failures[0][1])
            return
        tried = "; ".join(f"{candidate}: {error}" for candidate, error in self._failures)
        self._on_failed(
            ConnectionError(
                f"no controller answers ({tried}). Is it running? `ipcluster -n 4` starts one here; if it runs on "
                "another machine, that machine must be reachable at the address in the furl file "
                "(ipcontroller --client-location / --engine-location)."
            )
        )
