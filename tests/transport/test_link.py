"""A link pumps one pipe into one connection: over a socket pair, in one loop, without a sleep."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, get_args

import pytest

from ipmpi import limits
from ipmpi.errors import InternalError, KernelError, ProtocolError, RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, Event, MessageReceived
from ipmpi.protocol.liveness import Liveness
from ipmpi.transport.link import Link
from ipmpi.transport.loop import Loop
from tests.socketpipe import SocketPipe

ALL: frozenset[type[m.Message]] = frozenset(get_args(m.AnyMessage))


class End:
    """A link whose user grants all streams and notes what it hears."""

    def __init__(self, loop: Loop, sock: socket.socket, table: frozenset[type[m.Message]] = ALL) -> None:
        self.loop = loop
        self.connection = Connection(table)
        self.heard: list[Any] = []
        self.body = bytearray()
        self.closed: list[tuple[str, bool, ProtocolError | None]] = []
        self.until: Callable[[], bool] = bool
        self.link = Link(loop, SocketPipe(sock), self.connection, self._event, self._closed)

    def _event(self, event: Event) -> None:
        if isinstance(event, MessageReceived):
            self.heard.append(event.message)
            if event.stream:
                self.connection.grant(event.stream, sum(getattr(event.message, "sizes", [])))
        elif isinstance(event, DataReceived):
            self.body += event.data
        if self.until():
            self.loop.stop()

    def _closed(self, reason: str, orderly: bool, error: ProtocolError | None) -> None:
        self.closed.append((reason, orderly, error))
        self.loop.stop()

    def send(self, message: m.AnyMessage, body: list[Any] | None = None) -> None:
        self.connection.send(message, body or [])
        self.link.wake()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def ends(loop: Loop) -> Iterator[tuple[End, End]]:
    a, b = socket.socketpair()
    one, two = End(loop, a), End(loop, b)
    yield one, two
    one.link.close()
    two.link.close()


def test_last_words_are_heard_though_nothing_can_be_sent_any_more(loop: Loop) -> None:
    """A peer says goodbye and closes, with something unread; what was to be sent to it fails first."""
    a, b = socket.socketpair()
    peer = End(loop, b)
    a.sendall(b"".join(bytes(part) for part in said(m.Goodbye("enough"))))
    b.send(b"unread")
    a.close()
    peer.send(m.GetIds(1))
    peer.link._write()  # before the loop has had a look at what can be read
    loop.run()
    assert peer.heard == [m.Goodbye("enough")]
    assert len(peer.closed) == 1


def said(message: m.AnyMessage) -> list[Any]:
    connection = Connection(ALL)
    connection.send(message)
    return list(connection.data_to_send())


def test_messages_both_ways(loop: Loop, ends: tuple[End, End]) -> None:
    a, b = ends
    for number in range(500):
        a.send(m.GetIds(number))
        b.send(m.Reply(number, [number]))
    a.until = b.until = lambda: len(a.heard) == len(b.heard) == 500
    loop.run()
    assert b.heard == [m.GetIds(number) for number in range(500)]
    assert a.heard == [m.Reply(number, [number]) for number in range(500)]


def test_large_body_and_a_message_that_overtakes_it(loop: Loop, ends: tuple[End, End]) -> None:
    a, b = ends
    body = bytes(range(256)) * (20 * limits.MIB // 256)
    a.send(m.Result(1, [0], True, b"", [len(body)]), [body])
    overtook: list[int] = []

    def progress() -> bool:
        if len(b.body) > limits.MIB and not overtook and len(b.heard) == 1:
            overtook.append(-1)
            a.send(m.GetIds(2))
        if len(b.heard) == 2 and overtook == [-1]:
            overtook[0] = len(b.body)
        return len(b.body) == len(body) and len(b.heard) == 2

    b.until = progress
    loop.run()
    assert b.body == body
    assert overtook[0] < 8 * limits.MIB


def test_other_end_closes(loop: Loop, ends: tuple[End, End]) -> None:
    a, b = ends
    a.send(m.Goodbye("done"))
    a.link.close("enough")
    assert a.closed == [("enough", True, None)]
    assert not a.link.is_open
    while not b.closed:
        loop._stopped = False  # closing ``a`` has stopped it
        loop.run()
    assert b.heard == [m.Goodbye("done")], "what was queued goes out before"
    assert b.closed[0][1]
    a.link.wake()
    a.link.close()
    assert len(a.closed) == 1


def test_peer_that_breaks_the_rules_is_cut(loop: Loop) -> None:
    x, y = socket.socketpair()
    end = End(loop, x)
    y.send(b"GET / HTTP/1.1\r\n\r\n")
    loop.run()
    ((reason, orderly, error),) = end.closed
    assert "does not speak ipmpi's protocol" in reason
    assert not orderly
    assert isinstance(error, RemoteProtocolError)
    y.close()


def test_closing_in_the_middle_of_events_ends_them(loop: Loop, ends: tuple[End, End]) -> None:
    a, b = ends
    for number in range(10):
        a.send(m.GetIds(number))

    def enough() -> bool:
        if len(b.heard) == 3:
            b.link.close("enough")
        return False

    b.until = enough
    loop.run()
    assert b.heard == [m.GetIds(number) for number in range(3)]
    assert b.closed == [("enough", True, None)]


def test_what_arrived_before_the_link_was_made(loop: Loop, ends: tuple[End, End]) -> None:
    a, _ = ends
    other = Connection(ALL)
    other.send(m.GetIds(7))
    data = b"".join(other.data_to_send())
    a.link.feed(data[:5])
    a.link.feed(b"")
    a.link.feed(data[5:])
    assert a.heard == [m.GetIds(7)]


def test_a_bug_in_one_link_ends_that_link_only(loop: Loop, ends: tuple[End, End], caplog: Any) -> None:
    left, right = ends

    def broken(event: Event) -> None:
        raise ZeroDivisionError("a bug")

    right.link._on_event = broken
    left.send(m.GetIds(1))
    loop.run()
    assert "an error in ipmpi" in right.closed[0][0]
    assert "please report" in caplog.text


def test_who_breaks_the_rules_is_told_why(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    strict = End(loop, ours, frozenset({m.GetIds, m.Goodbye}))
    other = End(loop, theirs)
    other.send(m.Kill(1, None))
    other.until = lambda: bool(other.heard)
    while not other.heard:
        loop._stopped = False
        loop.run()
    assert "may not send Kill" in other.heard[0].reason
    assert isinstance(strict.closed[0][2], RemoteProtocolError)
    other.link.close()


def test_what_arrived_is_acknowledged_after_a_moment(loop: Loop, ends: tuple[End, End]) -> None:
    """So that who sent an array, and says nothing more, does not keep it."""
    a, b = ends
    a.send(m.GetIds(1))
    b.until = lambda: False

    def look() -> None:
        if len(a.connection._outbox) or not b.heard:
            loop.call_later(limits.ACK_DELAY / 10, look)
        else:
            loop.stop()

    look()
    loop.run()
    assert b.heard == [m.GetIds(1)]


@pytest.mark.parametrize("reads_later", [True, False])
def test_nothing_is_read_from_who_asks_and_does_not_read(loop: Loop, reads_later: bool) -> None:
    """Its questions wait where they are, so that its answers do not fill our memory."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    answer = bytes(10_000)
    connection = Connection(ALL)
    most = 0

    def asked(event: Event) -> None:
        nonlocal most
        assert isinstance(event, MessageReceived)
        connection.send(m.Result(1, [0], True, b"", [len(answer)]), [answer])
        link.wake()
        most = max(most, connection.control_backlog)

    def closed(reason: str, orderly: bool, error: ProtocolError | None) -> None:
        loop.stop()

    link = Link(loop, SocketPipe(ours), connection, asked, closed, pause_above=limits.MIB)
    peer = Connection(ALL)
    for number in range(2000):
        peer.send(m.GetIds(number))
    questions = deque(bytes(part) for part in peer.data_to_send(1 << 30))
    answers = 0
    reads = False

    def turn() -> None:
        nonlocal answers, reads
        try:
            while questions:
                count = theirs.send(questions[0])
                questions[0] = questions[0][count:]
                if not questions[0]:
                    questions.popleft()
        except BlockingIOError:
            reads = True  # it has asked all that it could
        reads = reads or not questions
        if reads and reads_later:
            with contextlib.suppress(BlockingIOError):
                while data := theirs.recv(1 << 20):
                    answers += sum(isinstance(e, MessageReceived) for e in peer.receive_data(data))
            questions.extend(bytes(part) for part in peer.data_to_send())
        if answers == 2000 or (not reads_later and reads):
            loop.stop()
        loop.call_later(0.002, turn)

    turn()
    loop.run()
    assert most < 1.1 * limits.MIB
    theirs.close()
    link.close()


@pytest.mark.parametrize("where", ["event", "written", "watch"])
def test_what_nobody_foresaw_ends_the_session_and_both_ends_are_told(
    where: str, loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("an unforeseen one")

    x, y = socket.socketpair()
    other = End(loop, y)
    if where == "watch":
        monkeypatch.setattr(limits, "PING_INTERVAL", 0.01)
    one = End(loop, x)
    if where == "event":
        one.until = broken  # type: ignore[assignment]
    elif where == "watch":
        monkeypatch.setattr(one.link._liveness, "is_lost", broken)
    else:
        flush = one.link.pipe.flush
        monkeypatch.setattr(
            one.link.pipe, "flush", lambda: (monkeypatch.setattr(one.link.pipe, "flush", flush), 1 / 0)
        )
    other.send(m.GetIds(1))
    if where == "written":
        one.send(m.GetIds(1))
    while not (one.closed and other.closed):
        loop._stopped = False
        loop.run()
    ((reason, orderly, error),) = one.closed
    assert isinstance(error, InternalError)
    assert not orderly
    assert "ZeroDivisionError" in reason
    (goodbye,) = [message for message in other.heard if isinstance(message, m.Goodbye)]
    assert goodbye.fault
    assert goodbye.reason == reason
    assert "Traceback" in caplog.text
    other.link.close()


def test_an_owner_who_cannot_deal_with_a_break_is_told_of_an_end(loop: Loop) -> None:
    told: list[KernelError | None] = []

    def closed(reason: str, orderly: bool, error: KernelError | None) -> None:
        told.append(error)
        if error is None:
            raise ZeroDivisionError

    x, y = socket.socketpair()
    Link(loop, SocketPipe(x), Connection(ALL), lambda event: None, closed)
    y.close()
    loop.call_later(0.01, loop.stop)
    loop.run()
    first, second = told
    assert first is None
    assert isinstance(second, InternalError)


def test_an_end_is_told_although_the_pipe_cannot_say_goodbye(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where memory is short: what broke the link breaks its goodbye, too."""

    def broken(*_: object) -> NoReturn:
        raise MemoryError

    x, y = socket.socketpair()
    one = End(loop, x)
    monkeypatch.setattr(one.link.pipe, "close", broken)
    monkeypatch.setattr(one.link.pipe, "send", broken)
    one.send(m.GetIds(1))
    loop.call_later(5, loop.stop)
    loop.run()
    ((reason, _, error),) = one.closed
    assert isinstance(error, InternalError)
    assert "no memory left" in reason
    x.close()
    y.close()


@pytest.mark.parametrize("answers", [True, False])
def test_who_was_kept_from_reading_looks_before_it_gives_up(loop: Loop, answers: bool) -> None:
    """A library may hold the GIL for longer than the silence that is allowed."""
    a, b = socket.socketpair()
    end = End(loop, a)
    if answers:
        b.sendall(b"".join(bytes(part) for part in said(m.GetIds(1))))
    end.link._liveness = Liveness(loop.now() - limits.SILENCE)
    end.link._watch()
    assert end.link.is_open == answers
    assert end.heard == [m.GetIds(1)] * answers
    end.link.close()
    b.close()
