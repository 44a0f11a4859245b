"""Two ends of the channels of an ssh session, in memory."""

from __future__ import annotations

import pytest

from ipmpi import limits
from ipmpi.errors import LocalProtocolError, RemoteProtocolError, VersionError
from ipmpi.protocol import mux
from ipmpi.protocol.frames import COUNT, PREFIX
from ipmpi.protocol.mux import ConnectTo, Mux, MuxKind, ReadFurl, RunCommand

HOST = ConnectTo("node1", 4000)
WINDOW, CHUNK = limits.MUX_WINDOW, limits.MUX_CHUNK


def flow(source: Mux, sink: Mux) -> list[mux.Event]:
    """All that ``source`` has to send, and what it means to ``sink``."""
    events: list[mux.Event] = []
    while source.wants_to_send:
        events += sink.receive_data(b"".join(source.data_to_send()))
    return events


@pytest.fixture
def ends() -> tuple[Mux, Mux]:
    return Mux(near=True), Mux(near=False)


@pytest.mark.parametrize("request_", [HOST, RunCommand(["slurm", "-n", "4"]), ReadFurl("mec", "big")])
def test_requests_arrive_as_they_are(ends: tuple[Mux, Mux], request_: mux.Request) -> None:
    near, far = ends
    channel = near.open(request_)
    assert flow(near, far) == [mux.Requested(channel, request_)]
    far.accept(channel)
    assert flow(far, near) == [mux.Opened(channel)]


def test_data_goes_both_ways_and_ends_after_it(ends: tuple[Mux, Mux]) -> None:
    near, far = ends
    channel = near.open(HOST)
    near.send(channel, b"question")
    near.end(channel)
    assert flow(near, far)[1:] == [mux.Data(channel, b"question"), mux.Ended(channel, 0, "")]
    far.send(channel, b"answer")
    far.end(channel, 3, "why")
    assert flow(far, near) == [mux.Data(channel, b"answer"), mux.Ended(channel, 3, "why")]
    assert near.room(channel) == far.room(channel) == 0


def test_one_channel_may_have_a_window_under_way_and_no_more(ends: tuple[Mux, Mux]) -> None:
    near, far = ends
    channel = near.open(HOST)
    sent = 0
    while room := near.room(channel):
        near.send(channel, bytes(room))
        sent += room
        flow(near, far)
    assert sent == WINDOW
    with pytest.raises(LocalProtocolError, match="room for 0"):
        near.send(channel, b"x")
    far.consumed(channel, WINDOW // 4 - 1)
    assert not far.wants_to_send, "credit is given in large steps"
    far.consumed(channel, 1)
    assert flow(far, near) == [mux.Room(channel)]
    assert near.room(channel) == CHUNK


def test_a_channel_that_nobody_reads_does_not_hold_up_the_others(ends: tuple[Mux, Mux]) -> None:
    near, far = ends
    stuck, quick = near.open(HOST), near.open(HOST)
    while room := near.room(stuck):
        near.send(stuck, bytes(room))
        flow(near, far)
    arrived = 0
    while arrived < 5 * WINDOW:
        near.send(quick, bytes(near.room(quick)))
        for event in flow(near, far):
            assert isinstance(event, mux.Data)
            arrived += len(event.data)
            far.consumed(quick, len(event.data))
        flow(far, near)


def test_channels_take_turns_and_messages_overtake_data(ends: tuple[Mux, Mux]) -> None:
    near, far = ends
    first, second = near.open(HOST), near.open(HOST)
    flow(near, far)
    for channel in (first, second):
        near.send(channel, bytes(CHUNK))
    for expected in (first, second):
        near.ping()
        data = b"".join(near.data_to_send())
        assert data[4] == MuxKind.PING
        assert [event.channel for event in far.receive_data(data)] == [expected]  # type: ignore[union-attr]


def test_what_is_under_way_on_a_reset_channel_is_dropped(ends: tuple[Mux, Mux]) -> None:
    near, far = ends
    channel = near.open(HOST)
    flow(near, far)
    far.send(channel, b"late")
    near.reset(channel, "nobody wants it")
    assert flow(far, near) == []
    assert flow(near, far) == [mux.StreamReset(channel, "nobody wants it")]
    far.consumed(channel, WINDOW)
    far.end(channel)
    assert not far.wants_to_send


def test_names_of_files_may_have_bytes_that_are_no_text(ends: tuple[Mux, Mux]) -> None:
    near, far = ends
    with pytest.raises(LocalProtocolError, match="no text"):
        near.open(RunCommand(["\udcff"]))
    one, two = near.open(HOST), near.open(HOST)
    flow(near, far)
    far.end(one, 1, "no file \udcff")
    far.reset(two, "no file \udcff" * 10_000)
    ended, reset = sorted(flow(far, near), key=lambda event: isinstance(event, mux.StreamReset))
    assert ended == mux.Ended(one, 1, "no file ?")
    assert isinstance(reset, mux.StreamReset)
    assert len(reset.reason) == 4000


def test_goodbye_ends_all(ends: tuple[Mux, Mux]) -> None:
    near, far = ends
    channel = near.open(HOST)
    flow(near, far)
    near.bye("closed")
    assert flow(near, far) == [mux.Bye("closed")]
    assert far.room(channel) == near.room(channel) == 0


def test_pings_that_nobody_can_answer_yet_do_not_pile_up(ends: tuple[Mux, Mux]) -> None:
    near, far = ends
    for _ in range(1000):
        near.ping()
    flow(near, far)
    assert b"".join(far.data_to_send()) == PREFIX.pack(0, MuxKind.PONG, 0)


def test_there_is_an_end_of_channels(ends: tuple[Mux, Mux]) -> None:
    near, _ = ends
    for _ in range(limits.MUX_CHANNELS):
        near.open(HOST)
    with pytest.raises(LocalProtocolError, match="connections through this ssh session already"):
        near.open(HOST)


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    return PREFIX.pack(len(payload), kind, channel) + payload


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(99, 1), "unknown kind 99"),
        (b"Last login: yesterday\n", "unknown kind"),
        (frame(MuxKind.DATA, 7, b"x"), "never opened"),
        (frame(MuxKind.OPENED, 1), "only the other end"),
        (frame(MuxKind.OPEN, 5, b"\x80"), "is opened where 2 is next"),
        (frame(MuxKind.OPEN, 2, b"\x80"), "cannot be understood"),
        (frame(MuxKind.DATA, 0, b"x"), "of channel 0"),
        (frame(MuxKind.PING, 1), "of channel 1"),
        (frame(MuxKind.PING, 0, b"x"), "of 1 bytes"),
        (frame(MuxKind.CREDIT, 1, COUNT.pack(1)), "more than was used"),
        (frame(MuxKind.CREDIT, 1, COUNT.pack(0)), "more than was used"),
        (frame(MuxKind.DATA, 1), "0 bytes on channel 1"),
        (frame(MuxKind.END, 1, b"\xc1"), "cannot be understood"),
        (PREFIX.pack(CHUNK + 1, MuxKind.DATA, 1), f"of {CHUNK + 1} bytes"),
        (frame(MuxKind.END, 1, b"\x90") + frame(MuxKind.DATA, 1, b"x"), "after its end"),
        (frame(MuxKind.DATA, 1, bytes(CHUNK)) * (WINDOW // CHUNK + 1), "which has credit for 0"),
    ],
)
def test_what_no_end_of_ours_sends(ends: tuple[Mux, Mux], data: bytes, words: str) -> None:
    near, far = ends
    near.open(HOST)
    flow(near, far)
    with pytest.raises(RemoteProtocolError, match=words):
        list(far.receive_data(data))


# --- the greeting ------------------------------------------------------------------------------------------


def test_what_a_login_prints_is_skipped() -> None:
    reader = mux.GreetingReader()
    data = b"Welcome!\nYou have mail." + mux.greeting("ipmpi 1.0") + b"\x00frames"
    rest = None
    for at in range(len(data)):
        rest = reader.receive(data[at : at + 1])
        if rest is not None:
            assert data[at + 1 :] == b"\x00frames"
            break
    assert rest == b""
    assert mux.GreetingReader().receive(data) == b"\x00frames"


@pytest.mark.parametrize(
    ("version", "which"), [(mux.VERSION + 1, "upgrade this one"), (0, "upgrade the one there")]
)
def test_another_version_says_which_to_upgrade(version: int, which: str) -> None:
    with pytest.raises(VersionError, match=f"its ipmpi 9.9 speaks version {version} .*{which}"):
        mux.GreetingReader().receive(b"\nipmpi-relay %d ipmpi 9.9\n" % version)


def test_a_login_that_prints_without_end_is_given_up() -> None:
    reader = mux.GreetingReader()
    assert reader.receive(b"n" * (limits.SSH_BANNER - 1)) is None
    with pytest.raises(RemoteProtocolError, match="prints more than"):
        reader.receive(b"ews")
