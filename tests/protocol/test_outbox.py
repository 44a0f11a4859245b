"""What is not acknowledged is sent again: a link may be cut after every byte, any number of times."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest

from ipmpi import limits
from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, Event, MessageReceived, StreamAborted
from ipmpi.protocol.frames import COUNT, FrameKind, prefix
from ipmpi.protocol.outbox import Outbox

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
BIG = 4 * limits.CHUNK + 5

# --- the outbox ------------------------------------------------------------------------------------------


def test_frames_are_kept_until_acknowledged() -> None:
    outbox = Outbox()
    for number in range(5):
        outbox.append([bytes([number])], 1)
    assert (len(outbox), outbox.sent) == (5, 5)
    outbox.acknowledge(2)
    outbox.acknowledge(2)
    assert outbox.unacknowledged() == [[b"\2"], [b"\3"], [b"\4"]]
    assert outbox.sent == 5
    outbox.append([b"x"], 1)
    outbox.acknowledge(6)
    assert (len(outbox), outbox.sent) == (0, 6)


@pytest.mark.parametrize("received", [1, 4, 2**64 - 1])
def test_impossible_acknowledgement(received: int) -> None:
    outbox = Outbox()
    for _ in range(3):
        outbox.append([b""], 0)
    outbox.acknowledge(2)
    with pytest.raises(RemoteProtocolError, match=f"acknowledges frame {received}; 2 to 3 were possible"):
        outbox.acknowledge(received)


def test_it_copies_nothing() -> None:
    data = memoryview(bytearray(10))
    outbox = Outbox()
    outbox.append([b"head", data], 14)
    assert outbox.unacknowledged()[0][1] is data


# --- two ends over links that break ----------------------------------------------------------------------


class End:
    """A connection whose user grants ``window`` bytes ahead and notes all that it hears."""

    def __init__(self, window: int = 2 * limits.CHUNK) -> None:
        self.connection = Connection(ALL)
        self.window = window
        self.numbers: list[int] = []
        self.bodies: dict[int, bytearray] = {}
        self.whole: list[int] = []
        self.aborted: list[int] = []
        self._ahead: dict[int, int] = {}

    def hear(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            self._event(event)

    def _event(self, event: Event) -> None:
        if isinstance(event, MessageReceived):
            message: Any = event.message
            self.numbers.append(message.id)
            if event.stream:
                self.bodies[event.stream] = bytearray()
                self._ahead[event.stream] = self.window
                self.connection.grant(event.stream, self.window)
        elif isinstance(event, DataReceived):
            body = self.bodies[event.stream]
            body += event.data
            if event.last:
                self.whole.append(event.stream)
            elif len(body) > self._ahead[event.stream] - self.window // 2:
                self._ahead[event.stream] += self.window
                self.connection.grant(event.stream, self.window)
        elif isinstance(event, StreamAborted):
            self.aborted.append(event.stream)

    def say(self, first: int, body: bytes) -> None:
        self.connection.send(m.GetIds(first))
        self.connection.send(m.Result(first + 1, [0], True, b"", [3]), [b"abc"])
        self.connection.send(m.Result(first + 2, [0], True, b"", [len(body)]), [body])
        self.connection.send(m.GetIds(first + 3))


def reconnect(a: End, b: End) -> None:
    """What the handshake does: each end tells how much it has received."""
    counts = a.connection.received, b.connection.received
    a.connection.resume(counts[1])
    b.connection.resume(counts[0])


def turn(end: End) -> bytes:
    return b"".join(end.connection.data_to_send())


def talk(a: End, b: End, cuts: list[int]) -> int:
    """Run until both are silent; the link breaks after each of ``cuts`` bytes. Total of bytes moved."""
    moved = 0
    left = list(cuts)
    while a.connection.wants_to_send or b.connection.wants_to_send:
        for sender, receiver in ((a, b), (b, a)):
            data = turn(sender)
            if left and len(data) > left[0]:
                receiver.hear(data[: left.pop(0)])
                reconnect(a, b)
                break
            if left:
                left[0] -= len(data)
            moved += len(data)
            receiver.hear(data)
    return moved


def check(a: End, b: End, body: bytes) -> None:
    for end, first in ((a, 200), (b, 100)):
        assert end.numbers == [first, first + 1, first + 2, first + 3]
        assert end.whole == [1]
        assert end.bodies[1] == body
    for end in (a, b):
        assert not end.connection._streams
        assert not end.connection._incoming


def pair(body: bytes, window: int = 2 * limits.CHUNK) -> tuple[End, End]:
    a, b = End(window), End(window)
    a.say(100, body)
    b.say(200, body)
    return a, b


def test_cut_after_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small chunks, so that "every byte" is a few thousand.
    monkeypatch.setattr(limits, "CHUNK", 64)
    monkeypatch.setattr(limits, "INLINE_BODY", 100)
    body = random.Random(1).randbytes(300)
    total = talk(*pair(body, 100), [])
    assert 600 < total < 2000
    for cut in range(total + 1):
        a, b = pair(body, 100)
        talk(a, b, [cut])
        check(a, b, body)


def test_repeated_cuts_in_the_same_chunk() -> None:
    body = random.Random(2).randbytes(BIG)
    for steps in ([10, 10, 10, 10], [100_000, 50_000, 150_000, 1], [1] * 30, [limits.CHUNK] * 5):
        a, b = pair(body)
        while not b.bodies:
            talk_once(a, b)
        for step in steps:
            b.hear(turn(a)[:step])
            reconnect(a, b)
        talk(a, b, [])
        check(a, b, body)


def talk_once(a: End, b: End) -> None:
    b.hear(turn(a))
    a.hear(turn(b))


def test_random_cuts_with_real_chunks() -> None:
    chance = random.Random(3)
    body = chance.randbytes(BIG)
    for _ in range(40):
        a, b = pair(body, chance.choice([1000 * 300, 2 * limits.CHUNK, BIG]))
        talk(a, b, [chance.choice([1, 12, 300, 5000, 262_144, 300_000]) for _ in range(chance.randrange(1, 25))])
        check(a, b, body)


def test_abort_and_refusal_survive_a_cut() -> None:
    body = bytes(BIG)
    a, b = pair(body)
    while not b.bodies.get(1):
        talk_once(a, b)
    (mine,) = a.connection._streams.values()
    a.connection.abort(mine)
    turn(a)  # lost on its way
    a.connection.send(m.GetIds(104))
    reconnect(a, b)
    talk(a, b, [])
    assert b.aborted == [1]
    assert b.numbers == [100, 101, 102, 103, 104]
    assert a.bodies[1] == body


def test_signs_of_life_belong_to_one_link() -> None:
    a, b = End(), End()
    a.connection.ping()
    a.connection.send(m.GetIds(1))
    reconnect(a, b)
    data = turn(a)
    assert prefix(FrameKind.PING, 0) not in data
    b.hear(data)
    assert b.numbers == [1]


@pytest.mark.parametrize("count", [-1, 4, 2**63])
def test_resume_with_impossible_counts(count: int) -> None:
    end = End()
    for number in range(3):
        end.connection.send(m.GetIds(number))
    turn(end)
    with pytest.raises(RemoteProtocolError, match="0 to 3 were possible"):
        end.connection.resume(count)


def test_impossible_ack_frame() -> None:
    end = End()
    with pytest.raises(RemoteProtocolError, match="0 to 0 were possible"):
        end.hear(prefix(FrameKind.ACK, 8) + COUNT.pack(1))


# --- acknowledgements ------------------------------------------------------------------------------------


def test_acknowledgements_bound_the_outbox() -> None:
    a, b = End(), End()
    longest = 0
    for number in range(10 * limits.ACK_FRAMES):
        a.connection.send(m.GetIds(number))
        talk_once(a, b)
        longest = max(longest, len(a.connection._outbox))
    assert longest <= 2 * limits.ACK_FRAMES


def test_acknowledgements_bound_the_bytes_of_a_stream() -> None:
    size = 24 * limits.MIB
    a, b = End(8 * limits.MIB), End()
    b.window = 8 * limits.MIB
    a.connection.send(m.Result(1, [0], True, b"", [size]), [bytes(size)])
    longest = 0
    while a.connection.wants_to_send or b.connection.wants_to_send:
        talk_once(a, b)
        longest = max(longest, len(a.connection._outbox))
    assert b.whole == [1]
    assert longest * limits.CHUNK <= 2 * limits.ACK_BYTES


def test_acknowledgements_are_few() -> None:
    a, b = End(), End()
    for number in range(limits.ACK_FRAMES - 1):
        a.connection.send(m.GetIds(number))
        b.hear(turn(a))
        assert not b.connection.wants_to_send, "no timer and no write for it alone"
        b.connection.send(m.Reply(number, []))
        a.hear(turn(b))
    assert len(a.connection._outbox) == limits.ACK_FRAMES - 1
    a.connection.send(m.GetIds(1000))
    b.hear(turn(a))
    a.hear(turn(b))
    assert len(a.connection._outbox) == 0


def test_without_resume_nothing_is_kept() -> None:
    a = Connection(ALL, resumable=False)
    for number in range(1000):
        a.send(m.GetIds(number))
    data = b"".join(part for _ in range(2) for part in a.data_to_send(10**9))
    b = Connection(ALL, resumable=False)
    assert len(list(b.receive_data(data))) == 1000
    assert not b.wants_to_send
    assert len(a._outbox) == 0


# --- the memory of streams, and peers that do not acknowledge ------------------------------------------------


def streamed(a: End, b: End, body: bytearray) -> Any:
    """A stream that ``a`` has sent to its end; the last chunks were lost on their way."""
    stream = a.connection.send(m.Result(1, [0], True, b"", [len(body)]), [body])
    assert stream is not None
    b.hear(turn(a))
    while b.connection.wants_to_send:
        a.hear(turn(b))
    while a.connection.wants_to_send:
        turn(a)
    assert stream.sent == stream.total
    return stream


def test_a_stream_is_held_until_its_last_byte_is_acknowledged() -> None:
    a, b = End(), End(BIG)
    body = bytearray(random.Random(4).randbytes(BIG))
    original = bytes(body)
    stream = streamed(a, b, body)
    assert a.connection.is_held(stream), "all was handed to the link, and may have to be sent again"
    reconnect(a, b)
    talk(a, b, [])
    assert b.bodies[1] == original
    assert not a.connection.is_held(stream), "the end of a stream is acknowledged at once"
    body[:] = bytes(len(body))
    reconnect(a, b)
    assert not a.connection.wants_to_send


def test_what_was_sent_before_its_owner_changed_it_is_sent_again_as_it_was() -> None:
    """Between two links an owner that cannot wait for an acknowledgement has a copy made."""
    a, b = End(), End(BIG)
    body = bytearray(random.Random(5).randbytes(BIG))
    original = bytes(body)
    stream = streamed(a, b, body)
    reconnect(a, b)  # the link breaks once more before anything was sent again
    a.connection.detach()
    assert not a.connection.is_held(stream)
    body[:] = bytes(len(body))
    reconnect(a, b)
    talk(a, b, [])
    assert b.bodies[1] == original


def test_a_stream_that_was_refused_is_held_as_long_as_its_chunks_are_kept() -> None:
    a, b = End(), End(limits.CHUNK)
    stream = a.connection.send(m.Result(1, [0], True, b"", [BIG]), [bytes(BIG)])
    assert stream is not None
    talk_once(a, b)
    b.hear(turn(a))
    b.connection.refuse(stream.id)
    a.hear(turn(b))
    assert a.connection.is_held(stream)
    talk(a, b, [])
    assert not a.connection.is_held(stream)


def test_a_peer_that_never_acknowledges_is_sent_nothing_more() -> None:
    a, b = End(), End()
    a.connection = Connection(ALL, unacknowledged=limits.MIB)
    for number in range(100):
        a.connection.send(m.Result(number, [0], True, b"", [100_000]), [bytes(100_000)])
    sent = b""
    while a.connection.wants_to_send:
        sent += turn(a)
    assert a.connection.is_stalled
    assert limits.MIB <= len(sent) < 1.2 * limits.MIB
    # Signs of life are not held up, and the rest goes when it has acknowledged something.
    a.connection.ping()
    assert turn(a) == prefix(FrameKind.PING, 0)
    # A new link is no acknowledgement: what is sent again is not held up, what is new is.
    reconnect(a, b)
    again = b""
    while a.connection.wants_to_send:
        again += turn(a)
    assert again == sent
    b.hear(again)
    talk(a, b, [])
    assert b.numbers == list(range(100))


def test_what_has_arrived_is_acknowledged_when_asked_for_and_with_signs_of_life() -> None:
    a, b = End(), End()
    for sign in (b.connection.acknowledge, b.connection.ping, lambda: b.hear(prefix(FrameKind.PING, 0))):
        a.connection.send(m.GetIds(1))
        b.hear(turn(a))
        assert b.connection.owes_acknowledgement
        sign()
        a.hear(turn(b))
        assert len(a.connection._outbox) == 0
        assert not b.connection.owes_acknowledgement
    b.connection.acknowledge()
    assert not b.connection.wants_to_send, "once"
