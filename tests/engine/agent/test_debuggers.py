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
        self.debug_port = self
        self.channel: list[m.ChannelMessage] = []

    def heard(self, message: m.ChannelMessage, _send_up: object) -> None:
        self.channel.append(message)

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
    assert [local.channel for local in node.local.values()] == [[m.DebugClosed(0, 0)], [m.DebugClosed(0, 1)]]
    closed = [m.DebugClosed(0, 2), m.DebugClosed(0, 3)]
    assert node.children[0].sent == [m.DebuggerLine(0, [2, 3], None), *closed]


def test_what_goes_through_a_channel_goes_to_its_rank_only(node: Node, debuggers: Debuggers) -> None:
    for message in (m.DebugOpen(7, 1), m.DebugBytes(7, 3, b"x")):
        debuggers.orders[type(message)](message)
    assert [local.channel for local in node.local.values()] == [[], [m.DebugOpen(7, 1)]]
    assert node.children[0].sent == [m.DebugBytes(7, 3, b"x")]
    debuggers.reports[m.DebugBytes](m.DebugBytes(7, 3, b"y"))
    assert node.up == [m.DebugBytes(7, 3, b"y")]
