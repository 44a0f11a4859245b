"""Leaders of nodes find each other. Ranks and agents are threads here, allgather is a barrier."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from ipmpi import limits
from ipmpi.engine.agent import nodelinks
from ipmpi.engine.agent.meeting import Conversation, leaders_of
from ipmpi.engine.agent.nodelinks import NodeLinks
from ipmpi.engine.agent.tree import TreePosition, place
from ipmpi.errors import LauncherError
from ipmpi.furl import Furl
from ipmpi.protocol import rankmessages as rm
from ipmpi.tls import LONG_LIVED_SUITES
from ipmpi.transport.dial.negotiate import Authenticated
from ipmpi.transport.packets import PACKET, RankSocket


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


class Met(NamedTuple):
    """What became of a rank's node: its place, its agent's links, and why there are none."""

    place: TreePosition
    links: NodeLinks | None
    trouble: str
    formed: rm.Formed | None


def agent(sock: socket.socket, below: int) -> tuple[NodeLinks, rm.Formed]:
    """What a node's agent says to its lowest rank."""
    links = nodelinks.NodeLinks(below)
    sock.send(rm.encode(rm.Address(links.address)))
    above, _ = rm.for_agent(sock.recv(PACKET))
    assert isinstance(above, rm.Above)
    sock.send(rm.encode(rm.Met(links.connect(above.address))))
    formed, _ = rm.for_agent(sock.recv(PACKET))
    assert isinstance(formed, rm.Formed)
    return links, formed


def met(leaders: list[int]) -> list[Met]:
    """Where every rank of a set finds itself."""
    exchange = Exchange(len(leaders))

    def start(rank: int) -> Met:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with closing(RankSocket(ours)) as sock, theirs, ThreadPoolExecutor(1) as thread:
            is_leader = rank == leaders[rank]
            other = thread.submit(agent, theirs, len(place(rank, leaders).below)) if is_leader else None
            trouble = Conversation(sock).meet(rank, leaders, f"n{leaders[rank]}", exchange.of(rank))
            links, formed = other.result(30) if other is not None else (None, None)
            one_tree = formed.one_tree if formed is not None else not trouble
            return Met(place(rank, leaders, one_tree=one_tree), links, trouble, formed)

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


def close(found: list[Met]) -> None:
    for one in found:
        if one.links is not None:
            one.links.close()


@pytest.mark.parametrize("leaders", [[0, 1], [0, 1, 0, 1], list(range(12))], ids=str)
def test_each_leader_has_a_link_with_its_neighbours(leaders: list[int]) -> None:
    found = met(leaders)
    for rank, one in enumerate(found):
        assert one.trouble == ""
        assert one.place.above is not None or leaders[rank] == 0
        if leaders[rank] != rank:
            assert one.links is None
            continue
        assert one.links is not None
        assert len(one.links.below) == len(one.place.below)
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

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(RankSocket(ours)) as sock, theirs:
        assert Conversation(sock).meet(1, [0, 0, 0], "n0", exchange) == ""


def test_ranks_with_one_agent_are_on_one_node() -> None:
    assert leaders_of([b"a", b"b", b"a", b"c", b"b"]) == [0, 1, 0, 3, 1]


def test_an_agent_that_ends_while_the_set_forms_says_why_or_where_to_look() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(RankSocket(ours)) as sock:
        theirs.send(rm.encode(rm.Stop("in short", 1, "in words")))
        theirs.close()
        talk = Conversation(sock)
        with pytest.raises(LauncherError, match=r"^in words$"):
            talk.hear()
        with pytest.raises(
            LauncherError, match="the agent process of this node ended while the set formed: its log"
        ):
            talk.hear()


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
    assert [one.formed.one_tree for one in found if one.formed is not None] == [False, False]
    assert all(one.place.above is None for one in found)
    assert len({one.trouble for one in found}) == 1
    assert "rank" in found[0].trouble
    close(found)
