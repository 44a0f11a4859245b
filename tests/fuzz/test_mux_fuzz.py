"""Invariant: any bytes give events or RemoteProtocolError, nothing else; and channels carry what was sent."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings, strategies as st

from ipmpi import limits
from ipmpi.errors import ConnectionError, RemoteProtocolError, VersionError
from ipmpi.protocol import mux
from ipmpi.protocol.frames import COUNT, PREFIX
from ipmpi.protocol.httpconnect import ConnectRequest
from ipmpi.protocol.mux import ConnectTo, GreetingReader, Mux

fast = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
HOST = ConnectTo("h", 1)


def swallow(data: bytes, step: int, near: bool) -> None:
    """Give bytes to an end with two channels, which answers all it hears of."""
    end = Mux(near=near)
    if near:
        end.open(HOST)
        end.open(HOST)
    else:
        other = Mux(near=True)
        other.open(HOST)
        other.open(HOST)
        list(end.receive_data(b"".join(other.data_to_send())))
    end.send(1, b"x" * 100)
    try:
        for at in range(0, len(data), step):
            for event in end.receive_data(data[at : at + step]):
                if isinstance(event, mux.Data):
                    end.consumed(event.channel, len(event.data))
                elif isinstance(event, mux.Requested):
                    end.accept(event.channel)
                elif isinstance(event, mux.Ended):
                    end.end(event.channel)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - nothing at all may be raised as well
    assert end.control_backlog <= 40 * (len(data) + 200)
    while end.wants_to_send:
        end.data_to_send()


def valid() -> bytes:
    end = Mux(near=True)
    a, b = end.open(HOST), end.open(mux.RunCommand(["list"]))
    end.send(a, bytes(300))
    end.send(b, b"text")
    end.ping()
    end.end(b, 1, "words")
    data = b"".join(buffer for _ in range(4) for buffer in end.data_to_send())
    end.open(mux.ReadFurl("mec"))
    end.reset(a, "no more")
    return data + b"".join(end.data_to_send())


VALID = valid()


@fast
@given(st.binary(max_size=300), st.integers(1, 50), st.booleans())
def test_any_bytes(data: bytes, step: int, near: bool) -> None:
    swallow(data, step, near)


@fast
@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 4), st.binary(max_size=40), st.integers(-1, 1)), max_size=12
    ),
    st.integers(1, 100),
    st.booleans(),
)
def test_any_frames(parts: list[tuple[int, int, bytes, int]], step: int, near: bool) -> None:
    frames = [PREFIX.pack(max(0, len(body) + more), kind, channel) + body for kind, channel, body, more in parts]
    swallow(b"".join(frames), step, near)


@fast
@given(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 2**64 - 1)), max_size=8))
def test_any_credit(grants: list[tuple[int, int]]) -> None:
    swallow(b"".join(PREFIX.pack(8, mux.MuxKind.CREDIT, c) + COUNT.pack(n) for c, n in grants), 1000, True)


def test_every_single_bit_of_a_valid_stream() -> None:
    for at in range(len(VALID)):
        for bit in range(8):
            data = bytearray(VALID)
            data[at] ^= 1 << bit
            swallow(bytes(data), limits.MUX_CHUNK, False)


@fast
@given(st.integers(0, len(VALID)), st.integers(0, len(VALID)), st.binary(max_size=20))
def test_valid_stream_cut_repeated_and_filled(start: int, end: int, junk: bytes) -> None:
    swallow(VALID[:start] + junk + VALID[end:] + VALID, 37, False)


@fast
@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(min_size=1, max_size=5000)), max_size=60), st.integers(1, 9999)
)
def test_each_channel_carries_what_was_sent_on_it(pieces: list[tuple[int, bytes]], step: int) -> None:
    near, far = Mux(near=True), Mux(near=False)
    channels = [near.open(HOST) for _ in range(3)]
    sent: dict[int, bytes] = dict.fromkeys(channels, b"")
    received: dict[int, bytes] = dict.fromkeys(channels, b"")
    wire = b""
    for number, data in pieces:
        channel = channels[number]
        data = data[: near.room(channel)]
        near.send(channel, data)
        sent[channel] += data
        wire += b"".join(near.data_to_send())
    while near.wants_to_send:
        wire += b"".join(near.data_to_send())
    for at in range(0, len(wire), step):
        for event in far.receive_data(wire[at : at + step]):
            if isinstance(event, mux.Data):
                received[event.channel] += event.data
    assert received == sent


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
