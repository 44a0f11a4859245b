"""How long clients' commands can hold a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi.engine.agent.programsteps import ProgramSteps
from ipmpi.engine.rank.controlblock import PAUSED, STEP
from ipmpi.protocol import messages as m, operations, rankmessages as rm


class Clock:
    """A loop whose time is advanced by the test."""

    def __init__(self) -> None:
        self.time = 100.0
        self.calls: list[tuple[float, Any]] = []

    def now(self) -> float:
        return self.time

    def call_later(self, seconds: float, call: Callable[[], object]) -> Any:
        entry = SimpleNamespace(call=call)
        entry.cancel = lambda: setattr(entry, "call", None)
        self.calls.append((self.time + seconds, entry))
        return entry

    def advance(self, seconds: float) -> None:
        end = self.time + seconds
        while due := [each for each in self.calls if each[0] <= end]:
            when, entry = first = min(due, key=lambda each: each[0])
            self.calls.remove(first)
            self.time = max(self.time, when)
            if entry.call is not None:
                entry.call()
        self.time = end


class Tree:
    """The only agent of a program; its ranks hold as soon as they are told to."""

    is_root = True

    def __init__(self, ranks: int) -> None:
        self.loop = Clock()
        self.children: list[Any] = []
        self.given: list[int] = []
        self.refused: list[tuple[list[int], str]] = []
        self.goes_on = True
        self.steps = ProgramSteps(self, True, 60.0, lambda text: None)  # type: ignore[arg-type]
        self.local: Any = {rank: self._rank(rank) for rank in range(ranks)}

    def _rank(self, rank: int) -> Any:
        words = {STEP: 0, PAUSED: 0}
        local = SimpleNamespace(rank=rank, is_stopping=False, announce=lambda: words, words=words)

        def send(message: object) -> None:
            if isinstance(message, rm.StopAtStep):
                words[STEP] = 2 * message.step + 1
                self.loop.call_later(0.0, lambda: self.steps.rank_holds(local, rm.Holds(message.round)))  # type: ignore[arg-type]
            elif isinstance(message, rm.LetGo) and self.goes_on and not words[PAUSED]:
                self.loop.call_later(0.005, lambda: words.__setitem__(STEP, words[STEP] & ~1))

        local.send = send
        return local

    def give(self, message: m.Dispatch, _body: Sequence[Any], _stream: int) -> None:
        self.given.append(message.id)

    def refuse(self, message: m.Dispatch, _stream: int, outcome: bytes) -> None:
        failed = operations.decode_outcome(outcome)
        assert isinstance(failed, operations.Failed)
        self.refused.append((list(message.ranks), f"{failed.type_name}: {failed.text}"))

    def send_up(self, message: object, _body: Sequence[Any] = ()) -> None:
        raise AssertionError(message)

    def command(self, number: int, *ranks: int) -> None:
        self.steps.command(m.Dispatch(number, list(ranks or self.local), "execute", b""), [], 0)

    @property
    def tick(self) -> int:
        return int(self.local[0].words[STEP]) >> 1


@pytest.fixture
def tree() -> Tree:
    return Tree(2)


def test_clients_without_a_pause_between_commands_let_the_program_go_on(tree: Tree) -> None:
    """There is always one under way when the one before is answered."""
    tree.command(1)
    for number in range(2, 102):
        tree.loop.advance(0.02)
        tree.command(number)
        if number - 1 in tree.given:
            tree.steps.answered(number - 1, [0, 1])
        for late in range(1, number - 1):
            if late in tree.given:
                tree.steps.answered(late, [0, 1])
    assert tree.tick >= 3, "two seconds"
    tree.loop.advance(3.0)
    assert tree.given == list(range(1, 102)), "in their order"


def test_a_command_that_another_one_waits_for_is_given_in_the_end(tree: Tree) -> None:
    """A receive on rank 0 waits for the send of rank 1, which the user types a second later."""
    tree.command(1, 0)
    tree.loop.advance(1.0)
    tree.command(2, 1)
    tree.loop.advance(1.0)
    assert tree.given == [1]
    tree.loop.advance(1.5)
    assert tree.given == [1, 2]


def test_ranks_make_a_step_between_two_commands_unless_they_are_paused(tree: Tree) -> None:
    tree.command(1)
    tree.loop.advance(0.001)
    at = tree.tick
    tree.steps.answered(1, [0, 1])
    tree.command(2)
    tree.loop.advance(0.02)
    assert (tree.given, tree.tick) == ([1, 2], at + 1)
    for local in tree.local.values():
        local.words[PAUSED] = 1
    tree.steps.answered(2, [0, 1])
    tree.command(3)
    tree.loop.advance(0.0)
    assert (tree.given, tree.tick) == ([1, 2, 3], at + 1)


def test_ranks_that_do_not_go_on_do_not_keep_commands_waiting(tree: Tree) -> None:
    tree.goes_on = False
    for number in (1, 2):
        tree.command(number)
        tree.loop.advance(0.1)
        assert tree.given[-1] == number
        tree.steps.answered(number, [0, 1])


def test_commands_of_ranks_that_are_gone_do_not_end_the_round_of_others(tree: Tree) -> None:
    tree.command(1, 7)
    tree.command(2)
    tree.loop.advance(0.0)
    assert tree.given == [1, 2]
    at = tree.tick
    tree.loop.advance(0.02)
    assert tree.local[0].words[STEP] == 2 * at + 1, "all ranks hold while the other one runs"


def test_a_command_of_which_a_rank_has_gone_meanwhile_is_performed_by_nobody(tree: Tree) -> None:
    """The others would wait for it there, or be changed where it is not."""
    tree.command(1)
    tree.command(2, 0)
    del tree.local[1]  # the end of its agent was noticed while all were to hold
    tree.steps.lost([1])
    tree.loop.advance(0.01)
    assert tree.given == [2]
    text = "EngineLost: rank 1 left the program before this began, so no rank has performed it"
    assert tree.refused == [([0], text)]
    tree.steps.answered(2, [0])
    tree.loop.advance(0.1)
    assert tree.local[0].words[STEP] == 2 * tree.tick, "and all go on"
