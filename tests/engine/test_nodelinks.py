"""Leaders of nodes find each other. Each rank is a thread here, and allgather a barrier; TCP and TLS are real."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.engine import nodelinks
from ipmpi.engine.neighbours import Neighbourhood, meet
from ipmpi.engine.nodelinks import NodeLinks
from ipmpi.furl import Furl
from ipmpi.tls import LONG_LIVED_SUITES
from ipmpi.transport.negotiate import Authenticated


class Exchange:
    """Every rank's value to every rank, as often as they like."""

    def __init__(self, size: int) -> None:
        self._values: list[Any] = [None] * size
        self._barrier = threading.Barrier(size)

    def of(self, rank: int) -> Callable[[object], list[Any]]:
        def exchange(value: object) -> list[Any]:
            self._values[rank] = value
            self._barrier.wait(30)
            found = list(self._values)
            self._barrier.wait(30)
            return found

        return exchange


def met(leaders: list[int]) -> list[Neighbourhood]:
    """Where every rank of a set finds itself."""
    exchange = Exchange(len(leaders))

    def start(rank: int) -> Neighbourhood:
        return meet(rank, leaders, f"n{leaders[rank]}", exchange.of(rank))

    with ThreadPoolExecutor(len(leaders)) as ranks:
        return list(ranks.map(start, range(len(leaders))))


def say(peer: Authenticated, text: bytes) -> None:
    peer.pipe.send([text])
    assert peer.pipe.flush()


def hear(peer: Authenticated, size: int) -> bytes:
    """So many bytes of a link, those that came with its handshake first."""
    heard = bytearray(peer.leftover)
    descriptor = peer.pipe.fileno()
    assert descriptor is not None
    with socket.socket(fileno=socket.dup(descriptor)) as waits:
        waits.settimeout(10)
        while len(heard) < size:
            waits.recv(1, socket.MSG_PEEK)
            heard += peer.pipe.receive()
    return bytes(heard)


def close(found: list[Neighbourhood]) -> None:
    for one in found:
        if one.links is not None:
            one.links.close()


@pytest.mark.parametrize("leaders", [[0, 1], [0, 1, 0, 1], list(range(12))], ids=str)
def test_each_leader_has_a_link_with_its_neighbours(leaders: list[int]) -> None:
    found = met(leaders)
    for rank, one in enumerate(found):
        assert one.trouble == ""
        assert one.place.above is not None or rank == 0
        if leaders[rank] != rank:
            assert one.links is None
            continue
        assert one.links is not None
        assert len(one.links.below) == len(one.place.remote)
        for peer in one.links.below:
            say(peer, b"from %4d" % rank)
    for one in found:
        if one.links is not None and one.place.above is not None:
            assert one.links.above is not None
            assert hear(one.links.above, 9) == b"from %4d" % one.place.above
    close(found)


def test_one_node_needs_no_links_and_exchanges_nothing() -> None:
    def exchange(value: object) -> list[Any]:
        raise AssertionError("it is collective, and costs time")

    one = meet(1, [0, 0, 0], "n0", exchange)
    assert (one.links, one.trouble, one.place.above) == (None, "", 0)


def test_nobody_listens_once_all_have_come() -> None:
    links = NodeLinks(1)
    port = Furl.parse(links.address).hints[0][1]
    socket.create_connection(("127.0.0.1", port), 5).close()
    with ThreadPoolExecutor(1) as other:
        below = NodeLinks(0)
        came = other.submit(below.connect, links.address)
        assert links.connect("") == ""
        assert came.result(10) == ""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    links.close()
    below.close()


def test_who_does_not_know_the_secret_gets_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NODES_MEET", 1.0)
    links = NodeLinks(1)
    right = Furl.parse(links.address)
    wrong = Furl(right.fingerprint, right.hints, right.role, bytes(32))
    with ThreadPoolExecutor(1) as other:
        stranger = other.submit(NodeLinks(0).connect, str(wrong))
        assert links.connect("") == "1 of 1 nodes below did not come within 1 s"
        assert stranger.result(10).startswith("no answer at ")
    assert links.below == []


def test_another_certificate_is_not_the_leader() -> None:
    links, other = NodeLinks(1), NodeLinks(1)
    right, wrong = Furl.parse(links.address), Furl.parse(other.address)
    moved = Furl(wrong.fingerprint, right.hints, right.role, right.secret)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(links.connect, "")
        reason = NodeLinks(0).connect(str(moved))
        honest = NodeLinks(0)
        assert honest.connect(links.address) == ""
    assert "certificate" in reason
    for each in (links, other, honest):
        each.close()


def test_a_link_may_carry_any_number_of_bytes() -> None:
    links, below = NodeLinks(1), NodeLinks(0)
    port = Furl.parse(links.address).hints[0][1]
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with ThreadPoolExecutor(1) as thread:
        leader = thread.submit(links.connect, "")
        with socket.create_connection(("127.0.0.1", port), 5) as sock, anybody.wrap_socket(sock) as tls:
            found = tls.cipher()
            assert found is not None
            assert found[0].encode() == LONG_LIVED_SUITES
        assert below.connect(links.address) == leader.result(10) == ""
    links.close()
    below.close()


def test_if_one_node_is_not_reached_each_connects_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(NodeLinks):
        def _listen(self) -> None:
            super()._listen()
            self._stop_listening()

    monkeypatch.setattr(nodelinks, "NodeLinks", Unreachable)
    monkeypatch.setattr(limits, "NODES_MEET", 2.0)
    found = met([0, 1, 0, 1])
    assert [one.place.above for one in found] == [None, None, 0, 1]
    assert all(one.links is None for one in found)
    assert len({one.trouble for one in found}) == 1
    assert "rank" in found[0].trouble
