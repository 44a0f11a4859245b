"""Who hears debuggers, and who may answer them."""

from __future__ import annotations

from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Send
from ipmpi.errors import MessageSizeError
from ipmpi.protocol import messages as m
from ipmpi.protocol.debugging import LEFT, PROMPT, TEXT

ALICE, BOB, SET, OTHER = 1, 2, 10, 11


class Stage:
    """Engines 0-2 in one set, 3-4 in another; Alice's command 5 runs on 1 and 3."""

    def __init__(self) -> None:
        self.router = Router(100)
        for key, count in ((SET, 3), (OTHER, 2)):
            infos = [m.EngineInfo(rank, -1, "n1", 100 + rank) for rank in range(count)]
            self.router.register(key, m.Register(infos, "MPI", "3.11"))
        self.router.command(ALICE, m.Command(5, [1, 3], "execute", "x", b""), [], 0)
        self.router.command(BOB, m.Command(5, [0], "execute", "x", b""), [], 0)
        work = {to: message for to, message in self.sent(m.Dispatch) if 1 in message.ranks or to == OTHER}
        self.serial = work[SET].id

    def sent(self, kind: type[Any]) -> list[tuple[int, Any]]:
        return [(e.to, e.message) for e in self.router.flush() if isinstance(e, Send) and type(e.message) is kind]

    def says(self, key: int, rank: int, state: int = PROMPT, text: str = "text") -> None:
        self.router.debuggers.said(key, m.DebuggerSaid(self.serial, rank, state, text, "(Pdb) ", "a.py:1 in f"))

    def types(self, client: int, *engines: int, text: str | None = "n\n") -> list[tuple[int, Any]]:
        self.router.debuggers.line(client, m.DebuggerLine(5, list(engines), text))
        return self.sent(m.DebuggerLine)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_only_the_client_of_the_command_hears_its_debugger_and_answers_it(stage: Stage) -> None:
    stage.says(SET, 1)
    assert stage.sent(m.DebuggerSaid) == [(ALICE, m.DebuggerSaid(5, 1, PROMPT, "text", "(Pdb) ", "a.py:1 in f"))]
    assert stage.types(BOB, 1) == []
    assert stage.types(ALICE, 1) == [(SET, m.DebuggerLine(stage.serial, [1], "n\n"))]
    assert stage.types(ALICE, 1) == []  # one line for each prompt


def test_a_line_for_several_goes_once_to_each_set(stage: Stage) -> None:
    stage.says(SET, 1)
    stage.says(OTHER, 0)
    assert stage.types(ALICE, 1, 3, 4) == [
        (SET, m.DebuggerLine(stage.serial, [1], "n\n")),
        (OTHER, m.DebuggerLine(stage.serial, [0], "n\n")),
    ]


def test_a_line_is_dropped_where_no_debugger_waits(stage: Stage) -> None:
    assert stage.types(ALICE, 0, 1, 77) == []
    stage.says(SET, 1)
    stage.says(SET, 1, LEFT)
    assert stage.types(ALICE, 1) == []
    stage.says(SET, 1)
    stage.router.result(SET, m.Result(stage.serial, [1], True, b""), [], 0)
    stage.router.debuggers.line(ALICE, m.DebuggerLine(6, [1], "n\n"))
    stage.router.ranks_lost(OTHER, [0], "gone")
    assert stage.types(ALICE, 3) == []


def test_a_rank_that_does_not_run_the_command_is_told_to_go_on(stage: Stage) -> None:
    stage.says(SET, 2)
    assert stage.sent(m.DebuggerLine) == [(SET, m.DebuggerLine(stage.serial, [2], None))]
    stage.says(SET, 2, TEXT)
    assert stage.sent(m.DebuggerLine) == []


def test_user_code_goes_on_when_the_client_is_gone(stage: Stage) -> None:
    stage.says(SET, 1)
    stage.sent(m.DebuggerSaid)
    stage.router.client_lost(ALICE)
    assert stage.sent(m.DebuggerLine) == [(SET, m.DebuggerLine(stage.serial, [1], None))]
    stage.says(OTHER, 0)  # it comes to its breakpoint later
    assert stage.router.flush() == [Send(OTHER, m.DebuggerLine(stage.serial, [0], None))]


def test_lines_and_texts_are_bounded(stage: Stage) -> None:
    with pytest.raises(MessageSizeError, match="a line for a debugger has at most 16384 characters"):
        stage.types(ALICE, 1, text="x" * (limits.DEBUGGER_LINE + 2))
    long = "x" * 2 * limits.DEBUGGER_TEXT
    most = 2 * limits.OUTPUT // len(long) + 2
    for _ in range(most):
        stage.says(SET, 1, TEXT, long + "y")
    texts = [message.text for _, message in stage.sent(m.DebuggerSaid)]
    assert len(texts) == most
    assert max(map(len, texts)) == len(long)
    assert texts[-1] == ""
