"""What debuggers say on its way up, and lines on their way down, at one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from ipmpi.engine.agent.debuggers import Debuggers
from ipmpi.protocol import messages as m, rankmessages as rm
from ipmpi.protocol.debugging import PROMPT


class Local:
    """Ranks of this node keep the lines that they get."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.lines: list[tuple[int, str | None]] = []

    def debugger_line(self, command: int, text: str | None) -> None:
        self.lines.append((command, text))


class Below:
    """The agent of ranks 2 and 3."""

    ranks = (2, 3)

    def __init__(self) -> None:
        self.connection = self
        self.sent: list[Any] = []

    def send(self, message: m.AnyMessage) -> None:
        self.sent.append(message)

    def wake(self) -> None:
        pass


class Node:
    """Notes the order in which things go up."""

    def __init__(self) -> None:
        self.output = self
        self.up: list[Any] = []
        self.local = {0: Local(0), 1: Local(1)}
        self.children = [Below()]

    def flush(self, command: int) -> None:
        self.up.append(f"output of {command}")

    def send_up(self, message: m.AnyMessage) -> None:
        self.up.append(message)

    def by_peer(self, ranks: Sequence[int]) -> list[tuple[Below, list[int]]]:
        found = [rank for rank in ranks if rank in Below.ranks]
        return [(self.children[0], found)] if found else []


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def debuggers(node: Node) -> Debuggers:
    return Debuggers(cast(Any, node))


def test_output_goes_before_what_a_debugger_says(node: Node, debuggers: Debuggers) -> None:
    debuggers.told(cast(Any, node.local[1]), 77, rm.DebuggerTold(4, PROMPT, "text", "(Pdb) ", "a.py:1 in f"))
    said = m.DebuggerSaid(77, 1, PROMPT, "text", "(Pdb) ", "a.py:1 in f")
    assert node.up == ["output of 77", said]
    debuggers.from_below(said)
    assert node.up[2:] == ["output of 77", said]


def test_a_line_goes_to_the_ranks_that_are_named(node: Node, debuggers: Debuggers) -> None:
    debuggers.line(m.DebuggerLine(77, [1, 3], "n\n"))
    assert node.local[0].lines == []
    assert node.local[1].lines == [(77, "n\n")]
    assert node.children[0].sent == [m.DebuggerLine(77, [3], "n\n")]


def test_with_another_controller_user_code_goes_on_everywhere(node: Node, debuggers: Debuggers) -> None:
    debuggers.nobody_is_there()
    assert [local.lines for local in node.local.values()] == [[(0, None)], [(0, None)]]
    assert node.children[0].sent == [m.DebuggerLine(0, [2, 3], None)]
