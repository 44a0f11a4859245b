"""Where messages of clients go, and what they are refused with."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi.controller.clientmessages import ClientMessages
from ipmpi.controller.interfaces import CLIENT_INTERFACES, Interface
from ipmpi.controller.service import ControllerService
from ipmpi.errors import ClientError, FurlEnded
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import MessageReceived
from ipmpi.protocol.permissions import LANE_ENDS
from ipmpi.transport.loop import Loop

BEFORE = LANE_ENDS | {m.Goodbye, m.CommandAgain, m.CommandsTold}
"""What is handled before it is asked what a client's message is about."""


@pytest.fixture
def service() -> Iterator[ControllerService]:
    loop = Loop()
    yield ControllerService(loop, lambda line: None)
    loop.close()


@pytest.mark.parametrize("interface", CLIENT_INTERFACES, ids=lambda interface: interface.role)
def test_all_that_a_client_may_send_goes_somewhere(service: ControllerService, interface: Interface) -> None:
    messages = service._of_clients
    assert [kind.__name__ for kind in interface.receives - BEFORE if not messages.takes(kind)] == []
    assert not messages.takes(m.Register), "that is of engine sets"


class Peer:
    """A client's session."""

    def __init__(self, role: str = "tc") -> None:
        self.key, self.role, self.refused = 5, role, list[int]()

    def refuse(self, stream: int) -> None:
        self.refused.append(stream)


class Stage:
    """The router and the farm note what they are called with; ``refuses``: what the farm raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.sent: list[tuple[int, m.AnyMessage]] = []
        self.ended: list[str] = []
        self.refuses: Exception | None = None
        self.spent: Exception | None = None
        self.is_in_farm = True
        router: Any = SimpleNamespace(
            registry=SimpleNamespace(engines={}),
            command=self.note("command"),
            body_again=self.note("of commands"),
            debuggers=None,
        )
        again = self.note("of tasks")
        bodies = SimpleNamespace(again=lambda *given: again(*given) is None and self.is_in_farm)
        farm: Any = SimpleNamespace(define=self.note("define"), forget=self.note("forget"), bodies=bodies)
        journal: Any = SimpleNamespace(
            submit=self.note("submit"), told=self.note("told"), named=SimpleNamespace(abort=self.note("abort"))
        )
        allowed = {"tc": Interface("tc", frozenset({m.SubmitTasks, m.TaskStatus}), self.permits)}
        self.messages = ClientMessages(
            router, farm, journal, allowed,
            {m.TaskStatus: lambda session, message: {"queued": session.key}},
            {m.Interrupt: self.note("interrupt")},
            check_use=self.check_use, send=lambda key, message: self.sent.append((key, message)),
            end=lambda session, reason: self.ended.append(reason), commanded=self.note("commanded"),
        )  # fmt: skip

    def note(self, name: str) -> Any:
        def call(*given: Any) -> None:
            self.calls.append((name, *given))
            if self.refuses is not None:
                raise self.refuses

        return call

    def check_use(self, key: int, message: m.AnyMessage) -> None:
        del key, message
        if self.spent is not None:
            raise self.spent

    def permits(self, message: m.AnyMessage) -> bool:
        return not isinstance(message, m.TasksOpen) and getattr(message, "id", 0) != 13

    def hear(self, message: m.AnyMessage, stream: int = 0) -> Peer:
        peer: Any = Peer()
        self.messages.heard(peer, MessageReceived(message, [b"body"], stream))
        assert isinstance(peer, Peer)
        return peer


def test_a_question_gets_a_reply_with_its_number() -> None:
    stage = Stage()
    stage.hear(m.TaskStatus(7))
    assert stage.sent == [(5, m.Reply(7, {"queued": 5}))]


def test_bodies_and_streams_go_along() -> None:
    stage = Stage()
    options = m.TaskOptions(b"", "label")
    submit = m.SubmitTasks(1, options, b"", [4])
    define = m.DefineFunction(bytes(16), 0, 4, [4])
    command = m.Command(3, [0], "execute", b"", [4])
    line = m.Interrupt(4, [0], None)
    for message in (submit, define, command, line):
        stage.hear(message, 9)
    assert stage.calls == [
        ("submit", 5, submit, [b"body"], 9),
        ("define", 5, define, [b"body"]),
        ("command", 5, command, [b"body"], 9),
        ("commanded",),
        ("interrupt", 5, line),
    ]
    assert not stage.sent


@pytest.mark.parametrize("is_in_farm", [True, False])
def test_a_body_that_is_sent_again_is_one_of_a_task_or_else_of_a_command(is_in_farm: bool) -> None:
    stage = Stage()
    stage.is_in_farm = is_in_farm
    again = m.BodyAgain(1, [4])
    stage.hear(again, 9)
    of_commands = [] if is_in_farm else [("of commands", 5, again, 9)]
    assert stage.calls == [("of tasks", 5, again, 9), *of_commands]


def test_what_is_refused_is_answered_and_its_body_is_not_waited_for() -> None:
    stage = Stage()
    stage.refuses = ClientError("no")
    peer = stage.hear(m.SubmitTasks(1, m.TaskOptions(b"", "label"), b"", [4]), 9)
    assert (peer.refused, stage.sent) == ([9], [(5, m.Refused(1, "ClientError", "no"))])
    assert not stage.ended


def test_a_client_that_waits_for_no_reply_is_told_by_the_end_of_its_session() -> None:
    stage = Stage()
    stage.refuses = ClientError("no")
    stage.hear(m.DefineFunction(bytes(16), 0, 4, [4]))
    assert (stage.ended, stage.sent) == (["no"], [])


def test_what_an_interface_or_a_furl_does_not_allow_reaches_nothing() -> None:
    stage = Stage()
    stage.hear(m.TaskStatus(13))
    said = "the 'tc' interface does not permit this TaskStatus"
    assert stage.sent == [(5, m.Refused(13, "SecurityError", said))]
    stage.hear(m.TasksOpen([], True))
    assert [call[0] for call in stage.calls] == ["told"], "what clients say by themselves is not asked for"
    stage.spent = FurlEnded("used up")
    stage.hear(m.SubmitTasks(1, m.TaskOptions(b"", "label"), b"", [4]))
    assert stage.sent[-1] == (5, m.Refused(1, "FurlEnded", "used up"))
    assert len(stage.calls) == 1
