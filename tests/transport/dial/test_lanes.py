"""The two ends of a bulk lane, beside their session: in one loop, and with no controller between them."""

from __future__ import annotations

import errno
import random
import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, get_args

import numpy as np
import pytest

from ipmpi import limits
from ipmpi.client import MultiEngineClient
from ipmpi.errors import CompositeError, ConnectionError, KernelError, RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, Event, MessageReceived, StreamAborted
from ipmpi.protocol.lanes import PREAMBLE, TICKET_BYTES
from ipmpi.protocol.streams import LanePart, OutgoingStream
from ipmpi.tls import Identity, TlsSession
from ipmpi.transport.dial.lane import LaneEnd
from ipmpi.transport.dial.lanes import Lanes, _Making
from ipmpi.transport.dial.negotiate import Authenticated, ListenNegotiation
from ipmpi.transport.dial.routes import Route
from ipmpi.transport.link import Link
from ipmpi.transport.loop import Loop
from ipmpi.transport.tlspipe import TlsPipe
from tests.in_process import InProcess, in_process, wait_until
from tests.socketpipe import SocketPipe

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))
LANE = 1


class LanePipe(SocketPipe):
    """The pipe of a lane, with new keys."""

    records = 0


class End:
    """One end of a session with its lanes. It wants all bodies, unless it is told otherwise."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.loop = loop
        self.connection = Connection(ALL)
        self.connection.takes_lanes = True
        self.bodies: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.complete: list[int] = []
        self.aborted: list[StreamAborted] = []
        self.said: list[Any] = []
        self.errors: list[BaseException | None] = []
        self.streams: list[int] = []
        self.window = 1 << 40
        self.lanes = Lanes(loop, self, self._event)
        self.link = Link(loop, SocketPipe(sock), self.connection, self._heard, self._closed)

    def _heard(self, event: Event) -> None:
        if isinstance(event, MessageReceived):
            self.said.append(event.message)
        self.lanes.handle(event)

    def _event(self, event: Event) -> None:
        if isinstance(event, MessageReceived) and event.stream:
            self.streams.append(event.stream)
            self.connection.grant(event.stream, min(self.window, sum(event.message.sizes)))
        elif isinstance(event, DataReceived):
            assert isinstance(event.data, memoryview)
            self.bodies[event.stream] += event.data
            if event.last:
                self.complete.append(event.stream)
        elif isinstance(event, StreamAborted):
            self.aborted.append(event)

    def _closed(self, reason: str, orderly: bool, error: KernelError | None) -> None:
        del reason, orderly
        self.errors.append(error)

    def wake(self) -> None:
        self.link.wake()

    def lane_way(self) -> tuple[Route, tuple[str, int]]:
        raise NotImplementedError

    def broken(self, error: BaseException) -> None:
        self.errors.append(error)

    @property
    def lane(self) -> LaneEnd:
        return self.lanes._ends[LANE]

    def begin(self, sock: socket.socket) -> None:
        """Have the lane, by this socket."""
        self.lanes._making[LANE] = _Making()
        self.lanes._up(LANE, Authenticated(LanePipe(sock), "the other end", b""))  # type: ignore[arg-type]

    def stream(self, body: bytes) -> OutgoingStream:
        """Send a body, which may go by the lane."""
        stream = self.connection.send_streamed(m.Result(1, [0], True, b"", [len(body)]), len(body))
        self.connection.feed(stream, body)
        self.connection.carry(stream.id, self.lane.carrier)
        self.wake()
        return stream

    def close(self) -> None:
        self.lanes.clear()
        self.link.close()


class Both:
    """Two ends, and their lane; or two halves of one that are not ``joined``."""

    def __init__(self, joined: bool = True) -> None:
        self.loop = Loop()
        a, b = socket.socketpair()
        self.sender, self.receiver = End(self.loop, a), End(self.loop, b)
        self.ends = self.sender, self.receiver
        near, other = socket.socketpair()
        self.far = [] if joined else [other, *(pair := socket.socketpair())[1:]]
        halves = (near, other) if joined else (near, pair[0])
        for end, sock in zip(self.ends, halves, strict=True):
            end.begin(sock)

    def close(self) -> None:
        """End all."""
        for end in self.ends:
            end.close()
        self.loop.close()
        for sock in self.far:
            sock.close()

    def until(self, true: Callable[[], Any], seconds: float = 60.0) -> None:
        """Run until something is so."""
        end = self.loop.now() + seconds

        def look() -> None:
            if true() or self.loop.now() > end:
                self.loop.stop()
            else:
                self.loop.call_later(0.002, look)

        look()
        self.loop.run()
        self.loop._stopped = False
        assert true()


@pytest.fixture
def both() -> Iterator[Both]:
    ends = Both()
    yield ends
    ends.close()


def bodies(number: int, size: int) -> list[bytes]:
    """Bodies that all differ."""
    source = random.Random(number)
    return [source.randbytes(size) for _ in range(number)]


def test_many_more_bodies_than_a_lane_takes_at_a_time_arrive(both: Both) -> None:
    """A pull of the arrays of many ranks; what finds no room goes by the session."""
    sent = bodies(600, 20_000)
    streams = [both.sender.stream(body) for body in sent]
    both.until(lambda: len(both.receiver.complete) == len(streams))
    assert sorted(map(bytes, both.receiver.bodies.values())) == sorted(sent)
    assert not any(isinstance(said, m.LaneCut | m.LaneOver) for said in both.receiver.said)
    assert both.receiver.lane.connection.received > limits.LANE_BODIES // 2
    later = both.sender.stream(b"x" * 20_000)
    both.until(lambda: len(both.receiver.complete) == len(streams) + 1)
    assert later.carrier is not None
    assert later.carrier.is_open
    assert not any(end.errors for end in both.ends)


def announce(end: LaneEnd, numbers: Sequence[int]) -> None:
    """Announce bodies on a lane, and send them, whatever an honest end would do."""
    for body in numbers:
        stream = end.connection.send_streamed(m.LaneBody(body, [50]), 50)
        end.connection.feed(stream, bytes(50))
    end.wake()


@pytest.mark.parametrize("numbers", [range(limits.LANE_BODIES + 10), [1000, 1000]], ids=["too many", "twice"])
def test_what_an_end_says_wrongly_on_a_lane_ends_that_and_not_the_session(
    both: Both, numbers: Sequence[int]
) -> None:
    announce(both.sender.lane, numbers)
    both.until(lambda: LANE not in both.receiver.lanes._ends or both.receiver.errors)
    both.sender.connection.send(m.Notice("after that"))
    both.sender.wake()
    both.until(lambda: m.Notice("after that") in both.receiver.said or both.receiver.errors)
    assert not any(end.errors for end in both.ends)


# --- bytes that are lost ---------------------------------------------------------------------------------------


@pytest.fixture
def apart() -> Iterator[Both]:
    """Two ends of which each hears nothing on the lane."""
    ends = Both(joined=False)
    yield ends
    ends.close()


def test_nobody_waits_for_the_bytes_of_a_lane_that_is_over(apart: Both) -> None:
    apart.sender.stream(b"x" * 500_000)
    apart.until(lambda: apart.receiver.lane.incomplete())
    apart.sender.connection.send(m.LaneOver(LANE))  # as the controller would
    apart.sender.wake()
    apart.until(lambda: apart.receiver.aborted)
    (aborted,) = apart.receiver.aborted
    assert aborted.stream == apart.receiver.streams[0]
    assert "the bulk lane by which it came has ended" in aborted.reason
    assert not apart.receiver.complete


def test_what_comes_by_a_lane_that_is_not_known_is_not_waited_for(apart: Both) -> None:
    apart.receiver.lanes._ends.pop(LANE).close()
    apart.sender.stream(b"x" * 500_000)
    apart.until(lambda: apart.receiver.aborted)
    assert apart.receiver.aborted[0].stream == apart.receiver.streams[0]
    assert not any(end.errors for end in apart.ends)


def test_a_body_whose_lane_ends_by_what_its_sender_says_is_not_waited_for(both: Both) -> None:
    both.sender.stream(b"x" * 4 * limits.STREAM_WINDOW)
    both.until(lambda: both.receiver.lane.incomplete())
    announce(both.sender.lane, [1000, 1000])
    both.until(lambda: both.receiver.aborted or both.receiver.complete)
    assert [aborted.stream for aborted in both.receiver.aborted] == both.receiver.streams
    both.until(lambda: LANE not in both.sender.lanes._ends)  # it has lost what it was sent, too
    whole = both.sender.connection.send_streamed(m.Result(1, [0], True, b"", [300_000]), 300_000)
    both.sender.connection.feed(whole, bytes(300_000))
    both.sender.wake()
    both.until(lambda: both.receiver.complete)
    assert not any(end.errors for end in both.ends)


@pytest.mark.parametrize("received", [0, 10**6])
def test_a_lane_whose_other_end_counts_wrongly_is_not_waited_for(apart: Both, received: int) -> None:
    apart.sender.stream(b"x" * 500_000)
    apart.until(lambda: apart.receiver.lane.incomplete())
    apart.receiver.connection.send(m.LaneCut(LANE, received))
    apart.receiver.wake()
    apart.until(lambda: LANE not in apart.sender.lanes._ends or apart.sender.lane._is_tunnel)
    if received:
        apart.until(lambda: apart.receiver.aborted)
    else:
        apart.until(lambda: apart.receiver.complete)


@pytest.fixture(scope="module")
def cluster() -> Iterator[InProcess]:
    """A controller and an engine, which comes by TCP as its clients do."""
    with in_process(1) as running:
        yield running


def bytes_are_lost(*_: object) -> NoReturn:
    """What an end does with what it cannot make sense of."""
    raise RemoteProtocolError("the test does not like it")


ARRAY = "import numpy; x = numpy.ones(8_000_000, 'u1')"


@pytest.mark.parametrize(
    "call",
    [lambda mec: mec.pull("x"), lambda mec: mec.push({"y": np.ones(8_000_000, "u1")})],
    ids=["pull", "push"],
)
def test_a_call_whose_bytes_are_lost_fails_at_once_and_the_next_goes_well(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch, call: Callable[[MultiEngineClient], Any]
) -> None:
    with cluster.mec() as mec:
        mec.execute(ARRAY)
        lanes = sum("have a bulk lane" in line for line in cluster.lines)
        while sum("have a bulk lane" in line for line in cluster.lines) == lanes:
            mec.pull("x")
        with monkeypatch.context() as patched:
            patched.setattr(LaneEnd, "passed", bytes_are_lost)
            with pytest.raises(CompositeError) as caught:
                call(mec)
        ((kind, error, _),) = caught.value.elist
        assert kind is ConnectionError
        assert "did not arrive" in str(error)
        wait_until(lambda: "have lost a bulk lane" in "".join(cluster.lines), "the controller hears of it")
        call(mec)
        assert mec.pull("x")[0].sum() == 8_000_000


def test_a_task_whose_result_is_lost_fails_at_once(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster.tc() as tc:
        lanes = sum("have a bulk lane" in line for line in cluster.lines)
        while sum("have a bulk lane" in line for line in cluster.lines) == lanes:
            tc.map(np.ones, [8_000_000])
        with monkeypatch.context() as patched:
            patched.setattr(LaneEnd, "passed", bytes_are_lost)
            with pytest.raises(ConnectionError, match=r"its result did not arrive. Submit it again"):
                tc.map(np.ones, [8_000_000])
        assert tc.map(np.ones, [8_000_000])[0].sum() == 8_000_000


def test_a_task_whose_arguments_are_lost_gets_them_again(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster.tc() as tc:
        argument = np.ones(8_000_000, "u1")
        lanes = sum("have a bulk lane" in line for line in cluster.lines)
        while sum("have a bulk lane" in line for line in cluster.lines) == lanes:
            tc.map(np.sum, [argument])
        with monkeypatch.context() as patched:
            patched.setattr(LaneEnd, "passed", bytes_are_lost)
            assert tc.map(np.sum, [argument]) == [8_000_000]
        wait_until(lambda: "have lost a bulk lane" in "".join(cluster.lines), "the controller hears of it")


def test_a_connection_for_a_lane_that_cannot_be_taken_is_closed(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(ticket: bytes, sock: socket.socket) -> NoReturn:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(cluster.listener, "on_lane", fails)
    with socket.create_connection(("127.0.0.1", cluster.listener.port), 60) as sock:
        sock.sendall(PREAMBLE + bytes(32))
        assert sock.recv(1) == b""
    wait_until(lambda: "while a connection for a bulk lane was taken" in "".join(cluster.lines), "a line about it")
    with cluster.mec() as mec:
        assert mec.get_ids() == [0]


# --- bytes that nobody wants -----------------------------------------------------------------------------------


def part_of(both: Both, body: int, size: int) -> OutgoingStream:
    """Say, as a controller does, that some bytes of a stream of 50 come by the lane."""
    stream = both.sender.connection.send_streamed(m.Result(1, [0], True, b"", [50]), 50)
    both.sender.connection.feed(stream, LanePart(LANE, body, size))
    both.sender.wake()
    return stream


def is_forgotten(both: Both) -> bool:
    """Whether neither end of the lane knows of a body that is under way."""
    here, there = both.receiver.lane, both.sender.lane
    return not (
        here._by_body or here._by_stream or here._by_lane_stream or there.connection._streams
        or here.connection._incoming
    )  # fmt: skip


@pytest.mark.parametrize("first", [True, False], ids=["which has come", "which is to come"])
def test_a_body_that_was_given_up_behind_its_sender_is_not_kept(both: Both, first: bool) -> None:
    """Its sender has handed all over, so it is the controller that aborts it."""
    both.receiver.window = 20
    if first:
        announce(both.sender.lane, [77])
        both.until(lambda: both.receiver.lane._by_body)
    stream = part_of(both, 77, 20)
    both.until(lambda: both.receiver.lane._by_stream)
    both.sender.connection.abort(stream)
    both.sender.wake()
    both.until(lambda: both.receiver.aborted)
    if not first:
        announce(both.sender.lane, [77])
        both.until(lambda: both.receiver.lane.connection.received)
    both.until(lambda: is_forgotten(both))
    both.receiver.window = 300_000
    both.sender.stream(b"y" * 300_000)
    both.until(lambda: both.receiver.complete)
    both.until(lambda: is_forgotten(both))
    assert not any(end.errors for end in both.ends)


def test_a_body_that_is_refused_when_its_sender_has_handed_all_over_is_not_kept(both: Both) -> None:
    refused = []
    hand_on = both.receiver.lanes.handle

    def handle(event: Event) -> None:
        if isinstance(event, DataReceived) and not refused:
            refused.append(event.stream)
            both.receiver.connection.refuse(event.stream)
        hand_on(event)

    both.receiver.lanes.handle = handle  # type: ignore[method-assign]
    stream = both.sender.stream(bytes(4 * limits.STREAM_WINDOW))
    both.until(lambda: refused)
    assert stream.sent == stream.total
    both.until(lambda: is_forgotten(both))
    assert not any(end.errors for end in both.ends)


def test_a_body_of_two_names_ends_the_lane_and_not_the_session(both: Both) -> None:
    stream = part_of(both, 77, 10)
    both.until(lambda: both.receiver.lane._by_stream)
    both.sender.connection.feed(stream, LanePart(LANE, 78, 10))
    both.sender.wake()
    both.until(lambda: LANE not in both.receiver.lanes._ends)
    assert both.receiver.aborted, "what has been told of will not come"
    assert not any(end.errors for end in both.ends)


@pytest.mark.parametrize("refused", [False, True])
def test_a_lane_that_is_ahead_of_the_session_when_a_body_is_given_up_keeps_nothing(
    both: Both, refused: bool
) -> None:
    out = both.sender.lane.connection.send_streamed(m.LaneBody(77, [50]), 50)
    both.sender.lane.wake()
    both.until(lambda: both.receiver.lane._by_body)
    both.sender.lane.connection.abort(out)
    both.sender.lane.wake()
    both.until(lambda: not both.receiver.lane._by_lane_stream)
    stream = part_of(both, 77, 20)
    both.until(lambda: both.receiver.lane._by_stream)
    if refused:
        both.receiver.connection.refuse(both.receiver.streams[0])
    both.sender.connection.abort(stream)
    both.sender.wake()
    both.until(lambda: is_forgotten(both))
    assert is_forgotten(both)
    assert len(both.receiver.aborted) == (0 if refused else 1)
    assert not any(end.errors for end in both.ends)


def test_a_ticket_that_comes_while_it_is_looked_for_is_taken() -> None:
    loop, ticket = Loop(), bytes(range(TICKET_BYTES))
    identity = Identity.create(time.time())
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far = server.accept()[0]
        far.setblocking(False)
        pipe = TlsPipe(far, TlsSession.listener(identity))
        hear, taken, failed = pipe.hear_plain, [], []
        to_send = [PREAMBLE + ticket]

        def late(size: int, *, keep: bool = False) -> bytes:
            data = hear(size, keep=keep)
            while to_send:
                near.sendall(to_send.pop())
                select.select([far], [], [], 20)
            return data

        pipe.hear_plain = late  # type: ignore[method-assign]
        negotiation = ListenNegotiation(
            loop, pipe, identity.fingerprint, lambda _: pytest.fail("a lane"), lambda *_: None, failed.append,
            on_lane=lambda ticket, _: taken.append(ticket),
        )  # fmt: skip
        negotiation.catch_up()
        negotiation.catch_up()
        assert (taken, failed) == ([ticket], [])
        pipe.close()
    loop.close()
