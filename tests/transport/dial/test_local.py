"""The Unix socket of a controller: who is let in, who is believed, and what happens where there is none."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, get_args

import pytest

from ipmpi.errors import SecurityError
from ipmpi.furl import Furl
from ipmpi.protocol import messages as m
from ipmpi.protocol.handshake import DiallerHandshake, Hello, ListenerHandshake
from ipmpi.tls import Identity
from ipmpi.transport import localpipe
from ipmpi.transport.dial.dial import Dial, ways_to
from ipmpi.transport.dial.dialled import Callbacks, DialledSession
from ipmpi.transport.dial.listen import Acceptor, Listener
from ipmpi.transport.dial.local import LocalRoute, socket_name
from ipmpi.transport.dial.locallisten import LocalListener
from ipmpi.transport.dial.negotiate import Authenticated
from ipmpi.transport.dial.routes import DIRECT, ProxyRoute
from ipmpi.transport.localpipe import LocalPipe
from ipmpi.transport.loop import Loop
from ipmpi.transport.tlspipe import TlsPipe

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
SECRET = bytes(range(32))
SESSION = bytes(range(16))
IDENTITY = Identity.create(time.time())

OTHER_USER = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
name = bytes.fromhex(sys.argv[2])
if sys.argv[1] == "listens":
    sock.bind(name)
    sock.listen()
    print("there", flush=True)
    sock, _ = sock.accept()
    sock.sendall(bytes(32))  # as a controller begins
else:
    sock.connect(name)
    print("there", flush=True)
data = b""
while piece := sock.recv(65536):
    data += piece
print(data.hex() or "nothing", flush=True)
"""


class Host:
    """A controller that lets in who has the secret, and does nothing else."""

    def __init__(self, loop: Loop, port: int = 0) -> None:
        self.hellos: list[Hello] = []
        self.pipes: list[Any] = []
        self.lines: list[str] = []
        self._loop = loop
        secrets = {"mec": SECRET}
        tcp = Listener(loop, ("127.0.0.1", port), IDENTITY, secrets, self._hello, self.lines.append)
        self.port = tcp.port
        self.listeners: list[Acceptor] = [tcp]

    def listen_locally(self) -> None:
        secrets = {"mec": SECRET}
        local = LocalListener(self._loop, IDENTITY.fingerprint, self.port, secrets, self._hello, self.lines.append)
        self.listeners.append(local)

    def _hello(self, peer: Authenticated, hello: Hello, handshake: ListenerHandshake) -> None:
        self.hellos.append(hello)
        self.pipes.append(peer.pipe)
        peer.pipe.send([handshake.welcome(SESSION, 0, bool(hello.session))])
        peer.pipe.flush()

    def close(self) -> None:
        for each in [*self.listeners, *self.pipes]:
            each.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def host(loop: Loop, stack: ExitStack) -> Host:
    host = Host(loop)
    stack.callback(host.close)
    return host


def furl(port: int, secret: bytes = SECRET) -> Furl:
    return Furl(IDENTITY.fingerprint, (("127.0.0.1", port),), "mec", secret)


def run(loop: Loop, until: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not until():
        assert time.monotonic() < deadline
        loop._stopped = False
        loop.call_later(0.01, loop.stop)
        loop.run()


def dialled(loop: Loop, address: Furl) -> Any:
    """What became of dialling: the pipe, or the error."""
    ended: list[Any] = []

    def handshake(exporter: bytes) -> DiallerHandshake:
        return DiallerHandshake(address.role, address.secret, exporter, "a test")

    Dial(
        loop, address, handshake, lambda peer, welcome, candidate: ended.append(peer.pipe), ended.append,
        ways_to(address, [DIRECT]),
    )  # fmt: skip
    run(loop, lambda: ended)
    return ended[0]


def other_user(stack: ExitStack, does: str, port: int) -> subprocess.Popen[str]:
    """A process of another user that listens at the name, or connects to it, and prints what it hears."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; another than root runs all tests as such")
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-c", OTHER_USER, does, socket_name(IDENTITY.fingerprint, port).hex()],
            stdout=subprocess.PIPE, text=True,
        )
    )  # fmt: skip
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def heard_by(loop: Loop, process: subprocess.Popen[str]) -> str:
    run(loop, lambda: process.poll() is not None)
    assert process.stdout is not None
    return process.stdout.read().strip()


def test_on_one_machine_it_is_the_unix_socket(loop: Loop, host: Host) -> None:
    host.listen_locally()
    with contextlib.closing(dialled(loop, furl(host.port))) as pipe:
        assert isinstance(pipe, LocalPipe)
        assert f"process {os.getpid()}" in pipe.peer


def test_without_one_it_is_tcp(loop: Loop, host: Host) -> None:
    with contextlib.closing(dialled(loop, furl(host.port))) as pipe:
        assert isinstance(pipe, TlsPipe)
    assert not host.lines


def test_another_system_does_not_look_for_one(loop: Loop, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.listen_locally()
    monkeypatch.setattr(localpipe.sys, "platform", "darwin")
    with contextlib.closing(dialled(loop, furl(host.port))) as pipe:
        assert isinstance(pipe, TlsPipe)


def test_the_furl_of_a_forwarded_port_leads_to_that_port(loop: Loop, host: Host) -> None:
    """Who changes the port in a furl (a tunnel, a relay) wants that way."""
    host.listen_locally()
    names = {socket_name(IDENTITY.fingerprint, port) for port in (host.port, 1)}
    names.add(socket_name(bytes(32), host.port))
    assert len(names) == 3


def test_who_goes_through_a_proxy_or_ssh_does_not_look_here() -> None:
    proxy = ProxyRoute(("proxy", 3128))
    assert not any(way.is_local for way in ways_to(furl(1), [proxy]))
    assert [way.is_local for way in ways_to(furl(1), [proxy, DIRECT])] == [True, False, False]


def test_a_wrong_secret_is_refused_here_as_over_tcp(loop: Loop, host: Host) -> None:
    host.listen_locally()
    error = dialled(loop, furl(host.port, bytes(32)))
    assert isinstance(error, SecurityError)
    assert "does not accept the 'mec' furl" in str(error)
    assert not host.hellos
    assert [line for line in host.lines if "a process of this machine" in line]


def test_a_proof_is_worth_nothing_on_another_connection(loop: Loop, host: Host) -> None:
    """It is bound to a number that the listener uses once."""
    host.listen_locally()
    name = socket_name(IDENTITY.fingerprint, host.port)
    hello = b""
    for attempt in range(2):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(name)
            pipe = LocalPipe(sock)
            while not pipe.secure():
                run(loop, pipe.hear)
            if not attempt:
                binding = pipe.binding(IDENTITY.fingerprint)
                hello = DiallerHandshake("mec", SECRET, binding, "a test").hello()
            pipe.send([hello])
            pipe.flush()
            run(loop, lambda: len(host.hellos) == 1)
            if attempt:
                run(loop, lambda: host.lines)
    assert len(host.hellos) == 1
    assert "does not have its secret" in host.lines[0]


def test_another_user_hears_nothing_and_leaves_no_line(loop: Loop, host: Host, stack: ExitStack) -> None:
    host.listen_locally()
    process = other_user(stack, "connects", host.port)
    assert heard_by(loop, process) == "nothing"
    assert not host.lines


def test_another_user_who_took_the_name_is_told_nothing(loop: Loop, host: Host, stack: ExitStack) -> None:
    """The client compares the user of who listens before it says Hello, and goes on by TCP."""
    process = other_user(stack, "listens", host.port)
    with contextlib.closing(dialled(loop, furl(host.port))) as pipe:
        assert isinstance(pipe, TlsPipe)
        assert heard_by(loop, process) == "nothing"


def test_a_controller_whose_name_is_taken_says_so(loop: Loop, host: Host) -> None:
    host.listen_locally()
    with pytest.raises(OSError, match="in use"):
        host.listen_locally()


class Heard:
    """What the owner of a session is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def callbacks(self) -> Callbacks:
        tell = self.told.append
        return Callbacks(
            lambda event: None, lambda: tell("started"), lambda reason: tell("interrupted"),
            lambda error: tell(str(error)),
        )  # fmt: skip


def test_a_socket_that_breaks_is_replaced_by_tcp_and_the_session_goes_on(loop: Loop, host: Host) -> None:
    host.listen_locally()
    heard = Heard()
    session = DialledSession(loop, furl(host.port), ALL, heard.callbacks())
    loop.call_soon(session.open)
    for number, kind in enumerate((LocalPipe, TlsPipe, LocalPipe), 1):
        run(loop, lambda number=number: len(host.pipes) == number and session.link is not None)
        assert isinstance(host.pipes[-1], kind)
        assert [hello.session for hello in host.hellos] == [b"", SESSION, SESSION][:number]
        host.pipes[-1].close()
    assert heard.told[:3] == ["started", "interrupted", "interrupted"]
    session.close("the test is over")


def test_a_route_is_the_same_for_the_same_controller() -> None:
    """Else a session could not tell by which way it came."""
    assert LocalRoute(IDENTITY.fingerprint) == LocalRoute(bytes(IDENTITY.fingerprint))
