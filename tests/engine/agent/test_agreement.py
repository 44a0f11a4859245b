"""All ranks of a program stop at one step: the agreement and the ticks, in all interleavings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "steering"))

from simulated_program import SimulatedProgram


def run(seed: int, **options: bool) -> SimulatedProgram:
    """A program to which many things happen; a paused one is let go on at last."""
    program = SimulatedProgram(seed, **options)
    steps = [0]

    def choose() -> str:
        steps[0] += 1
        # Most often resume: a program that stays paused does not end.
        return program.random.choice(("look", "look", "pause", "resume", "resume", f"step {steps[0] % 3 + 1}"))

    program.run(0.01, choose)
    return program


def one_step_for_all(program: SimulatedProgram) -> int:
    """Each command was performed at one tick, by all that it was for; return how many there were."""
    by_number: dict[int, set[int]] = {}
    for rank in program.ranks:
        assert [number for number, _ in rank.performed] == sorted(number for number, _ in rank.performed)
        for number, tick in rank.performed:
            by_number.setdefault(number, set()).add(tick)
    for number, ticks in by_number.items():
        assert ticks == {program.agreed[number]}, f"command {number} was performed at {ticks}"
        who = {rank.number for rank in program.ranks for done, _ in rank.performed if done == number}
        assert who == set(program.given[number])
    return len(by_number)


@pytest.mark.parametrize("seed", range(20))
def test_every_command_is_performed_at_one_step_and_nobody_is_stuck(seed: int) -> None:
    done = one_step_for_all(run(seed))
    assert done or seed  # nothing was asked before the end: rare


def test_without_the_memory_barriers_ranks_pass_the_step() -> None:
    """The simulation finds what the barriers are for."""

    def many() -> None:
        for seed in range(40):
            one_step_for_all(run(seed, has_fences=False))

    with pytest.raises(AssertionError, match=r"was performed at|stuck"):
        many()
