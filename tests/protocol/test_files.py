"""Parts of streams that go as files: who allows it, what is checked, and what a broken link does (no I/O)."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, get_args

import pytest

from ipmpi import limits
from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, Event, MessageReceived, StreamAborted
from ipmpi.protocol.frames import COUNT, FrameKind, prefix
from ipmpi.protocol.relay import Relay
from ipmpi.protocol.streams import BodyFile, FileFrame, OutgoingStream

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
DATA = random.Random(1).randbytes(1_000_000)


class Bytes:
    """Stands for a file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.descriptor = -1
        self.size = len(data)

    def claim(self, size: int) -> None:
        if size != len(self.data):
            raise RemoteProtocolError("a size that lies")

    def part(self, at: int, size: int) -> memoryview:
        return memoryview(self.data)[at : at + size]


class End:
    """One end of a session; what it receives of streams is put together."""

    def __init__(self, files: bool = True) -> None:
        self.connection = Connection(ALL)
        self.connection.files = deque() if files else None
        self.events: list[Event] = []
        self.got = b""
        self.files = 0

    def hear(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived):
                if isinstance(event.data, memoryview):
                    self.got += bytes(event.data)
                else:
                    self.files += 1
                    self.got += bytes(event.data.part(0, event.data.size))

    @property
    def stream(self) -> int:
        return next(event.stream for event in self.events if isinstance(event, MessageReceived))


def carry(near: End, far: End, budget: int = limits.CHUNK) -> list[Any]:
    """Move what one end has to send now to the other; the buffers."""
    buffers = near.connection.data_to_send(budget)
    for buffer in buffers:
        if isinstance(buffer, FileFrame):
            assert far.connection.files is not None
            far.connection.files.append(buffer.file)
        far.hear(bytes(buffer))
    return buffers


def settle(near: End, far: End) -> None:
    while near.connection.wants_to_send or far.connection.wants_to_send:
        carry(near, far)
        carry(far, near)


def announced(near: End, far: End, total: int = len(DATA)) -> OutgoingStream:
    stream = near.connection.send_streamed(m.Result(1, [0], True, b"", [total]), total)
    settle(near, far)
    return stream


def test_a_file_goes_as_one_frame_when_it_is_allowed_and_there_is_credit() -> None:
    near, far = End(), End()
    stream = announced(near, far)
    near.connection.feed(stream, Bytes(DATA))
    settle(near, far)
    far.connection.allow_files(far.stream)
    settle(near, far)
    assert not far.files, "there is no credit"
    far.connection.grant(far.stream, 1)
    settle(near, far)
    assert (far.files, far.got) == (1, DATA)
    assert far.events[-1].last  # type: ignore[union-attr]
    assert not near.connection.is_held(stream), "it is acknowledged at once"


@pytest.mark.parametrize("why", ["not allowed", "no link for files"])
def test_else_it_goes_in_chunks(why: str) -> None:
    near, far = End(why != "no link for files"), End()
    stream = announced(near, far)
    near.connection.feed(stream, Bytes(DATA))
    if why == "no link for files":
        far.connection.allow_files(far.stream)
    far.connection.grant(far.stream, len(DATA))
    settle(near, far)
    assert (far.files, far.got) == (0, DATA)


def test_bytes_and_files_keep_their_order() -> None:
    near, far = End(), End()
    stream = announced(near, far)
    at = 0
    for number, size in enumerate((10, 400_000, 5, 300_000, 7, len(DATA) - 700_022)):
        part = DATA[at : at + size]
        near.connection.feed(stream, Bytes(part) if number % 2 else part)
        at += size
    far.connection.allow_files(far.stream)
    far.connection.grant(far.stream, len(DATA))
    settle(near, far)
    assert (far.files, far.got) == (3, DATA)


def test_a_message_overtakes_files() -> None:
    near, far = End(), End()
    stream = announced(near, far)
    for at in range(0, len(DATA), 100_000):
        near.connection.feed(stream, Bytes(DATA[at : at + 100_000]))
    far.connection.allow_files(far.stream)
    far.connection.grant(far.stream, len(DATA))
    carry(far, near)
    carry(near, far, 1)
    near.connection.send(m.GetIds(7))
    settle(near, far)
    messages = [at for at, event in enumerate(far.events) if isinstance(event, MessageReceived)]
    assert messages[1] < len(far.events) - 5
    assert far.got == DATA


def file_frame(stream: int, size: int) -> bytes:
    return prefix(FrameKind.FILE, COUNT.size, stream) + COUNT.pack(size)


@pytest.mark.parametrize(
    ("size", "allowed", "granted", "came", "words"),
    [
        (len(DATA), False, 10, True, "which takes none"),
        (len(DATA), True, 0, True, "exceeds the credit"),
        (len(DATA) + 1, True, 10, True, "exceeds the credit"),
        (0, True, 10, True, "exceeds the credit"),
        (len(DATA), True, 10, False, "none came with it"),
        (len(DATA) - 1, True, 10, True, "a size that lies"),
    ],
)
def test_impossible_files_end_the_session(size: int, allowed: bool, granted: int, came: bool, words: str) -> None:
    near, far = End(), End()
    announced(near, far)
    if allowed:
        far.connection.allow_files(far.stream)
    if granted:
        far.connection.grant(far.stream, granted)
    if came:
        assert far.connection.files is not None
        far.connection.files.append(Bytes(DATA))
    with pytest.raises(RemoteProtocolError, match=words):
        far.hear(file_frame(far.stream, size))


def test_a_file_for_a_stream_that_is_not_there() -> None:
    far = End()
    with pytest.raises(RemoteProtocolError, match="which takes none"):
        far.hear(file_frame(5, 10))


def test_a_file_that_was_on_its_way_when_it_was_refused_is_dropped() -> None:
    near, far = End(), End()
    stream = announced(near, far)
    near.connection.feed(stream, Bytes(DATA[:1000]))
    far.connection.allow_files(far.stream)
    far.connection.grant(far.stream, 10)
    carry(far, near)
    far.connection.refuse(far.stream)
    settle(near, far)
    assert far.got == b""
    assert far.connection.files == deque()
    assert near.connection.send(m.GetIds(1)) is None
    settle(near, far)
    assert isinstance(far.events[-1], MessageReceived)


def test_what_one_link_did_not_bring_in_a_file_the_next_brings_in_chunks() -> None:
    near, far = End(), End()
    stream = announced(near, far)
    near.connection.feed(stream, Bytes(DATA))
    far.connection.allow_files(far.stream)
    far.connection.grant(far.stream, 1000)
    carry(far, near)
    near.connection.data_to_send()  # which is lost with the link
    assert near.connection.is_held(stream)
    near.connection.resume(far.connection.received)
    far.connection.resume(near.connection.received)
    settle(near, far)
    assert (far.files, far.got) == (0, DATA[:1000]), "chunks need credit"
    far.connection.grant(far.stream, len(DATA))
    settle(near, far)
    assert far.got == DATA
    near.connection.detach()
    assert not near.connection.is_held(stream)


def test_a_stream_that_was_given_up_does_not_come_back_with_the_next_link() -> None:
    near, far = End(), End()
    stream = announced(near, far)
    near.connection.feed(stream, Bytes(DATA[:1000]))
    far.connection.allow_files(far.stream)
    far.connection.grant(far.stream, 10)
    carry(far, near)
    near.connection.data_to_send()
    near.connection.abort(stream)
    near.connection.resume(far.connection.received)
    far.connection.resume(near.connection.received)
    settle(near, far)
    assert isinstance(far.events[-1], StreamAborted)
    assert far.got == b""


@pytest.mark.parametrize("seed", range(40))
def test_links_of_both_kinds_that_break_anywhere(seed: int) -> None:
    """Bytes and files of two streams, over links that carry files or not, each cut after some buffers."""
    source = random.Random(seed)
    near, far = End(), End()
    totals = [source.randrange(limits.INLINE_BODY + 1, 900_000) for _ in range(2)]
    bodies = [random.Random(seed + total).randbytes(total) for total in totals]
    streams = [near.connection.send_streamed(m.Result(n, [0], True, b"", [t]), t) for n, t in enumerate(totals)]
    got: dict[int, bytes] = {stream.id: b"" for stream in streams}
    fed = [0, 0]
    over: set[int] = set()
    for _ in range(10_000):
        if len(over) == 2:
            break
        if source.random() < 0.1:  # a new link
            files = source.random() < 0.6
            near.connection.resume(far.connection.received, files=files)
            far.connection.resume(near.connection.received, files=files)
            for end in (near, far):
                end.connection.files = deque() if files else None
        for number, stream in enumerate(streams):
            if fed[number] < totals[number] and source.random() < 0.5:
                part = bodies[number][fed[number] : fed[number] + source.randrange(1, 200_000)]
                fed[number] += len(part)
                near.connection.feed(stream, Bytes(part) if source.random() < 0.6 else part)
            if source.random() < 0.3 and far.connection.is_coming(stream.id):
                far.connection.allow_files(stream.id)
                far.connection.grant(stream.id, source.randrange(1, 100_000))
        lost = source.random() < 0.1
        for one, other in ((near, far), (far, near)):
            buffers = one.connection.data_to_send(source.randrange(1, limits.CHUNK))
            for buffer in buffers[: source.randrange(len(buffers) + 1)] if lost else buffers:
                if isinstance(buffer, FileFrame):
                    assert other.connection.files is not None
                    other.connection.files.append(buffer.file)
                for event in other.connection.receive_data(bytes(buffer)):
                    if isinstance(event, DataReceived):
                        data = event.data
                        got[event.stream] += bytes(
                            data if isinstance(data, memoryview) else data.part(0, data.size)
                        )
                        if event.last:
                            over.add(event.stream)
        if lost:
            files = source.random() < 0.6
            near.connection.resume(far.connection.received, files=files)
            far.connection.resume(near.connection.received, files=files)
            for end in (near, far):
                end.connection.files = deque() if files else None
    assert [got[stream.id] for stream in streams] == bodies


def test_a_relay_asks_for_files_if_any_sink_takes_them_and_the_others_get_bytes() -> None:
    (a, relay_in), (relay_one, one), (relay_two, two) = (End(), End()), (End(), End()), (End(False), End(False))
    stream = announced(a, relay_in)
    outgoing = [announced(end, far) for end, far in ((relay_one, one), (relay_two, two))]
    relay = Relay(
        relay_in.connection,
        relay_in.stream,
        [(relay_one.connection, outgoing[0]), (relay_two.connection, outgoing[1])],
    )
    one.connection.allow_files(one.stream)
    for end in (one, two):
        end.connection.grant(end.stream, 1000)
    settle(relay_one, one)
    settle(relay_two, two)
    relay.update_credit()
    a.connection.feed(stream, Bytes(DATA))
    relay_in.events.clear()
    settle(a, relay_in)
    (event,) = relay_in.events
    assert isinstance(event, DataReceived)
    file: Any = event.data
    relay.receive(file)
    two.connection.grant(two.stream, len(DATA))
    settle(relay_one, one)
    settle(relay_two, two)
    assert (one.files, one.got) == (1, DATA)
    assert (two.files, two.got) == (0, DATA)


def test_files_and_their_stand_in_are_what_the_connection_needs() -> None:
    file: BodyFile = Bytes(b"x")
    assert file.size == 1
