"""Packets between a rank and its agent: whole, in order, with their files; nobody waits for who does not read."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from ipmpi.transport import packets
from ipmpi.transport.loop import Loop
from ipmpi.transport.packetlink import PacketLink
from ipmpi.transport.packets import PACKET, RankSocket, contents, in_memory

PATIENCE = 10.0


class Pair:
    """An agent's end in a loop that runs in a thread, and a rank's end."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.loop = Loop()
        self.heard: list[tuple[bytes, list[int]]] = []
        self.closed: list[str] = []
        self.counts: list[int] = []
        self.link = PacketLink(
            self.loop, ours, lambda data, files: self.heard.append((data, files)), self.closed.append,
            self.counts.append,
        )  # fmt: skip
        self.rank = RankSocket(theirs)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def send(self, *packets: bytes, files: tuple[int, ...] = ()) -> None:
        def send() -> None:
            for packet in packets:
                self.link.send(packet, files)

        self.loop.call_threadsafe(send)

    def hears(self, count: int) -> list[tuple[bytes, list[int]]]:
        until = time.monotonic() + PATIENCE
        while len(self.heard) < count:
            assert time.monotonic() < until, f"{len(self.heard)} of {count}"
            time.sleep(0.001)
        return self.heard

    def turns(self) -> None:
        """Return when the loop has done what it was told before."""
        turned = threading.Event()
        self.loop.call_threadsafe(turned.set)
        assert turned.wait(PATIENCE)

    def close(self) -> None:
        self.loop.call_threadsafe(self.link.close)
        self.loop.stop()
        self._thread.join(PATIENCE)
        self.rank.close()
        self.loop.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


SIZES = [1, 5, PACKET - 1, PACKET, PACKET + 1, 3 * PACKET, 5_000_000]


def test_packets_of_all_sizes_stay_whole_and_in_order_both_ways(pair: Pair) -> None:
    chance = random.Random(1)
    sent = [chance.randbytes(size) for size in SIZES * 2]
    pair.send(*sent)
    received = [pair.rank.receive() for _ in sent]
    assert [packet[0] for packet in received if packet] == sent
    assert all(packet is not None and not packet[1] for packet in received)
    assert pair.rank.received == len(sent)
    pair.turns()
    assert pair.counts == list(range(1, len(sent) + 1))
    assert all(pair.rank.send(data) for data in sent)
    assert [data for data, _ in pair.hears(len(sent))] == sent


@pytest.mark.parametrize("size", [5, 2 * PACKET])
def test_files_come_with_their_packet(pair: Pair, size: int) -> None:
    ours = in_memory([b"hello"])
    pair.send(bytes(size), files=(ours,))
    packet = pair.rank.receive()
    assert packet is not None
    data, (theirs,) = packet
    assert (len(data), contents(theirs)) == (size, b"hello")
    assert not os.get_inheritable(theirs)
    pair.rank.send(bytes(size), (theirs,))
    os.close(theirs)
    ((data, (back,)),) = pair.hears(1)
    assert (len(data), contents(back)) == (size, b"hello")
    os.close(back)
    os.close(ours)


def test_a_rank_that_does_not_read_holds_up_nobody(pair: Pair) -> None:
    ours = in_memory([b"x"])
    pair.send(*(b"%06d" % number for number in range(20_000)))
    pair.send(b"with a file", files=(ours,))
    pair.turns()
    os.close(ours)  # the link has a copy
    pair.rank.send(b"still here")
    assert pair.hears(1)[0][0] == b"still here"
    assert pair.counts[-1] < 20_000, "only what the system has taken is counted"
    for number in range(20_000):
        packet = pair.rank.receive()
        assert packet is not None
        assert packet[0] == b"%06d" % number
    packet = pair.rank.receive()
    assert packet is not None
    assert contents(packet[1][0]) == b"x"
    os.close(packet[1][0])
    until = time.monotonic() + PATIENCE
    while pair.counts[-1] != 20_001:
        assert time.monotonic() < until


def test_no_file_is_left_open() -> None:
    def once() -> None:
        pair = Pair()
        ours = in_memory([b"x"])
        pair.send(*[bytes(2 * PACKET)] * 300, files=(ours,))  # most of them wait for a rank that does not read
        pair.turns()
        packet = pair.rank.receive()
        assert packet is not None
        for descriptor in (ours, *packet[1]):
            os.close(descriptor)
        pair.close()

    once()
    before = len(os.listdir("/proc/self/fd"))
    once()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_end_of_a_rank_is_heard_once_and_what_it_said_before(pair: Pair) -> None:
    pair.rank.send(b"last words")
    pair.rank.close()
    until = time.monotonic() + PATIENCE
    while not pair.closed:
        assert time.monotonic() < until
    assert [data for data, _ in pair.heard] == [b"last words"]
    pair.send(b"too late")
    assert pair.closed == ["its end of the socket is closed"]


def test_the_end_of_the_agent_is_heard_and_what_it_said_before(pair: Pair) -> None:
    pair.send(b"stop")
    pair.loop.call_threadsafe(pair.link.close)
    assert pair.rank.receive() == (b"stop", [])
    assert pair.rank.receive() is None
    assert not pair.rank.send(b"nobody hears")


def test_a_packet_that_cannot_be_handled_ends_that_rank_only(pair: Pair) -> None:
    def fail(_data: bytes, _files: list[int]) -> None:
        raise ZeroDivisionError("on purpose")

    pair.link._on_packet = fail
    pair.rank.send(b"x")
    until = time.monotonic() + PATIENCE
    while not pair.closed:
        assert time.monotonic() < until
    (reason,) = pair.closed
    assert reason == pair.link.failure
    assert "while this rank was dealt with" in reason
    assert "ZeroDivisionError: on purpose" in reason
    assert pair.rank.receive() is None


def test_signals_lose_no_packet(pair: Pair) -> None:
    """A handler may say something at any moment of a receive."""
    said = 0

    def tells(_number: int, _frame: object) -> None:
        nonlocal said
        said += 1
        pair.rank.send(b"signal")

    before = signal.signal(signal.SIGURG, tells)
    over = threading.Event()
    me = threading.get_ident()

    def disturb() -> None:
        while not over.is_set():
            signal.pthread_kill(me, signal.SIGURG)
            time.sleep(0.0005)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for number in range(2000):
            pair.send(b"%d" % number * (PACKET // 8 if number % 50 == 0 else 1))
            packet = pair.rank.receive()
            assert packet is not None
            assert packet[0].startswith(b"%d" % number)
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGURG, before)
    assert said
    assert [data for data, _ in pair.hears(said)] == [b"signal"] * said


def test_an_exception_of_a_handler_ends_a_wait(pair: Pair) -> None:
    def raises(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGURG, raises)
    me = threading.get_ident()
    timer = threading.Timer(0.05, lambda: signal.pthread_kill(me, signal.SIGURG))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            pair.rank.wait()
    finally:
        timer.join()
        signal.signal(signal.SIGURG, before)
    pair.send(b"after it")
    pair.rank.wait()
    assert pair.rank.receive() == (b"after it", [])


def test_a_forked_child_keeps_nothing_open(pair: Pair) -> None:
    go, told = os.pipe()
    child = os.fork()
    if not child:
        pair.rank.abandon()
        os.read(go, 1)
        os._exit(0)
    try:
        # The child has the agent's end too, as only a test's child does; it shuts nothing when it is closed.
        pair.rank.send(b"of the parent")
        assert pair.hears(1)[0][0] == b"of the parent"
        pair.rank._sock.close()
        until = time.monotonic() + PATIENCE
        while not pair.closed:
            assert time.monotonic() < until
    finally:
        os.write(told, b"!")
        os.waitpid(child, 0)
        os.close(go)
        os.close(told)


def test_no_room_for_a_file_in_memory_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: object, _at: int) -> int:
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(packets.os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        in_memory([b"x"])
    assert len(os.listdir("/proc/self/fd")) == before


def test_of_two_ranks_the_first_that_ended_is_the_first_to_be_told_of_however_much_it_had_said() -> None:
    loop = Loop()
    told: list[str] = []
    ranks = []

    def ended(name: str, _reason: str) -> None:
        told.append(name)
        if len(told) == 2:
            loop.stop()

    for name in ("first", "second"):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        PacketLink(loop, ours, lambda data, files: None, partial(ended, name))
        ranks.append(RankSocket(theirs))
    for _ in range(20):
        ranks[0].send(b"last words")
    for rank in ranks:
        rank.close()
    loop.call_later(PATIENCE, loop.stop)
    loop.run()
    assert told == ["first", "second"]
    loop.close()


def test_when_a_rank_dies_its_agent_is_told_before_its_launcher() -> None:
    """Which of several ranks was the first, when a launcher kills the others as soon as it knows of one?"""
    launchers, rank_has = socket.socketpair()
    agents, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        RankSocket(theirs).send(b"here")
        os.dup2(rank_has.fileno(), 900)  # newer than all files that it has opened itself
        rank_has.close()
        agents.close()
        launchers.close()
        signal.pause()
    theirs.close()
    rank_has.close()
    try:
        assert agents.recv(10) == b"here"
        with select.epoll() as poll:
            for end in (agents, launchers):
                poll.register(end, select.EPOLLIN)
            os.kill(pid, signal.SIGKILL)
            order: list[int] = []
            while len(order) < 2:
                for descriptor, _ in poll.poll(PATIENCE):
                    order.append(descriptor)
                    poll.unregister(descriptor)
            assert order == [agents.fileno(), launchers.fileno()]
    finally:
        os.waitpid(pid, 0)
        agents.close()
        launchers.close()
