"""Peers of which nothing is heard: an engine set has a process for its link, a client has user code beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.sessions import PeerSession, Sessions
from ipmpi.protocol.handshake import Hello
from ipmpi.protocol.permissions import CONTROLLER_RECEIVES
from ipmpi.transport.dial.negotiate import Authenticated
from ipmpi.transport.loop import Loop


class Silent:
    """A pipe that takes everything and brings nothing, and a handshake that ends well."""

    files = None

    def receive(self) -> bytes:
        return b""

    def send(self, _buffers: object) -> None:
        pass

    def flush(self) -> bool:
        return True

    def fileno(self) -> None:
        return None

    write_fileno = fileno

    def close(self) -> None:
        pass

    def welcome(self, *_: object) -> bytes:
        return b"welcome"


class Controller:
    """Sessions whose peers say hello and nothing more, and what the log says of them."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.lines: list[str] = []
        self.sessions = Sessions(
            loop, dict(CONTROLLER_RECEIVES), lambda _: None, lambda *_: None, lambda *_: None, lambda _: True,
            self.log,
        )  # fmt: skip

    def log(self, line: str) -> None:
        self.lines.append(line)
        self.loop.stop()

    def admit(self, role: str, session: bytes = b"") -> PeerSession:
        peer: Any = Silent()
        hello = Hello((1,), "test", role, b"n" * 32, b"p" * 32, session, 0, "")
        self.sessions.admit(Authenticated(peer, role, b""), hello, peer)
        return self.sessions.by_key[max(self.sessions.by_key)]


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    monkeypatch.setattr(limits, "PING_INTERVAL", 0.02)
    monkeypatch.setattr(limits, "SILENCE", 0.1)
    monkeypatch.setattr(limits, "SILENCE_OF_USER_CODE", 60.0)
    loop = Loop()
    yield Controller(loop)
    loop.close()


@pytest.mark.parametrize("role", ["mec", "tc", "monitor"])
def test_a_silent_engine_set_is_missed_before_a_silent_client(controller: Controller, role: str) -> None:
    client, engines = controller.admit(role), controller.admit("engine")
    controller.loop.call_later(10.0, controller.loop.stop)
    controller.loop.run()
    assert engines.link is None
    (line,) = controller.lines
    assert "engine 2" in line
    assert client.link is not None
    assert client.link.is_open


def test_a_set_of_the_journal_keeps_its_token(controller: Controller) -> None:
    """So the journal knows it, even if this controller is killed before it has written that the set is back."""
    controller.sessions.sets = frozenset([b"t" * 16])
    back = controller.admit("engine", b"t" * 16)
    assert back.token == back.former == b"t" * 16
    connection = back.connection
    assert controller.admit("engine", b"t" * 16) is back, "the answer was lost: it says hello again"
    assert back.connection is not connection, "which it knows nothing of"


def test_other_sets_get_tokens_of_their_own(controller: Controller) -> None:
    controller.sessions.sets = frozenset([b"t" * 16])
    new, unknown = controller.admit("engine"), controller.admit("engine", b"u" * 16)
    client = controller.admit("mec", b"t" * 16)
    assert not {new.token, unknown.token, client.token} & {b"t" * 16, b"u" * 16}
