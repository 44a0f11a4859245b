"""What both pipes to a controller promise: TLS over TCP, and a Unix socket between processes of one user."""

from __future__ import annotations

import itertools
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from ipmpi.errors import KernelError
from ipmpi.tls import Identity, TlsClosed, TlsSession
from ipmpi.transport.localpipe import LocalPipe
from ipmpi.transport.pipes import PipeClosed, SecurePipe
from ipmpi.transport.tlspipe import TlsPipe, prepare

NOW = time.time()
IDENTITY = Identity.create(NOW)
KINDS = ("TLS", "local")


def unsecured(kind: str) -> tuple[SecurePipe, SecurePipe]:
    """The dialler's end and the listener's, of a connection on which nothing was said."""
    if kind == "local":
        near, far = socket.socketpair()
        return LocalPipe(near), LocalPipe(far)
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for sock in (near, far):
        prepare(sock)
    return TlsPipe(near, TlsSession.dialler()), TlsPipe(far, TlsSession.listener(IDENTITY))


def secured(kind: str) -> tuple[SecurePipe, SecurePipe]:
    dialler, listener = unsecured(kind)
    listener.greet()
    dialler.secure()
    safe = [False, False]
    while not all(safe):
        for at, pipe in enumerate((dialler, listener)):
            pipe.flush()
            if pipe.hear() or safe[1 - at]:
                safe[at] = pipe.secure()
            pipe.flush()
    dialler.check_peer(IDENTITY.fingerprint, NOW, "here")
    return dialler, listener


def again(call: Callable[[], object]) -> None:
    """Make a call again and again, until it raises."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        call()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pipes(kind: str) -> Iterator[tuple[SecurePipe, SecurePipe]]:
    ends = secured(kind)
    yield ends
    for end in ends:
        end.close()


def test_both_ends_know_the_same_of_their_connection_and_nobody_else_does(kind: str) -> None:
    seen = []
    for _ in range(2):
        ends = secured(kind)
        bindings = {end.binding(IDENTITY.fingerprint) for end in ends}
        assert len(bindings) == 1
        seen.append(bindings.pop())
        for end in ends:
            end.close()
    assert seen[0] != seen[1]
    assert all(len(binding) == 32 for binding in seen)


def test_what_comes_with_the_last_step_is_not_lost(kind: str) -> None:
    """The first message may arrive in one read with what makes the pipe secure."""
    dialler, listener = secured(kind)
    dialler.send([b"hello"])
    dialler.flush()
    while not listener.hear():
        pass
    assert bytes(listener.heard()) == b"hello"
    assert bytes(listener.heard()) == b""
    dialler.close()
    listener.close()


@pytest.mark.parametrize("size", [1, 5_000, 3_000_000])
def test_bytes_arrive_as_they_were_sent(pipes: tuple[SecurePipe, SecurePipe], size: int) -> None:
    source = random.Random(size)
    for near, far in (pipes, pipes[::-1]):
        data, sent, got = source.randbytes(size), 0, b""
        while len(got) < size:
            if not near.backlog and sent < size:
                pieces = [source.randrange(1, 200_000) for _ in range(5)]
                ends = [min(size, sent + sum(pieces[:n])) for n in range(len(pieces) + 1)]
                near.send([memoryview(data)[a:b] for a, b in itertools.pairwise(ends)])
                sent = ends[-1]
            near.flush()
            got += bytes(far.receive())
        assert got == data
        assert near.backlog == 0
        assert bytes(far.receive()) == b""


def test_what_the_system_does_not_take_waits(pipes: tuple[SecurePipe, SecurePipe]) -> None:
    near, far = pipes
    data, got = bytes(8_000_000), 0
    near.send([data])
    assert not near.flush()
    assert near.backlog > 0
    while got < len(data):
        near.flush()
        got += len(far.receive())
    assert near.flush()


def test_a_program_that_ends_is_an_orderly_end(pipes: tuple[SecurePipe, SecurePipe]) -> None:
    near, far = pipes
    near.send([b"the last words"])
    near.close()
    heard: list[bytes] = []
    with pytest.raises(PipeClosed) as ended:
        again(lambda: heard.append(bytes(far.receive())))
    assert b"".join(heard) == b"the last words"
    assert ended.value.orderly


def test_sending_to_who_is_gone_tells_so(pipes: tuple[SecurePipe, SecurePipe]) -> None:
    near, far = pipes
    far.close()

    def speak() -> None:
        near.send([b"anybody there?"])
        near.flush()

    with pytest.raises(PipeClosed):
        again(speak)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1", bytes(31)])
def test_a_dialler_is_not_secure_before_the_listener_has_done_its_part(kind: str, sent: bytes) -> None:
    dialler, listener = unsecured(kind)
    stranger = socket.socket(fileno=listener.fileno())
    dialler.secure()
    dialler.flush()
    stranger.send(sent) if sent else None
    try:
        dialler.hear()
        assert not dialler.secure()
    except (KernelError, TlsClosed):
        pass  # it has seen already that this will never be TLS
    stranger.detach()
    dialler.close()
    listener.close()
