"""Peers made by hand on the Unix socket of a controller: they send the files that a test wants them to send."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from ipmpi.furl import Furl
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, CreditReceived, Event, MessageReceived
from ipmpi.protocol.handshake import DiallerHandshake, Welcome
from ipmpi.transport.dial.local import socket_name
from ipmpi.transport.localpipe import LocalPipe
from ipmpi.transport.pipes import PipeClosed
from tests.security.wire import EVERY_MESSAGE

PATIENCE = 20.0


class LocalMember:
    """A peer that was let in by the Unix socket.

    Attributes:
        sock: the socket.
        connection: what it says, and hears.
        events: what it has heard.
        is_ended: whether the controller has closed the connection.
    """

    def __init__(self, furl: Furl) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(socket_name(furl.fingerprint, furl.hints[0][1]))
        self._pipe = LocalPipe(self.sock)
        self.connection = Connection(EVERY_MESSAGE)
        self.connection.files = self._pipe.files
        # Tests also send frames past the connection, which it could not count.
        self.connection._outbox.acknowledge = lambda received: None  # type: ignore[method-assign]
        self.events: list[Event] = []
        self.is_ended = False
        self._wait(lambda: self._pipe.hear() and self._pipe.secure())
        handshake = DiallerHandshake(furl.role, furl.secret, self._pipe.binding(furl.fingerprint), "a test")
        self._pipe.send([handshake.hello()])
        self._pipe.flush()
        answer: list[Any] = []
        while not answer:
            self._wait(lambda: self._pipe.hear())
            if (found := handshake.receive(self._pipe.heard())) is not None:
                answer.append(found)
        assert isinstance(answer[0], Welcome)
        self._hear(handshake.leftover)

    def _wait(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end
            select.select([self.sock], [], [], 0.05)

    def _hear(self, data: Any) -> None:
        self.events += list(self.connection.receive_data(data))

    def _step(self) -> None:
        try:
            while self.connection.wants_to_send and self._pipe.flush():
                self._pipe.send(self.connection.data_to_send())
            self._pipe.flush()
            self._hear(self._pipe.receive())
        except PipeClosed:
            self.is_ended = True

    def until(self, true: Callable[[], object]) -> None:
        """Send and hear until something is true."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end
            if not self.is_ended:
                select.select([self.sock], [], [], 0.01)
                self._step()

    def hear(self, kind: type[Any]) -> MessageReceived:
        """The next message of a kind; what came before it is dropped."""
        found: list[MessageReceived] = []

        def came() -> bool:
            while self.events and not found:
                event = self.events.pop(0)
                if isinstance(event, MessageReceived) and isinstance(event.message, kind):
                    found.append(event)
            return bool(found)

        self.until(came)
        return found[0]

    def has_credit(self) -> bool:
        """Whether it has been given any; what came before it is dropped."""
        while self.events:
            if isinstance(self.events.pop(0), CreditReceived):
                return True
        return False

    def send_raw(self, data: bytes, files: list[int]) -> None:
        """Send bytes past the connection, with descriptors."""
        self.sock.setblocking(True)
        socket.send_fds(self.sock, [data], files)
        self.sock.setblocking(False)

    def answers(self) -> bool:
        """Whether the controller answers a question."""
        self.connection.send(m.GetIds(99))
        self.until(lambda: self.is_ended or any(_is_reply(event) for event in self.events))
        return not self.is_ended

    def close(self) -> None:
        """Close the socket."""
        self._pipe.close()


def _is_reply(event: Event) -> bool:
    return isinstance(event, MessageReceived) and isinstance(event.message, m.Reply)
