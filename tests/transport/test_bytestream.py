"""Streams of bytes with credit, and who may connect on loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from ipmpi import limits
from ipmpi.errors import ClientError
from ipmpi.transport import bytestream
from ipmpi.transport.bytestream import ByteStream, LoopbackServer, owner_of_peer
from ipmpi.transport.loop import Loop
from ipmpi.transport.packets import stream_pair


class End:
    """One end of a pair in a loop; the other one is a blocking socket."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.other, sock = stream_pair()
        self.other.settimeout(10)
        self.got = b""
        self.taken = 0
        self.ends = 0
        self.stream = ByteStream(loop, sock, self._data, self._taken, self._closed)

    def _data(self, data: bytes) -> None:
        self.got += data
        self.loop.stop()

    def _taken(self, size: int) -> None:
        self.taken += size

    def _closed(self) -> None:
        self.ends += 1
        self.loop.stop()

    def turn(self, seconds: float = 10.0) -> None:
        """Until something has come, or for so long."""
        self.loop._stopped = False
        timer = self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()
        timer.cancel()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def end(loop: Loop) -> Iterator[End]:
    made = End(loop)
    yield made
    made.other.close()
    made.stream.close()


def test_no_more_is_read_than_was_granted(end: End) -> None:
    end.other.sendall(b"abcdef")
    end.turn(0.01)
    assert end.got == b""
    end.stream.grant(4)
    end.turn()
    end.turn(0.01)
    assert end.got == b"abcd"
    end.stream.grant(4)
    end.turn()
    assert end.got == b"abcdef"


def test_what_was_taken_is_told_when_it_was_taken(end: End) -> None:
    size = 4 * limits.MIB
    end.stream.write(bytes(size))
    at_once = end.taken
    assert 0 < at_once < size
    read = 0
    while read < size:
        read += len(end.other.recv(1 << 20))
        end.turn(0.001)
    assert end.taken == size


def test_its_end_is_told_once(end: End) -> None:
    end.stream.grant(10)
    end.other.close()
    end.turn()
    end.stream.write(b"x")
    assert (end.ends, end.stream.is_open) == (1, False)


def test_finish_sends_all_before_it_closes(end: End) -> None:
    size = 2 * limits.MIB
    end.stream.write(bytes(size))
    end.stream.finish()
    assert end.stream.is_open
    read = 0
    while read < size:
        read += len(end.other.recv(1 << 20))
        end.turn(0.001)
    assert end.other.recv(1) == b""
    assert (end.ends, end.stream.is_open) == (0, False)


def test_only_this_user_may_connect(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[socket.socket] = []
    refused: list[str] = []

    def note(sock: socket.socket) -> None:
        came.append(sock)
        loop.stop()

    def refuse(why: str) -> None:
        refused.append(why)
        loop.stop()

    server = LoopbackServer(loop, 0, note, refuse)
    with socket.create_connection(("127.0.0.1", server.port), 10):
        loop.run()
        assert owner_of_peer(came[0]) == os.geteuid()
        came.pop().close()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        loop._stopped = False
        loop.run()
        assert sock.recv(1) == b""
    assert (came, refused) == ([], [f"a connection of user {owner} was refused: only yours are accepted"])
    server.close()


def test_the_owner_of_a_connection_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytestream, "tcp_sockets", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        accepted, _ = server.accept()
        with accepted:
            assert owner_of_peer(accepted) == -1


def test_a_port_that_is_taken_is_refused_with_advice(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ClientError, match=rf"cannot listen on port {port} of 127.0.0.1: .* Choose another port"
        ):
            LoopbackServer(loop, port, lambda sock: None, lambda why: None)
