"""Unix pipes between ranks: bytes, ends, and open files that travel in order."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

import pytest

from ipmpi.transport.pipes import PipeClosed, UnixPipe


@pytest.fixture
def pipes() -> Iterator[tuple[UnixPipe, UnixPipe]]:
    a, b = socket.socketpair()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that writes are partial
    one, two = UnixPipe(a), UnixPipe(b)
    yield one, two
    one.close()
    two.close()


def file_with(data: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    return descriptor


def content(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 100, 0)
    finally:
        os.close(descriptor)


def test_nothing_there(pipes: tuple[UnixPipe, UnixPipe]) -> None:
    assert pipes[0].receive() == b""
    assert pipes[0].flush()


def test_bytes_arrive_in_order_under_partial_writes(pipes: tuple[UnixPipe, UnixPipe]) -> None:
    a, b = pipes
    data = random.Random(1).randbytes(300_000)
    a.send([data[:1], b"", memoryview(data)[1:200_000], bytearray(data[200_000:])])
    assert a.backlog == len(data)
    assert not a.flush(), "the socket is full"
    got = bytearray()
    while len(got) < len(data):
        got += b.receive()
        a.flush()
    assert got == data
    assert a.backlog == 0


def test_files_arrive_before_or_with_the_bytes_sent_after_them(pipes: tuple[UnixPipe, UnixPipe]) -> None:
    a, b = pipes
    chance = random.Random(2)
    sent = bytearray()
    marks: list[int] = []
    got = bytearray()
    found: list[bytes] = []

    def receive() -> None:
        got.extend(b.receive())
        while b.files:
            found.append(content(b.files.popleft()))
        for number, mark in enumerate(marks):
            assert len(found) > number or len(got) <= mark, f"file {number} is late"

    for number in range(60):
        marks.append(len(sent))
        descriptor = file_with(b"%d" % number)
        a.send_file(descriptor)
        os.close(descriptor)
        data = chance.randbytes(chance.choice([1, 5, 3000, 20_000]))
        sent += data
        a.send([data])
        if chance.random() < 0.5:
            a.flush()
        if chance.random() < 0.3:
            receive()
    while len(got) < len(sent):
        a.flush()
        receive()
    assert got == sent
    assert found == [b"%d" % number for number in range(60)]
    assert a.backlog == 0


def test_end_of_the_other_process(pipes: tuple[UnixPipe, UnixPipe]) -> None:
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


def test_close_closes_files_that_nobody_took(pipes: tuple[UnixPipe, UnixPipe]) -> None:
    a, b = pipes
    before = len(os.listdir("/proc/self/fd"))
    descriptor = file_with(b"x")
    for _ in range(3):
        a.send_file(descriptor)
    a.send([b"ab"])
    a.flush()
    assert b.receive()
    os.close(descriptor)
    a.close()
    b.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_files_that_arrive_are_not_passed_on_to_programs(
    pipes: tuple[UnixPipe, UnixPipe],
) -> None:
    a, b = pipes
    descriptor = file_with(b"shared")
    a.send_file(descriptor)
    os.close(descriptor)
    a.send([b"x"])
    assert a.flush()
    assert b.receive() == b"x"
    (arrived,) = b.files
    assert not os.get_inheritable(arrived)
