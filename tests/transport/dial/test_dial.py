"""Ways to a controller, several at once: over real TLS on loopback, in one loop."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, get_args

import pytest

from ipmpi import limits
from ipmpi.errors import ConnectionError, InternalError, KernelError, SecurityError
from ipmpi.furl import Furl
from ipmpi.protocol import messages as m
from ipmpi.protocol.handshake import DiallerHandshake, Hello, ListenerHandshake
from ipmpi.tls import Identity
from ipmpi.transport.dial.dial import Dial
from ipmpi.transport.dial.dialled import Callbacks, DialledSession
from ipmpi.transport.dial.listen import Listener
from ipmpi.transport.dial.listensocket import listen
from ipmpi.transport.dial.negotiate import Authenticated
from ipmpi.transport.dial.routes import DIRECT
from ipmpi.transport.loop import Loop
from tests.sameport import SamePort

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
SECRET = bytes(range(32))
SESSION = bytes(range(16))


class Host:
    """A controller that lets in who has the secret, after a while, and does nothing else."""

    def __init__(self, loop: Loop, identity: Identity, port: int = 0, delay: float = 0) -> None:
        self._loop = loop
        self._delay = delay
        self.hellos: list[Hello] = []
        self._pipes: list[Any] = []
        secrets = {"mec": SECRET}
        self._listener = Listener(loop, ("127.0.0.1", port), identity, secrets, self._hello, lambda line: None)
        self.port = self._listener.port

    def _hello(self, peer: Authenticated, hello: Hello, handshake: ListenerHandshake) -> None:
        self.hellos.append(hello)
        self._pipes.append(peer.pipe)
        self._loop.call_later(self._delay, lambda: self._welcome(peer, handshake, bool(hello.session)))

    def _welcome(self, peer: Authenticated, handshake: ListenerHandshake, resumed: bool) -> None:
        peer.pipe.send([handshake.welcome(SESSION, 0, resumed)])
        peer.pipe.flush()

    def close(self) -> None:
        self._listener.close()
        for pipe in self._pipes:
            pipe.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


IDENTITY = Identity.create(time.time())
OTHER = Identity.create(time.time())


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def furl(*ports: int) -> Furl:
    return Furl(IDENTITY.fingerprint, tuple(("127.0.0.1", port) for port in ports), "mec", SECRET)


def dialled(loop: Loop, address: Furl) -> list[Any]:
    """What became of dialling: the pipe, or the error."""
    ended: list[Any] = []

    def end(what: Any) -> None:
        ended.append(what)
        loop.stop()

    def handshake(exporter: bytes) -> DiallerHandshake:
        return DiallerHandshake(address.role, address.secret, exporter, "a test")

    Dial(loop, address, handshake, lambda peer, welcome, candidate: end(peer.pipe), end)
    loop.run()
    loop._stopped = False
    return ended


def test_only_one_of_several_ways_says_hello(loop: Loop, stack: ExitStack) -> None:
    """The controller would take the second one for the session that comes back, and close the first."""
    host = Host(loop, IDENTITY, delay=1.2)
    stack.callback(host.close)
    (pipe,) = dialled(loop, furl(host.port, host.port, host.port))
    pipe.close()
    assert len(host.hellos) == 1


def test_the_next_way_says_hello_when_the_first_has_failed(loop: Loop, stack: ExitStack) -> None:
    host = Host(loop, IDENTITY, delay=0.8)
    stack.callback(host.close)
    answered: Callable[..., None] = host._welcome

    def first_dies(peer: Authenticated, handshake: ListenerHandshake, resumed: bool) -> None:
        if len(host.hellos) == 1:
            peer.pipe.close()
        else:
            answered(peer, handshake, resumed)

    host._welcome = first_dies  # type: ignore[method-assign]
    (pipe,) = dialled(loop, furl(host.port, host.port))
    pipe.close()
    assert len(host.hellos) == 2


def test_another_controller_at_one_hint_does_not_explain_the_others(loop: Loop, stack: ExitStack) -> None:
    other = Host(loop, OTHER)
    stack.callback(other.close)
    (error,) = dialled(loop, furl(closed_port(), other.port))
    assert type(error) is ConnectionError, "so it is tried again, where there is patience"
    assert "refused" in str(error)
    assert "this furl is of another controller" in str(error)
    assert not other.hellos


def test_another_controller_at_every_hint_is_the_reason(loop: Loop, stack: ExitStack) -> None:
    other = Host(loop, OTHER)
    stack.callback(other.close)
    (error,) = dialled(loop, furl(other.port, other.port))
    assert isinstance(error, SecurityError)
    assert "this furl is of another controller" in str(error)


def test_the_right_controller_at_one_hint_is_enough(loop: Loop, stack: ExitStack) -> None:
    other, host = Host(loop, OTHER), Host(loop, IDENTITY)
    stack.callback(other.close)
    stack.callback(host.close)
    (pipe,) = dialled(loop, furl(closed_port(), other.port, host.port))
    pipe.close()


class Heard:
    """What the owner of a session is told."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.told: list[str] = []
        self.errors: list[KernelError] = []

    def callbacks(self) -> Callbacks:
        return Callbacks(
            lambda event: None,
            lambda: self._tell("started"),
            lambda reason: self._tell("interrupted"),
            self._ended,
        )

    def _ended(self, error: KernelError) -> None:
        self.errors.append(error)
        self._tell("ended")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self._loop.stop()

    def next(self) -> str:
        count = len(self.told)
        while len(self.told) == count:
            self._loop._stopped = False
            self._loop.run()
        return self.told[count]


def run_for(loop: Loop, seconds: float) -> None:
    """Let the loop turn for so long."""
    loop.call_later(seconds, loop.stop)
    loop._stopped = False
    loop.run()


def test_somebody_else_on_the_port_does_not_end_a_session_that_was_up(
    loop: Loop, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECONNECT_FIRST", 0.01)
    monkeypatch.setattr(limits, "RECONNECT_LONGEST", 0.01)
    host = Host(loop, IDENTITY)
    heard = Heard(loop)
    session = DialledSession(loop, furl(host.port), ALL, heard.callbacks(), patience=60)
    loop.call_soon(session.open)
    assert heard.next() == "started"
    host.close()
    other = Host(loop, OTHER, host.port)
    assert heard.next() == "interrupted"
    # It is met several times, and then the controller is back.
    run_for(loop, 0.3)
    assert heard.told == ["started", "interrupted"]
    other.close()
    again = Host(loop, IDENTITY, host.port)
    stack.callback(again.close)
    while not again.hellos:
        run_for(loop, 0.05)
    assert again.hellos[0].session == SESSION
    assert heard.told == ["started", "interrupted"]
    session.close("the test is over")


def test_a_controller_that_was_killed_is_dialled_again_without_delay(
    loop: Loop, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECONNECT_FACTOR", 1000.0)  # so that one pause that may grow is a long one
    monkeypatch.setattr(limits, "RECONNECT_LONGEST", 600.0)
    monkeypatch.setattr(limits, "RECONNECT_OFTEN", 0.02)
    host = Host(loop, IDENTITY)
    heard = Heard(loop)
    session = DialledSession(loop, furl(host.port), ALL, heard.callbacks(), patience=60)
    loop.call_soon(session.open)
    assert heard.next() == "started"
    host.close()
    assert heard.next() == "interrupted"
    run_for(loop, 0.5)  # it dials several times in vain
    again = Host(loop, IDENTITY, host.port)
    stack.callback(again.close)
    end = time.monotonic() + 60
    while not again.hellos and time.monotonic() < end:
        run_for(loop, 0.05)
    assert again.hellos, heard.told
    session.close("the test is over")


def test_a_session_that_has_ended_dials_no_more(
    loop: Loop, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(loop, IDENTITY)
    heard = Heard(loop)
    session = DialledSession(loop, furl(host.port), ALL, heard.callbacks(), patience=60)
    loop.call_soon(session.open)
    assert heard.next() == "started"
    start_dial = DialledSession._start_dial

    def raises_after(self: DialledSession) -> None:
        start_dial(self)
        if len(heard.told) > 1:
            monkeypatch.undo()
            raise ZeroDivisionError

    monkeypatch.setattr(DialledSession, "_start_dial", raises_after)
    host.close()
    again = Host(loop, IDENTITY, host.port)
    stack.callback(again.close)
    while heard.told[-1] != "ended":
        heard.next()
    assert isinstance(heard.errors[0], InternalError)
    run_for(loop, 0.5)
    assert not again.hellos
    assert session.link is None


def test_a_connection_that_cannot_be_taken_is_closed(loop: Loop) -> None:
    given: list[socket.socket] = []
    failed: list[KernelError] = []

    def end(error: KernelError) -> None:
        failed.append(error)
        loop.stop()

    def cannot_take(sock: socket.socket) -> None:
        given.append(sock)
        raise ZeroDivisionError

    with socket.create_server(("127.0.0.1", 0)) as server:
        DIRECT.connect(loop, server.getsockname()[:2], cannot_take, end)
        loop.run()
    assert given[0].fileno() == -1
    assert isinstance(failed[0], InternalError)


def test_who_is_connected_with_himself_leaves_the_port_to_the_controller(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = closed_port()
    monkeypatch.setattr(socket, "socket", SamePort)
    (error,) = dialled(loop, furl(port))
    monkeypatch.undo()
    assert isinstance(error, ConnectionError)
    assert "Connection refused" in str(error)
    monkeypatch.setattr(limits, "PORT_WAIT", 0.0)
    listen("127.0.0.1", port).close()


def test_a_handshake_does_not_outlive_its_way(
    loop: Loop, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(loop, IDENTITY)
    stack.callback(host.close)
    begun: list[Any] = []
    connected = Dial._connected

    def raises_after(self: Dial, number: int, sock: socket.socket) -> None:
        connected(self, number, sock)
        begun.append(sock)
        raise ZeroDivisionError

    monkeypatch.setattr(Dial, "_connected", raises_after)
    (outcome,) = dialled(loop, furl(host.port))
    assert isinstance(outcome, InternalError)
    assert begun[0].fileno() == -1
    assert not host.hellos
