"""From a connection to an authenticated link.

A :class:`Negotiation` makes one pipe secure (by TLS, or by the kernel's word who is at the other end), and then
drives the authentication of :mod:`ipmpi.protocol.handshake`, under a deadline and a limit on bytes. It ends in
exactly one call: ``on_done(peer)`` or ``on_failed(error)``.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from ... import limits
from ...errors import (
    ConnectionError,
    KernelError,
    RemoteProtocolError,
    SecurityError,
    VersionError,
    internal_error,
)
from ...furl import Furl
from ...protocol.frames import Buffer
from ...protocol.handshake import DiallerHandshake, Hello, ListenerHandshake, Refusal, Welcome
from ...protocol.lanes import PREAMBLE, TICKET_BYTES
from ...tls import TlsClosed
from ..loop import READ, WRITE, Loop
from ..pipes import PipeClosed, SecurePipe
from ..tlspipe import TlsPipe


class Unanswered(SecurityError, ConnectionError):
    """The controller closed the connection after our Hello: the wrong secret, or the network at a bad moment."""


class TurnedAway(ConnectionError):
    """The controller refuses for now, and says why."""


@dataclass
class Authenticated:
    """A pipe whose other end has proved that it holds the secret of its role."""

    pipe: SecurePipe
    peer: str
    leftover: Buffer


class _Negotiation:
    """What both ends have in common: the pipe, the deadline, the steps until it is secure."""

    _largest: float = math.inf
    """Bytes that the peer may send before the negotiation is over."""

    def __init__(
        self,
        loop: Loop,
        pipe: SecurePipe,
        on_failed: Callable[[KernelError], None],
        peer: str = "",
        timeout: float = limits.HANDSHAKE_TIMEOUT,
    ) -> None:
        self._loop = loop
        self._pipe = pipe
        self._on_failed = on_failed
        self._over = False
        self._secure = False
        self._received = 0
        self._timeout = timeout
        self._timer = loop.call_later(timeout, self._too_late, self._broken)
        self.peer = peer or self._pipe.peer

    def _watch(self) -> None:
        events = READ if self._pipe.flush() else READ | WRITE
        self._loop.register(self._descriptor, events, self._step, self._broken)

    @property
    def _descriptor(self) -> int:
        descriptor = self._pipe.fileno()
        assert descriptor is not None
        return descriptor

    def _step(self, _events: int) -> None:
        try:
            self._advance()
        except PipeClosed as closed:
            self.fail(self._explain_close(str(closed)))
        except TlsClosed as closed:
            self.fail(self._explain_close(str(closed)))
        except KernelError as error:
            self.fail(error)

    def _broken(self, error: BaseException) -> None:
        """Something went wrong that nobody foresaw, which ends this negotiation and nothing else."""
        self._loop.report(error)
        failure = internal_error(error, f"in the handshake with {self.peer}")
        if self._over:  # it was over for this end, and whoever took the pipe could not deal with it
            self._pipe.close()
            self._on_failed(failure)
        else:
            self.fail(failure)

    def _explain_close(self, reason: str) -> KernelError:
        return RemoteProtocolError(f"{self.peer} went away before it said who it is: {reason}")

    def _advance(self) -> None:
        """Read what is there; go on until the pipe is secure, then with the authentication."""
        arrived = self._pipe.hear()
        if not self._secure:
            waited = self._pipe.backlog
            done = self._pipe.secure()
            if done or self._pipe.backlog > waited:
                self._on_step()
            if not done:
                self._watch()
                return
            self._secure = True
            self._secured()
        if arrived:
            data = self._pipe.heard()
            self._received += len(data)
            if self._received > self._largest:
                raise RemoteProtocolError(f"{self.peer} sent too much before it said who it is")
            if len(data):
                self._authenticate(data)
        if not self._over:
            self._watch()

    def _on_step(self) -> None:
        """The peer has taken a step on the way to a secure pipe."""

    def _secured(self) -> None:
        """The pipe is secure; nothing of ours has been sent."""
        raise NotImplementedError

    def _authenticate(self, data: Buffer) -> None:
        """Bytes of the authentication arrived."""
        raise NotImplementedError

    def _too_late(self) -> None:
        self.fail(ConnectionError(f"{self.peer} did not finish its handshake within {self._timeout:.0f} s"))

    def _release(self) -> None:
        self._over = True
        self._timer.cancel()
        self._loop.unregister(self._descriptor)

    def fail(self, error: KernelError) -> None:
        """Give up; the caller hears ``error``."""
        if not self._over:
            self.cancel()
            self._on_failed(error)

    def cancel(self) -> None:
        """Give up silently."""
        if not self._over:
            self._release()
            self._pipe.close()


class DialNegotiation(_Negotiation):
    """The dialler's end. Who is at the other end is checked before the first application byte.

    Args:
        on_secure: called when it is the right one; :meth:`speak` is to be called then or later. (Without it,
            this one speaks at once.)
    """

    def __init__(
        self,
        loop: Loop,
        pipe: SecurePipe,
        furl: Furl,
        handshake: Callable[[bytes], DiallerHandshake],
        on_done: Callable[[Authenticated, Welcome], None],
        on_failed: Callable[[KernelError], None],
        peer: str = "",
        on_secure: Callable[[DialNegotiation], None] | None = None,
    ) -> None:
        super().__init__(loop, pipe, on_failed, peer, limits.ANSWER_TIMEOUT)
        self._furl = furl
        self._make_handshake = handshake
        self._handshake: DiallerHandshake | None = None
        self._on_done = on_done
        self._on_secure = on_secure
        try:
            self._pipe.secure()
            self._watch()
        except PipeClosed as closed:
            # The caller must have its object before it hears of a failure.
            self._fail_soon(self._explain_close(str(closed)))

    def _explain_close(self, reason: str) -> KernelError:
        if self._handshake is not None:
            try:
                self._handshake.closed()
            except SecurityError as error:
                return Unanswered(str(error))
        kind = self._pipe.kind
        return ConnectionError(f"{self.peer} closed the connection during the {kind} handshake: {reason}")

    def _secured(self) -> None:
        self._pipe.check_peer(self._furl.fingerprint, time.time(), self.peer)
        if self._on_secure is None:
            self.speak()
        else:
            self._on_secure(self)

    def speak(self) -> None:
        """Say Hello."""
        if self._over:
            return
        try:
            self._handshake = self._make_handshake(self._pipe.binding(self._furl.fingerprint))
            self._pipe.send([self._handshake.hello()])
            self._watch()
        except (PipeClosed, TlsClosed) as closed:
            self._fail_soon(self._explain_close(str(closed)))
        except KernelError as error:
            self._fail_soon(error)

    def _fail_soon(self, error: KernelError) -> None:
        self._loop.call_soon(lambda: self.fail(error), self._broken)

    def _authenticate(self, data: Buffer) -> None:
        if self._handshake is None:
            raise RemoteProtocolError(f"{self.peer} spoke before it was spoken to")
        answer = self._handshake.receive(data)
        if isinstance(answer, Refusal):
            raise TurnedAway(f"the controller at {self.peer} refuses: {answer.sentence}")
        if answer is not None:
            self._release()
            self._on_done(Authenticated(self._pipe, self.peer, self._handshake.leftover), answer)


OnLane = Callable[[bytes, socket.socket], object]
"""Called with the ticket and the socket of who comes for a bulk lane."""


class ListenNegotiation(_Negotiation):
    """The controller's end; ``on_hello`` gets the peer and answers it by the handshake object.

    With ``on_lane``, a peer may begin with a ticket for a bulk lane in the place of TLS.
    """

    # The controller's first messages may follow its answer at once; a stranger may send only its own.
    _largest = limits.AUTHENTICATION_BYTES

    def __init__(
        self,
        loop: Loop,
        pipe: SecurePipe,
        fingerprint: bytes,
        handshake: Callable[[bytes], ListenerHandshake],
        on_hello: Callable[[Authenticated, Hello, ListenerHandshake], None],
        on_failed: Callable[[KernelError], None],
        on_step: Callable[[], None] = lambda: None,
        on_lane: OnLane | None = None,
        timeout: float = limits.HANDSHAKE_TIMEOUT,
    ) -> None:
        super().__init__(loop, pipe, on_failed, timeout=timeout)
        self._on_lane = on_lane
        self._preamble = b""
        self._fingerprint = fingerprint
        self._tell_step = on_step
        self._make_handshake = handshake
        self._handshake: ListenerHandshake | None = None
        self._on_hello = on_hello
        self._pipe.greet()
        self._watch()

    def _on_step(self) -> None:
        self._tell_step()

    def _advance(self) -> None:
        if self._on_lane is None or not isinstance(self._pipe, TlsPipe):
            super()._advance()
            return
        if not self._preamble:
            first = self._pipe.hear_plain(1, keep=True)
            if first != PREAMBLE[:1]:
                if first:
                    self._on_lane = None  # it is a peer that begins with TLS
                    super()._advance()
                return
        # Not one byte more: what follows is for the other end of the lane.
        self._preamble += self._pipe.hear_plain(len(PREAMBLE) + TICKET_BYTES - len(self._preamble))
        if not PREAMBLE.startswith(self._preamble[: len(PREAMBLE)]):
            raise RemoteProtocolError(f"{self.peer} does not speak TLS")
        if len(self._preamble) == len(PREAMBLE) + TICKET_BYTES:
            self._release()
            self._on_lane(self._preamble[len(PREAMBLE) :], self._pipe.let_go())

    def fail(self, error: KernelError) -> None:
        """Give up; the caller hears ``error``."""
        super().fail(error)
        # The pipe has it, and its traceback has the pipe: both would stay until the garbage collector looks at all
        # objects, and strangers may come as often as they like.
        each: BaseException | None = error
        while each is not None:
            each.__traceback__, each = None, each.__cause__ or each.__context__

    def catch_up(self) -> None:
        """Read what the peer has sent."""
        self._step(READ)

    def _secured(self) -> None:
        self._handshake = self._make_handshake(self._pipe.binding(self._fingerprint))

    def _authenticate(self, data: Buffer) -> None:
        assert self._handshake is not None
        try:
            hello = self._handshake.receive(data)
        except VersionError as error:
            self._pipe.send([self._handshake.refuse("version", str(error))])
            self._pipe.flush()
            raise
        if hello is not None:
            self._release()
            self._on_hello(Authenticated(self._pipe, self.peer, self._handshake.leftover), hello, self._handshake)
