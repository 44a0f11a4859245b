"""Invariant: any bytes give events or RemoteProtocolError, nothing else, and are answered within bounds."""

from __future__ import annotations

from typing import get_args

from hypothesis import HealthCheck, example, given, settings, strategies as st

from ipmpi import limits
from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, MessageReceived
from ipmpi.protocol.frames import COUNT, HEADER_LENGTH, PREFIX, FrameKind, prefix
from ipmpi.protocol.packed import pack

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))

fast = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def swallow(data: bytes, step: int) -> None:
    """Give bytes to an end that has a stream under way and grants all it hears of."""
    end = Connection(ALL)
    end.send(m.Result(1, [0], True, b"", [200_000]), [bytes(200_000)])
    end.data_to_send()
    events = 0
    try:
        for at in range(0, len(data), step):
            for event in end.receive_data(data[at : at + step]):
                events += 1
                if isinstance(event, MessageReceived) and event.stream:
                    end.grant(event.stream, 100_000)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - nothing at all may be raised as well
    assert events <= len(data)
    while end.wants_to_send:
        end.data_to_send()


def valid_stream() -> bytes:
    a, b = Connection(ALL, resumable=False), Connection(ALL, resumable=False)
    a.send(m.Command(1, [0, 1], "execute", "a=1", b"\x92\xa7execute\xa3a=1"))
    a.send(m.Reply(2, {"key": [1, "text", None]}))
    options = m.TaskOptions(b"op", "pow", [bytes(16)], 1, -2, timeout=0.5, after=[(1, 0)], follow=(1, 0))
    a.send(m.SubmitTasks(2, options, pack([2, 0]), [2]), [b"ab"])
    a.send(m.TaskResults(5, 0, pack([0, 1]), pack([1]), pack([1, 2]), 0.25, [3]), [b"abc"])
    stream = a.send_streamed(m.Result(3, [0], True, b"x", [300, 212]), 512)
    a.send(m.Result(4, [0, 1, 2], False, b"y", [4, 0, 2]), [b"abcd", b"", b"ef"])
    a.ping()
    data = b"".join(a.data_to_send())
    list(b.receive_data(data))
    b.grant(stream.id, 512)
    list(a.receive_data(b"".join(b.data_to_send())))
    a.feed(stream, bytes(256))
    data += b"".join(a.data_to_send())
    a.feed(stream, bytes(256))
    data += b"".join(a.data_to_send())
    return data + prefix(FrameKind.CREDIT, 8, 1) + COUNT.pack(1000) + prefix(FrameKind.REFUSE, 0, 1)


VALID = valid_stream()


@fast
@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes(data: bytes, step: int) -> None:
    swallow(data, step)


@fast
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 3), st.binary(max_size=60), st.integers(-1, 1)), max_size=12
    ),
    st.integers(1, 100),
)
def test_any_frames(parts: list[tuple[int, int, bytes, int]], step: int) -> None:
    data = b"".join(
        PREFIX.pack(max(0, len(body) + more), kind, stream) + body for kind, stream, body, more in parts
    )
    swallow(data, step)


@fast
@given(st.binary(max_size=120), st.integers(0, 2))
@example(b"\x93\x14\x01\xa2\xff\xfe", 0)
@example(b"\x93\x14\x01" + b"\x91" * 10_000, 0)
@example(b"\x93\x14\x01\x81\x80\x01", 0)
@example(b"\x93\x14\x01\xd7\xff" + b"\xff" * 8, 0)
def test_any_header(header: bytes, stream: int) -> None:
    swallow(
        prefix(FrameKind.MESSAGE, 4 + len(header), stream) + HEADER_LENGTH.pack(len(header)) + header, limits.CHUNK
    )


@fast
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(1, len(VALID)),
)
def test_valid_stream_with_bytes_changed(changes: list[tuple[int, int]], step: int) -> None:
    data = bytearray(VALID)
    for at, value in changes:
        data[at] = value
    swallow(bytes(data), step)


def test_every_single_bit_of_a_valid_stream() -> None:
    # Most of the stream is bulk, in which a change is only different data.
    for at in range(min(len(VALID), 600)):
        for bit in range(8):
            data = bytearray(VALID)
            data[at] ^= 1 << bit
            swallow(bytes(data), limits.CHUNK)


@fast
@given(st.integers(0, len(VALID)), st.integers(0, len(VALID)), st.binary(max_size=20))
def test_valid_stream_cut_repeated_and_filled(start: int, end: int, junk: bytes) -> None:
    swallow(VALID[:start] + junk + VALID[end:] + VALID, 37)


@fast
@given(st.lists(st.integers(0, len(VALID)), max_size=5), st.integers(0, 3))
def test_resumed_sessions_survive_peers_that_resend_something_else(cuts: list[int], extra: int) -> None:
    end = Connection(ALL)
    try:
        for cut in [*cuts, len(VALID)]:
            for event in end.receive_data(VALID[extra * 13 : cut] if extra else VALID[:cut]):
                if isinstance(event, MessageReceived) and event.stream:
                    end.grant(event.stream, 600)
            end.resume(0)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - nothing at all may be raised as well
