"""What the far end of an ssh session does with connections when the session has ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from ipmpi import limits
from ipmpi.protocol import sshmessages as m
from ipmpi.protocol.connection import Connection, MessageReceived
from ipmpi.protocol.greeting import GreetingReader
from ipmpi.protocol.permissions import LAPTOP_RECEIVES
from ipmpi.transport.loop import Loop
from ipmpi.transport.ssh.relay import LingeringSockets, RelayServer
from tests.transport.ssh.ends import run


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


class Controller:
    """A controller's end of a connection, and the relay's."""

    def __init__(self) -> None:
        self.sock, self.relays = socket.socketpair()
        self.relays.setblocking(False)
        self.sock.setblocking(False)

    def is_closed(self) -> bool:
        """Whether the relay has closed its end."""
        try:
            return self.sock.recv(1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        self.sock.close()
        self.relays.close()


@pytest.fixture
def controllers() -> Iterator[list[Controller]]:
    found = [Controller(), Controller()]
    yield found
    for controller in found:
        controller.close()


def keeper(loop: Loop, controllers: list[Controller], output: int) -> LingeringSockets:
    """A keeper that has just begun."""
    made = LingeringSockets(loop, output, loop.stop)
    for controller in controllers:
        made.keep(controller.relays)
    made.begin()
    return made


def test_the_program_on_the_laptop_has_ended(loop: Loop, controllers: list[Controller]) -> None:
    reader, writer = os.pipe()
    keeper(loop, controllers, writer)
    loop.run()
    os.close(reader)
    assert all(controller.is_closed() for controller in controllers)


def test_ssh_has_died_and_clients_come_back(loop: Loop, controllers: list[Controller]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    keeper(loop, controllers, writer)
    seen = []

    def come_back() -> None:
        seen.append([controller.is_closed() for controller in controllers])
        for controller in controllers:
            controller.sock.send(b"what the controller says before it closes")
            controller.sock.close()

    loop.call_later(0.4, come_back)
    loop.run()
    assert seen == [[False, False]], "they were held until their controllers closed them"


def test_ssh_has_died_and_nobody_comes_back(
    loop: Loop, controllers: list[Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEASE_AFTER_SILENCE", 0.1)
    reader, writer = os.pipe()
    os.close(reader)
    keeper(loop, controllers, writer)
    loop.run()
    assert all(controller.is_closed() for controller in controllers)


def test_a_laptop_that_asks_and_does_not_read_is_not_read_from(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    text = "x" * limits.SSH_TEXT
    server = RelayServer(loop, os.dup(ours.fileno()), os.dup(ours.fileno()), "ipmpi", [], lambda role, name: text)
    ours.close()
    laptop = Connection(LAPTOP_RECEIVES, resumable=False)
    count = 1000
    for number in range(1, count + 1):
        laptop.send(m.ReadFurl(number, "mec"))
    questions = b"".join(laptop.data_to_send(1 << 30))
    assert theirs.send(questions) == len(questions)
    link = server._link.connection
    # The system takes some of the answers, and what may wait here is full.
    run(loop, lambda: link.control_backlog > limits.SSH_BACKLOG, "answers that wait")
    turns = iter(range(20))
    run(loop, lambda: next(turns, None) is None, "twenty turns")
    assert link.control_backlog < 1.2 * limits.SSH_BACKLOG
    reader, rest = GreetingReader(), None
    answers: list[object] = []

    def read() -> bool:
        nonlocal rest
        try:
            data = theirs.recv(1 << 20)
        except BlockingIOError:
            return False
        rest = reader.receive(data) if rest is None else data
        answers.extend(event for event in laptop.receive_data(rest or b"") if isinstance(event, MessageReceived))
        return len(answers) == count

    run(loop, lambda: len(answers) == count or read(), "all answers")
    theirs.close()
    run(loop, lambda: not server._link.is_open, "its end")
