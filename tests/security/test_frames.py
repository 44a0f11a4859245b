"""S15, S16, S17, S20, S23: what a peer that was let in can do with bytes: end its own link, and nothing else."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ipmpi import limits
from ipmpi.protocol import messages as m
from ipmpi.protocol.frames import COUNT, HEADER_LENGTH, FrameKind, prefix
from ipmpi.protocol.handshake import DiallerHandshake
from tests.security.cluster import Controller, controller
from tests.security.wire import Member, TlsPeer, register


def raw_prefix(length: int, kind: int, stream: int = 0, padding: bytes = b"\0\0\0") -> bytes:
    return struct.pack("!IB3sI", length, kind, padding, stream)


def message_frame(header: bytes, body: bytes = b"", stream: int = 0, declared: int | None = None) -> bytes:
    payload = HEADER_LENGTH.pack(len(header) if declared is None else declared) + header + body
    return prefix(FrameKind.MESSAGE, len(payload), stream) + payload


def command(*sizes: object, body: bytes = b"", stream: int = 0) -> bytes:
    header = msgspec.msgpack.encode([1, 1, None, "push", "push", b"x", list(sizes)])
    return message_frame(header, body, stream)


NESTED = b"\x91" * 200_000 + b"\x90"
BAD_FRAMES = {
    "message of 2^31 bytes": raw_prefix(1 << 31, FrameKind.MESSAGE),
    "message of 2^32 - 1 bytes": raw_prefix((1 << 32) - 1, FrameKind.MESSAGE),
    "message one byte too long": raw_prefix(limits.MESSAGE + 1, FrameKind.MESSAGE),
    "message of 0 bytes": raw_prefix(0, FrameKind.MESSAGE),
    "message of 3 bytes": raw_prefix(3, FrameKind.MESSAGE),
    "header longer than its frame": message_frame(b"\x90", declared=1 << 31),
    "header of 2^32 - 1 bytes": message_frame(b"\x90", declared=(1 << 32) - 1),
    "empty header": message_frame(b""),
    "kind 0": raw_prefix(4, 0),
    "kind 255": raw_prefix(4, 255),
    "bytes that must be zero": raw_prefix(0, FrameKind.PING, padding=b"\0\1\0"),
    "chunk of no stream": raw_prefix(4, FrameKind.CHUNK) + b"1234",
    "chunk of a stream that is not open": raw_prefix(4, FrameKind.CHUNK, 9) + b"1234",
    "empty chunk": raw_prefix(0, FrameKind.CHUNK, 1),
    "chunk one byte too long": raw_prefix(limits.CHUNK + 1, FrameKind.CHUNK, 1),
    "credit of 5 bytes": raw_prefix(5, FrameKind.CREDIT, 1),
    "ping with a payload": raw_prefix(1, FrameKind.PING),
    "acknowledgement of what was never sent": raw_prefix(8, FrameKind.ACK) + COUNT.pack(1 << 63),
    "body of a negative size": command(-1),
    "body of size 2^62": command(1 << 62, stream=1),
    "body of size 2^64 - 1": command((1 << 64) - 1, stream=1),
    "body of sizes whose sum is right and one is negative": command(5, -1, body=b"1234"),
    "body longer than announced": command(3, body=b"1234"),
    "body shorter than announced": command(5, body=b"1234"),
    "stream of nothing": command(0, stream=1),
    "sizes past the limit of segments": command(*[0] * (limits.SEGMENTS + 1)),
    "chunk before any credit": command(1 << 20, stream=1) + raw_prefix(4, FrameKind.CHUNK, 1) + b"1234",
    "stream announced twice": command(1 << 20, stream=1) * 2,
    "unknown message type": message_frame(msgspec.msgpack.encode([99, 1])),
    "one field too many": message_frame(msgspec.msgpack.encode([3, 1, "extra"])),
    "a field of another type": message_frame(msgspec.msgpack.encode([3, "one"])),
    "a map, with one key twice": message_frame(b"\x82\xa2id\x01\xa2id\x02"),
    "nesting of 200,000": message_frame(NESTED),
    "an array of 2^32 - 1": message_frame(b"\xdd\xff\xff\xff\xff"),
    "text that is not UTF-8": message_frame(b"\x92\x50\xa2\xff\xfe"),
    "random bytes": random.Random(7).randbytes(4000),
}


@pytest.fixture
def bystander(controller: Controller) -> Iterator[Member]:
    """Somebody else's link, which nothing of this may touch."""
    with Member(controller.furl("mec")) as member:
        member.ping()
        yield member
        member.ping()
        member.say(m.Goodbye("done"))


def asked_in(member: Member, number: int) -> float:
    """How long an answer takes."""
    begin = time.perf_counter()
    member.say(m.GetIds(number))
    assert member.hear(m.Reply).id == number
    return time.perf_counter() - begin


@pytest.mark.parametrize("frame", BAD_FRAMES)
@pytest.mark.parametrize("role", ["mec", "engine"])
def test_impossible_frame_ends_only_its_link(
    controller: Controller, bystander: Member, role: str, frame: str
) -> None:
    with Member(controller.furl(role)) as member:
        member.send(BAD_FRAMES[frame])
        assert member.is_ended()
    assert asked_in(bystander, 1) < 1


def test_right_frames_end_nothing(controller: Controller, bystander: Member) -> None:
    with Member(controller.furl("mec")) as member:
        member.send(raw_prefix(0, FrameKind.PING) + message_frame(msgspec.msgpack.encode([3, 1])) + command())
        assert member.hear(m.Reply).id == 1
        assert member.hear(m.Refused).error == "NoEnginesRegistered"
        assert not member.is_ended()


def test_random_bytes_end_only_their_link(controller: Controller, bystander: Member) -> None:
    source = random.Random(11)
    good = message_frame(msgspec.msgpack.encode([3, 1])) + command(4, body=b"1234") + raw_prefix(0, FrameKind.PING)
    for _ in range(60):
        data = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        with Member(controller.furl(source.choice(["mec", "engine"]))) as member:
            member.send(bytes(data))
    assert asked_in(bystander, 1) < 1


def test_frame_that_comes_byte_by_byte_hurts_nobody(controller: Controller, bystander: Member) -> None:
    rss = resident(controller)
    with Member(controller.furl("mec")) as slow:
        slow.send(raw_prefix(limits.MESSAGE, FrameKind.MESSAGE))
        longest = 0.0
        for number in range(300):
            slow.send(b"\0")
            longest = max(longest, asked_in(bystander, number))
        assert longest < 1
        slow.say(m.Goodbye("done"))
    assert resident(controller) - rss < 8 << 20


def resident(controller: Controller) -> int:
    with open(f"/proc/{controller.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


# --- peers that were let in and mean harm ------------------------------------------------------------------


@pytest.mark.parametrize("end", ["goodbye", "garbage"])
def test_question_followed_at_once_by_the_end_of_tls_does_no_harm(tmp_path: Path, end: str) -> None:
    with controller(tmp_path) as own, Member(own.furl("mec")) as bystander:
        for _ in range(5):
            with Member(own.furl("mec")) as member:
                member.connection.send(m.GetIds(1))
                member.tls.write(b"".join(bytes(b) for b in member.connection.data_to_send()))
                question = member.tls.ciphertext_to_send()
                member.tls.close()
                last = member.tls.ciphertext_to_send() if end == "goodbye" else b"\x17\x03\x03\x00\x20" + bytes(32)
                member.sock.sendall(question + last)
                assert asked_in(bystander, 1) < 1


def test_hello_followed_at_once_by_a_goodbye_in_tls_does_no_harm(
    controller: Controller, bystander: Member
) -> None:
    before = controller.descriptors()
    furl = controller.furl("mec")
    for _ in range(5):
        with TlsPeer(furl.hints[0]) as peer:
            hello = DiallerHandshake("mec", furl.secret, peer.tls.exporter(), "a test").hello()
            peer.tls.write(hello)
            peer.tls.close()
            peer.flush()
            assert asked_in(bystander, 1) < 1
    assert asked_in(bystander, 2) < 1
    assert controller.descriptors() <= before


def test_engine_whose_answer_is_too_large_to_pass_on(controller: Controller, bystander: Member) -> None:
    engine, number = register(controller.furl("engine"), wanted=60_000)
    with engine:
        bystander.say(m.Command(1 << 40, [number], "execute", "execute", b"x"))
        dispatch = engine.hear(m.Dispatch)
        room = limits.MESSAGE - HEADER_LENGTH.size - len(m.encode(m.Result(dispatch.id, [0], True, b"")))
        engine.say(m.Result(dispatch.id, [0], True, bytes(room - 4)))
        undone = bystander.hear(m.Undone)
        assert (undone.engines, undone.error) == ([number], "MessageSizeError")
        assert asked_in(bystander, 2) < 1
        engine.say(m.Goodbye("done"))


def test_engine_that_answers_what_it_was_not_asked(controller: Controller, bystander: Member) -> None:
    engine, number = register(controller.furl("engine"))
    with engine:
        bystander.say(m.Command(5, [number], "execute", "execute", b"x"))
        dispatch = engine.hear(m.Dispatch)
        engine.say(m.Result(dispatch.id + 1, [0], True, b"wrong"))
        engine.say(m.Result(dispatch.id, [1, 2**40], True, b"wrong"))
        engine.say(m.Result(-1, [0], True, b"wrong"), m.Result(0, [], True, b""))
        engine.say(m.RanksLost([5, -1], "gone"))
        engine.say(m.Result(dispatch.id, [0], True, b"right"))
        assert bystander.hear(m.Result).outcome == b"right"
        engine.say(m.Goodbye("done"))


@pytest.mark.parametrize(
    "engines",
    [[], [m.EngineInfo(0, 0, "h", 1)] * 2, [m.EngineInfo(i, i, "h", 1) for i in range(limits.MAX_ENGINES + 1)]],
    ids=["none", "one rank twice", "too many"],
)
def test_impossible_set_is_not_registered(
    controller: Controller, bystander: Member, engines: list[m.EngineInfo]
) -> None:
    with Member(controller.furl("engine")) as engine:
        engine.say(m.Register(engines, "no MPI", "3"))
        assert engine.is_ended()
    bystander.say(m.GetIds(1))
    assert bystander.hear(m.Reply).value == []


@pytest.mark.parametrize("wanted", [-5, 2**40, limits.MAX_ENGINES])
def test_impossible_engine_id_is_not_given(controller: Controller, wanted: int) -> None:
    engine, number = register(controller.furl("engine"), wanted=wanted)
    with engine:
        assert 0 <= number < limits.MAX_ENGINES
        engine.say(m.Goodbye("done"))


FORGED = "x\n2030-01-01 00:00:00 ipcontroller: Stopping\x1b[2J"


def test_log_lines_cannot_be_forged(controller: Controller) -> None:
    engine, _ = register(controller.furl("engine"), host=FORGED)
    with engine:
        engine.say(m.RanksLost([0], FORGED), m.Goodbye(FORGED))
        engine.ping()
    with Member(controller.furl("monitor")) as monitor:
        monitor.say(m.Goodbye(FORGED))
        monitor.ping()
    log = controller.log()
    assert "2030-01-01 00:00:00" in log, "the test sees what peers say"
    assert not any(line.startswith("2030-01-01") for line in log.splitlines())
    assert "\x1b" not in log


def test_endless_reason_does_not_fill_the_log(controller: Controller) -> None:
    size = controller.log_file.stat().st_size
    with Member(controller.furl("monitor")) as monitor:
        monitor.say(m.Goodbye("y" * 1_000_000))
        monitor.ping()
    assert controller.log_file.stat().st_size - size < 2000
