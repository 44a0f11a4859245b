"""Invariant: any bytes in an ssh session are answered or end it; and channels carry what was sent."""

from __future__ import annotations

import socket
from typing import get_args

from hypothesis import HealthCheck, given, settings, strategies as st

from ipmpi import limits
from ipmpi.errors import ConnectionError, RemoteProtocolError, VersionError
from ipmpi.protocol import messages, sshmessages as m
from ipmpi.protocol.connection import Connection
from ipmpi.protocol.frames import COUNT, PREFIX, FrameKind
from ipmpi.protocol.greeting import GreetingReader
from ipmpi.protocol.httpconnect import ConnectRequest
from ipmpi.transport.loop import Loop
from tests.transport.ssh.ends import laptop, login_node

fast = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
LOOP = Loop()
ALL: frozenset[type[messages.Message]] = frozenset(get_args(messages.AnyMessage))


def swallow(data: bytes, step: int, near: bool) -> None:
    """Give bytes to an end with two channels, which answers all it hears of."""
    unforeseen: list[BaseException] = []
    LOOP.report = unforeseen.append  # type: ignore[method-assign]
    ours, theirs = socket.socketpair()
    try:
        end = (laptop if near else login_node)(LOOP, ours)
        if near:
            for _ in range(2):
                end.connect()
        else:
            end.link.feed(opening())
        for at in range(0, len(data), step):
            end.link.feed(data[at : at + step])
            for user in end.users:
                if user.channel is not None and (room := user.channel.room()):
                    user.channel.send(bytes(min(room, 100)))
        assert end.link.connection.control_backlog <= 60 * (len(data) + 400)
        assert sum(len(user.bytes) for user in end.users) <= len(data)
        end.link.close("over")
    finally:
        ours.close()
        theirs.close()
    assert not unforeseen


def opening() -> bytes:
    peer = Connection(ALL, resumable=False)
    for number in (1, 2):
        peer.send_streamed(m.ConnectTo(number, "h", 1), m.ENDLESS)
    return b"".join(peer.data_to_send())


def valid() -> bytes:
    """What a laptop might say after two connections."""
    peer = Connection(ALL, resumable=False, credit=limits.SSH_WINDOW)
    streams = [peer.send_streamed(m.ConnectTo(number, "h", 1), m.ENDLESS) for number in (1, 2)]
    opened = len(b"".join(peer.data_to_send()))
    assert opened == len(opening())
    peer.feed(streams[0], bytes(30))
    peer.feed(streams[1], b"text")
    peer.send(m.RunCommand(3, ["list"]))
    peer.ping()
    data = b"".join(peer.data_to_send())
    peer.abort(streams[1])
    peer.send(m.ReadFurl(4, "mec"))
    peer.send(m.ChannelReset(1, "no more"))
    peer.abort(streams[0])
    return data + b"".join(peer.data_to_send())


VALID = valid()


@fast
@given(st.binary(max_size=300), st.integers(1, 50), st.booleans())
def test_any_bytes(data: bytes, step: int, near: bool) -> None:
    swallow(data, step, near)


@fast
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 4), st.binary(max_size=40), st.integers(-1, 1)), max_size=12
    ),
    st.integers(1, 100),
    st.booleans(),
)
def test_any_frames(parts: list[tuple[int, int, bytes, int]], step: int, near: bool) -> None:
    frames = [PREFIX.pack(max(0, len(body) + more), kind, stream) + body for kind, stream, body, more in parts]
    swallow(b"".join(frames), step, near)


ANSWERS = st.one_of(
    st.builds(m.Opened, st.integers(-1, 3)),
    st.builds(m.Ended, st.integers(-1, 3), st.integers(0, 3), st.text(max_size=5)),
    st.builds(m.ChannelReset, st.integers(-1, 3), st.text(max_size=5)),
)


@fast
@given(st.lists(ANSWERS, max_size=8), st.integers(1, 100))
def test_any_answers(answers: list[m.Answer], step: int) -> None:
    peer = Connection(ALL, resumable=False, credit=100)
    for answer in answers:
        if isinstance(answer, m.Opened):
            peer.feed(peer.send_streamed(answer, m.ENDLESS), b"hello")
        else:
            peer.send(answer)
    data = b""
    while peer.wants_to_send:
        data += b"".join(peer.data_to_send())
    swallow(data, step, True)


@fast
@given(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 2**64 - 1)), max_size=8))
def test_any_credit(grants: list[tuple[int, int]]) -> None:
    swallow(b"".join(PREFIX.pack(8, FrameKind.CREDIT, s) + COUNT.pack(n) for s, n in grants), 1000, True)


def test_every_single_bit_of_a_valid_stream() -> None:
    for at in range(len(VALID)):
        for bit in range(8):
            data = bytearray(VALID)
            data[at] ^= 1 << bit
            swallow(bytes(data), limits.SSH_CHUNK, False)


@fast
@given(st.integers(0, len(VALID)), st.integers(0, len(VALID)), st.binary(max_size=20))
def test_valid_stream_cut_repeated_and_filled(start: int, end: int, junk: bytes) -> None:
    swallow(VALID[:start] + junk + VALID[end:] + VALID, 37, False)


@fast
@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(min_size=1, max_size=5000)), max_size=60), st.integers(1, 9999)
)
def test_each_channel_carries_what_was_sent_on_it(pieces: list[tuple[int, bytes]], step: int) -> None:
    (a, b), (c, d) = socket.socketpair(), socket.socketpair()
    near, far = laptop(LOOP, a), login_node(LOOP, c)
    channels = [near.connect().channel for _ in range(3)]
    sent = [b""] * 3
    wire = b""
    for number, data in pieces:
        channel = channels[number]
        assert channel is not None
        data = data[: channel.room()]
        channel.send(data)
        sent[number] += data
        wire += b"".join(near.link.connection.data_to_send())
    while near.link.connection.wants_to_send:
        wire += b"".join(near.link.connection.data_to_send())
    for at in range(0, len(wire), step):
        far.link.feed(wire[at : at + step])
    assert [bytes(user.bytes) for user in far.users] == sent or not pieces
    for end in (near, far):
        end.link.close("over")
    b.close()
    d.close()


@fast
@given(st.binary(max_size=200), st.integers(1, 30))
def test_any_greeting(data: bytes, step: int) -> None:
    reader = GreetingReader()
    try:
        for at in range(0, len(data), step):
            reader.receive(data[at : at + step])
    except (RemoteProtocolError, VersionError) as error:
        assert str(error)  # noqa: PT017 - nothing at all may be raised as well


@fast
@given(st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n"]), st.binary(max_size=200), st.integers(1, 30))
def test_any_answer_of_a_proxy(start: bytes, data: bytes, step: int) -> None:
    request = ConnectRequest("h", 1, "the proxy")
    data = start + data
    try:
        for at in range(0, len(data), step):
            if request.receive(data[at : at + step]):
                break
    except ConnectionError as error:
        assert str(error)  # noqa: PT017 - nothing at all may be raised as well
