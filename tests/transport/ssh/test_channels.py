"""Channels through an ssh session: requests, bytes and ends both ways, credit, and what no end of ours says."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

import pytest

from ipmpi import limits
from ipmpi.errors import LocalProtocolError
from ipmpi.protocol import messages, sshmessages as m
from ipmpi.protocol.connection import Connection
from ipmpi.protocol.frames import Buffer, FrameKind, prefix
from ipmpi.transport.loop import Loop
from ipmpi.transport.ssh.channels import SocketForwarder
from tests.transport.ssh.ends import End, Heard, laptop, login_node, run

ALL: frozenset[type[messages.Message]] = frozenset(get_args(messages.AnyMessage))
WINDOW, CHUNK = limits.SSH_WINDOW, limits.SSH_CHUNK


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def ends(loop: Loop) -> Iterator[tuple[End, End]]:
    a, b = socket.socketpair()
    near, far = laptop(loop, a), login_node(loop, b)
    yield near, far
    near.link.close("over")
    far.link.close("over")


def connected(loop: Loop, near: End, far: End) -> tuple[Heard, Heard]:
    """Both users of a new connection."""
    before = len(far.users)
    here = near.connect()
    run(loop, lambda: here.said, "a connection")
    assert here.said.pop() == ("opened",)
    return here, far.users[before]


def fill(loop: Loop, user: Heard) -> int:
    """Send until no more goes; how much that was."""
    assert user.channel is not None
    sent = 0
    while sent < 3 * WINDOW:
        while size := user.channel.room():
            user.channel.send(bytes(size))
            sent += size
        user.said.clear()
        if sent == WINDOW:
            break
        run(loop, lambda: ("room",) in user.said, "room")
    return sent


@pytest.mark.parametrize(
    "request_",
    [m.ConnectTo(1, "node1", 4000), m.RunCommand(1, ["slurm", "-n", "4"]), m.ReadFurl(1, "mec", "big")],
)
def test_requests_arrive_as_they_are(loop: Loop, ends: tuple[End, End], request_: m.Request) -> None:
    near, far = ends
    user = Heard()
    near.link.open(lambda number: request_, user)
    run(loop, lambda: user.said, "an answer")
    assert far.requests == [request_]
    assert user.said == [("opened",)]


def test_data_goes_both_ways_and_ends_after_it(loop: Loop, ends: tuple[End, End]) -> None:
    here, there = connected(loop, *ends)
    assert here.channel is not None
    assert there.channel is not None
    here.channel.send(b"question")
    here.channel.end()
    run(loop, lambda: there.said, "the end")
    assert there.said == [("ended", len(b"question"))]
    there.channel.send(b"answer")
    there.channel.end()
    run(loop, lambda: here.said, "the end")
    assert here.said == [("ended", len(b"answer"))]
    assert here.channel.room() == there.channel.room() == 0


def test_an_answer_comes_after_what_was_printed(loop: Loop, ends: tuple[End, End]) -> None:
    near, far = ends
    user = Heard()
    user.channel = near.link.open(lambda number: m.RunCommand(number, []), user)
    run(loop, lambda: user.said, "the command")
    (there,) = far.users
    assert there.channel is not None
    while size := there.channel.room():
        there.channel.send(bytes(size))
    there.channel.end(m.Ended(1, 3, "why\033"))
    there.channel.detach()
    run(loop, lambda: ("answered", 3, "why?") in user.said, "its exit code")
    assert len(user.bytes) == CHUNK
    user.channel.detach()
    assert near.link.is_idle
    assert far.link.is_idle


def test_one_channel_may_have_a_window_under_way_and_no_more(loop: Loop, ends: tuple[End, End]) -> None:
    here, there = connected(loop, *ends)
    there.reads = False
    assert fill(loop, here) == WINDOW
    run(loop, lambda: len(there.bytes) == WINDOW, "a window of data")
    assert here.channel is not None
    assert there.channel is not None
    assert here.channel.room() == 0
    there.channel.consumed(WINDOW // 4 - 1)
    assert not there.channel.link.connection.wants_to_send, "credit is given in large steps"
    there.channel.consumed(1)
    run(loop, lambda: here.said, "credit")
    assert here.channel.room() == CHUNK


def test_a_channel_that_nobody_reads_does_not_hold_up_the_others(loop: Loop, ends: tuple[End, End]) -> None:
    stuck, unread = connected(loop, *ends)
    quick, read = connected(loop, *ends)
    unread.reads = False
    fill(loop, stuck)
    assert quick.channel is not None
    while len(read.bytes) < 3 * WINDOW:
        goal = len(read.bytes) + CHUNK
        quick.channel.send(bytes(quick.channel.room()))
        run(loop, lambda goal=goal: len(read.bytes) >= goal, "the other channel's data")  # type: ignore[misc]
    assert len(unread.bytes) == WINDOW


def test_channels_take_turns_and_messages_overtake_data(loop: Loop, ends: tuple[End, End]) -> None:
    near, far = ends
    first, there = connected(loop, near, far)
    second, also = connected(loop, near, far)
    for user in (first, second):
        assert user.channel is not None
        user.channel.send(bytes(CHUNK))
    third = near.connect()
    data = near.link.connection.data_to_send(2 * CHUNK)
    kinds = [bytes(part)[4] for part in data if len(part) < 200]
    assert kinds == [FrameKind.MESSAGE, FrameKind.CHUNK, FrameKind.CHUNK]
    assert [len(part) for part in data if len(part) > 200] == [CHUNK, CHUNK]
    far.link.feed(b"".join(data))
    assert (len(there.bytes), len(also.bytes)) == (CHUNK, CHUNK)
    run(loop, lambda: third.said, "the third")


def test_what_is_under_way_on_a_reset_channel_is_dropped(loop: Loop, ends: tuple[End, End]) -> None:
    here, there = connected(loop, *ends)
    assert here.channel is not None
    assert there.channel is not None
    there.channel.send(b"late")
    here.channel.reset("nobody wants it")
    run(loop, lambda: there.said, "the reset")
    assert there.said == [("lost", "nobody wants it")]
    assert (here.said, here.bytes) == ([], b"")
    assert ends[0].link.is_idle
    assert ends[1].link.is_idle
    for end in ends:
        run(loop, lambda end=end: not end.link.connection._incoming, "no stream that is left")  # type: ignore[misc]
        assert not end.link.connection._streams


def test_a_request_that_nobody_wants_any_more_when_it_is_served(loop: Loop, ends: tuple[End, End]) -> None:
    near, far = ends
    here = near.connect()
    run(loop, lambda: far.users, "the request")
    assert here.channel is not None
    if not here.said:
        here.channel.reset("too late")
    other, _ = connected(loop, near, far)
    assert other.channel is not None
    run(loop, lambda: far.users[0].said or here.said, "the reset")
    assert near.link.is_open


def test_names_of_files_may_have_bytes_that_are_no_text(loop: Loop, ends: tuple[End, End]) -> None:
    near, far = ends
    with pytest.raises(LocalProtocolError, match="no text"):
        near.link.open(lambda number: m.RunCommand(number, ["\udcff"]), Heard())
    far.accepts = False
    one, two = near.connect(), near.connect()
    run(loop, lambda: len(far.users) == 2, "the requests")
    for user in far.users:
        assert user.channel is not None
    far.users[0].channel.end(m.Ended(1, 1, m.sendable("no file \udcff")))  # type: ignore[union-attr]
    far.users[1].channel.reset("no file \udcff" * 10_000)  # type: ignore[union-attr]
    run(loop, lambda: one.said and two.said, "the answers")
    assert one.said == [("answered", 1, "no file ?")]
    ((what, reason),) = two.said
    assert (what, len(reason)) == ("lost", limits.SSH_TEXT)


@pytest.mark.parametrize("who", [0, 1])
def test_goodbye_ends_all(loop: Loop, ends: tuple[End, End], who: int) -> None:
    users = connected(loop, *ends)
    ends[who].link.close("closed \033[2J")
    run(loop, lambda: ends[1 - who].closed, "the goodbye")
    assert users[1 - who].said == [("lost", "closed ?[2J")]
    assert not ends[1 - who].link.is_broken, "it was said"


def test_an_end_that_is_gone_without_a_word(loop: Loop) -> None:
    a, b = socket.socketpair()
    near = laptop(loop, a)
    user = near.connect()
    b.close()
    run(loop, lambda: near.closed, "the end")
    assert user.said == [("lost", "the process at the other end is gone")]


def test_there_is_an_end_of_channels(ends: tuple[End, End]) -> None:
    near, _ = ends
    for _ in range(limits.SSH_CHANNELS):
        near.connect()
    with pytest.raises(LocalProtocolError, match="connections through this ssh session already"):
        near.connect()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda n: m.ConnectTo(n, "x" * 254, 1), "a ConnectTo with a value that is not possible"),
        (lambda n: m.ConnectTo(n, "x", 0), "a ConnectTo with a value that is not possible"),
        (lambda n: m.RunCommand(n, ["x" * limits.SSH_REQUEST]), "65536 is the limit"),
        (lambda n: m.RunCommand(n, ["x" * limits.MESSAGE]), "65536 is the limit"),
    ],
)
def test_requests_that_cannot_be_sent(ends: tuple[End, End], make: Callable[[int], m.Request], words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        ends[0].link.open(make, Heard())
    assert ends[0].link.is_idle


def test_a_slow_socket_does_not_keep_all_that_was_read_with_its_bytes(loop: Loop, ends: tuple[End, End]) -> None:
    _, there = connected(loop, *ends)
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    assert there.channel is not None
    forwarder = SocketForwarder(there.channel, ours)
    read = bytearray(200_000)
    forwarder.data(memoryview(read)[:100_000])
    forwarder.data(memoryview(read)[100_000:100_001])
    read.clear()  # BufferError while a view of it is left
    theirs.close()


# --- what no end of ours says ------------------------------------------------------------------------------


def said(*parts: messages.AnyMessage | tuple[messages.AnyMessage, int]) -> bytes:
    """The bytes of messages, or of messages that announce a stream of some bytes."""
    peer = Connection(ALL, resumable=False)
    for part in parts:
        if isinstance(part, tuple):
            peer.send_streamed(*part)
        else:
            peer.send(part)
    return b"".join(_all(peer))


def _all(peer: Connection) -> Iterator[Buffer]:
    while peer.wants_to_send:
        yield from peer.data_to_send()


def endless(*asked: m.Request | m.Opened) -> bytes:
    return said(*((each, m.ENDLESS) for each in asked))


HOST = m.ConnectTo(1, "h", 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (prefix(99, 1, 1), "unknown kind 99"),  # type: ignore[arg-type]
        (b"Last login: yesterday\n", "something else writes into this stream"),
        (said(m.ChannelReset(7, "x")), "channel 7, which was never opened"),
        (endless(HOST, HOST), "channel 1 is opened where 2 is next"),
        (said(HOST), "announced with"),
        (said(m.ConnectTo(1, "h", 1, [])), "without a stream"),
        (said((m.RunCommand(1, []), 5)), "announced twice, or not at all"),
        (said(m.Opened(1, [])), "may not send Opened"),
        (said(messages.GetIds(1)), "may not send GetIds"),
        (said(*(m.ReadFurl(n, "mec") for n in range(1, 258))), "more than 256 channels"),
        (endless(HOST) + prefix(FrameKind.CHUNK, 1, 1) + b"x", "1 bytes on a channel that is not open"),
        (endless(HOST) + (prefix(FrameKind.CHUNK, CHUNK, 1) + bytes(CHUNK)) * 33, "exceeds the credit"),
        (prefix(FrameKind.CHUNK, 1, 5) + b"x", "not open"),
    ],
)
def test_what_no_laptop_says(loop: Loop, data: bytes, words: str) -> None:
    ours, theirs = socket.socketpair()
    far = login_node(loop, ours)
    far.accepts, far.reads = "credit" in words, False
    ended_with(far, theirs, data, words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (endless(m.Opened(1), m.Opened(1)), "opened twice"),
        (said(m.Opened(1, [])), "without a stream"),
        (endless(m.Opened(2)), "channel 2, which was never opened"),
        (said(m.Ended(0, 0)), "channel 0, which was never opened"),
        (endless(HOST), "may not send ConnectTo"),
    ],
)
def test_what_no_login_node_says(loop: Loop, data: bytes, words: str) -> None:
    ours, theirs = socket.socketpair()
    near = laptop(loop, ours)
    user = near.connect()
    ended_with(near, theirs, data, words)
    ((_, reason),) = [each for each in user.said if each[0] == "lost"]
    assert words in reason


def test_a_login_node_that_opens_what_was_reset_again_and_again(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    near = laptop(loop, ours)
    user = near.connect()
    assert user.channel is not None
    user.channel.reset("enough")
    ended_with(near, theirs, endless(*[m.Opened(1)] * 3), "opened twice")
    assert len(near.link.connection._incoming) <= 2


def ended_with(end: End, theirs: socket.socket, data: bytes, words: str) -> None:
    """An end closes for what it is sent, and says why."""
    theirs.settimeout(20)
    end.link.feed(data)
    assert end.closed
    assert not end.link.is_broken
    peer = Connection(ALL, resumable=False, credit=m.ENDLESS)
    received = b""
    while piece := theirs.recv(1 << 16):
        received += piece
    reasons = [_reason(event) for event in peer.receive_data(received)]
    assert words in reasons[-1]
    theirs.close()


def _reason(event: Sequence[object]) -> str:
    return str(getattr(event[0], "reason", ""))
