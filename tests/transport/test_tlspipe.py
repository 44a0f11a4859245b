"""The pipe between machines: TLS over a real TCP connection on loopback."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from ipmpi import limits
from ipmpi.tls import Identity, TlsSession
from ipmpi.transport.pipes import PipeClosed
from ipmpi.transport.tlspipe import READ_SIZE, TlsPipe, prepare

NOW = time.time()
IDENTITY = Identity.create(NOW)


@pytest.fixture
def pipes() -> Iterator[tuple[TlsPipe, TlsPipe]]:
    """Two ends, secure already."""
    dialler, listener = TlsSession.dialler(), TlsSession.listener(IDENTITY)
    done = False
    while not done:
        done = dialler.handshake()
        listener.receive_ciphertext(dialler.ciphertext_to_send())
        done = listener.handshake() and done
        dialler.receive_ciphertext(listener.ciphertext_to_send())
    dialler.check_peer(IDENTITY.fingerprint, NOW)
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for sock in (near, far):
        prepare(sock)
    ends = TlsPipe(near, dialler), TlsPipe(far, listener)
    yield ends
    for end in ends:
        end.close()


def for_ever(call: Callable[[], object]) -> None:
    while True:
        call()


def waits_for_nothing(pipe: TlsPipe) -> bytes:
    """All that can be read without another byte arriving."""
    data = b""
    while piece := pipe.receive():
        data += bytes(piece)
    return data


@pytest.mark.parametrize("size", [1, READ_SIZE - 1, READ_SIZE, READ_SIZE + 1, 3 * READ_SIZE + 17_000, 1_000_003])
def test_nothing_stays_in_tls_when_the_socket_is_empty(pipes: tuple[TlsPipe, TlsPipe], size: int) -> None:
    # A read may complete a record of which a part was kept, and so more bytes than were asked for. What was then
    # left behind came out with the next message only: transfers stood still for seconds.
    near, far = pipes
    sent = os.urandom(size)
    near.send([sent])
    received = b""
    while True:
        flushed = near.flush()
        received += waits_for_nothing(far)
        if flushed and len(received) == size:
            break
        assert not (flushed and len(received) > size)
    assert received == sent


@pytest.mark.parametrize("garbage", [False, True], ids=["closed", "spoilt"])
def test_sending_on_a_link_that_failed_is_an_end_and_no_surprise(
    pipes: tuple[TlsPipe, TlsPipe], garbage: bool
) -> None:
    near, far = pipes
    if garbage:
        near._sock.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    else:
        near.close()
    with pytest.raises(PipeClosed):
        for_ever(far.receive)
    with pytest.raises(PipeClosed):
        far.send([b"an answer that was due"])


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has this bound")
def test_a_peer_that_lives_and_does_not_read_is_not_cut_off_before_its_silence_ends() -> None:
    """An engine set's agent may be kept from reading for up to SILENCE, on a node that swaps say.

    Linux counts that as time in which data is not taken (tcp(7), TCP_USER_TIMEOUT). A client whose Python is kept
    for longer, by a library that holds the GIL, dials again and resumes its session.
    """
    with socket.socket() as sock:
        prepare(sock)
        bound = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert bound == 0 or bound >= 1000 * limits.SILENCE


def test_a_pipe_closes_its_socket_although_it_cannot_say_goodbye(
    pipes: tuple[TlsPipe, TlsPipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> NoReturn:
        raise MemoryError

    near, far = pipes
    with monkeypatch.context() as patch:
        patch.setattr(near, "collect", broken)
        with pytest.raises(MemoryError):
            near.close()
    assert near.fileno() in (None, -1)
    with pytest.raises(PipeClosed):
        for_ever(far.receive)
