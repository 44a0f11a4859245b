"""An agent's ends of the pipes of a rank: when they are read, and when again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipmpi.engine.agent.rankoutput import RankOutput
from ipmpi.engine.agent.setoutput import SetOutput
from ipmpi.protocol import messages as m


class FakeLoop:
    """Files and timers, of which the test makes the calls."""

    def __init__(self) -> None:
        self.files: dict[int, Callable[[int], object]] = {}
        self.timers: list[Callable[[], object]] = []

    def register(self, file: int, _events: int, call: Callable[[int], object]) -> None:
        self.files[file] = call

    def unregister(self, file: int) -> None:
        self.files.pop(file, None)

    def call_later(self, _seconds: float, call: Callable[[], object]) -> None:
        self.timers.append(call)

    def let_time_pass(self) -> None:
        timers, self.timers = self.timers, []
        for call in timers:
            call()


class World:
    def __init__(self) -> None:
        pairs = [os.pipe() for _ in range(3)]
        self.write_ends = [pair[1] for pair in pairs]
        self.read_ends = [pair[0] for pair in pairs]
        self.loop: Any = FakeLoop()
        self.told: list[tuple[int, int, bytes]] = []
        self.notes: list[bytes] = []
        self.output = RankOutput(
            self.loop, list(self.read_ends),
            lambda command, kind, _, data: self.told.append((command, kind, data)),
            self.notes.append, lambda: None,
        )  # fmt: skip

    def is_watched(self, kind: int) -> bool:
        return self.read_ends[kind] in self.loop.files

    def close(self) -> None:
        self.output.close()
        for descriptor in self.write_ends:
            os.close(descriptor)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_a_pipe_is_left_alone_for_a_moment_and_then_watched_again(world: World) -> None:
    world.output.begin(1)
    os.write(world.write_ends[0], b"line\n")
    world.loop.files[world.read_ends[0]](1)
    assert world.told == [(1, m.STDOUT, b"line\n")]
    assert not world.is_watched(m.STDOUT)
    world.loop.let_time_pass()
    assert world.is_watched(m.STDOUT)


@pytest.mark.parametrize("kind", [m.STDOUT, m.STDERR])
def test_a_pipe_that_was_emptied_in_the_same_turn_is_watched_again(world: World, kind: int) -> None:
    world.output.begin(1)
    os.write(world.write_ends[kind], b"line\n")
    readable = world.loop.files[world.read_ends[kind]]  # the loop knows, and has something else to do first
    world.output.end()
    readable(1)
    assert world.told == [(1, kind, b"line\n")]
    world.loop.let_time_pass()
    assert world.is_watched(kind), "or nobody would ever read it again, and the rank would stop at a full pipe"


def test_a_pipe_without_another_end_is_not_watched_any_more(world: World) -> None:
    os.close(world.write_ends.pop(0))
    world.loop.files[world.read_ends[0]](1)
    world.loop.let_time_pass()
    assert not world.is_watched(m.STDOUT)


def test_what_comes_without_a_command_is_a_note(world: World) -> None:
    os.write(world.write_ends[0], b"left behind\n")
    world.loop.files[world.read_ends[0]](1)
    world.output.begin(1)
    world.output.end()
    assert (world.notes, world.told) == ([b"left behind\n"], [])


def test_the_log_has_what_is_in_the_pipes_although_they_are_left_alone(world: World) -> None:
    """Who asks for the log gets all that was printed before, also in the moment after something was read."""
    output = SetOutput(world.loop, lambda message: None)
    output.add_rank(world.output)
    world.output._note = lambda data: output.noted(3, data)
    os.write(world.write_ends[2], b"task 0\n")
    world.loop.files[world.read_ends[2]](0)
    assert not world.is_watched(2)
    os.write(world.write_ends[2], b"task 1\n")
    assert output.log_of([3], 100) == {3: b"task 0\ntask 1\n"}
