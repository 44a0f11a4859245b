"""What all pipes share: bytes in order under partial writes, and the end of the other side."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

import pytest

from ipmpi.transport.pipes import Pipe, PipeClosed, PipePair
from tests.socketpipe import SocketPipe


@pytest.fixture
def pipes() -> Iterator[tuple[SocketPipe, SocketPipe]]:
    a, b = socket.socketpair()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that writes are partial
    one, two = SocketPipe(a), SocketPipe(b)
    yield one, two
    one.close()
    two.close()


def two_pairs() -> tuple[PipePair, PipePair]:
    (here, out), (there, back) = os.pipe(), os.pipe()
    return PipePair(here, back), PipePair(there, out)


@pytest.fixture
def pairs() -> Iterator[tuple[PipePair, PipePair]]:
    one, two = two_pairs()
    yield one, two
    one.close()
    two.close()


@pytest.fixture(params=["pipes", "pairs"])
def both(request: pytest.FixtureRequest) -> tuple[Pipe, Pipe]:
    one, two = request.getfixturevalue(request.param)
    return one, two


def test_nothing_there(both: tuple[Pipe, Pipe]) -> None:
    assert both[0].receive() == b""
    assert both[0].flush()


def test_bytes_arrive_in_order_under_partial_writes(both: tuple[Pipe, Pipe]) -> None:
    a, b = both
    data = random.Random(1).randbytes(300_000)
    a.send([data[:1], b"", memoryview(data)[1:200_000], bytearray(data[200_000:])])
    assert a.backlog == len(data)
    assert not a.flush(), "it is full"
    got = bytearray()
    while len(got) < len(data):
        got += b.receive()
        a.flush()
    assert got == data
    assert a.backlog == 0


def test_end_of_the_other_process(pipes: tuple[SocketPipe, SocketPipe]) -> None:
    a, b = pipes
    a.send([b"last words"])
    a.flush()
    a.close()
    assert b.receive() == b"last words"
    with pytest.raises(PipeClosed, match="gone") as caught:
        b.receive()
    assert caught.value.orderly
    b.send([b"too late"])
    with pytest.raises(PipeClosed):
        b.flush()


def test_the_end_of_a_pipe_is_never_orderly_by_itself() -> None:
    a, b = two_pairs()
    a.send([b"last words"])
    a.flush()
    a.close()
    assert b.receive() == b"last words"
    with pytest.raises(PipeClosed, match="the other end is gone") as caught:
        b.receive()
    assert not caught.value.orderly
    b.send([b"too late"])
    with pytest.raises(PipeClosed, match="Broken pipe") as caught:
        b.flush()
    assert not caught.value.orderly
    b.close()
