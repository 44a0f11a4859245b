"""Random events on a simulated set, which checks all that the Farm says; in the end everything has ended once."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulated_set import LATENCY, SimulatedSet

DURATIONS = [1e-5, 2e-4, 0.003, 0.03, 0.3, 2.0]


class Steps(RuleBasedStateMachine):
    """The set lives on after each step; a step takes some time, or none."""

    @initialize(seed=st.integers(0, 2**32), ranks=st.integers(1, 9), nodes=st.integers(1, 3), joined=st.booleans())
    def begin(self, seed: int, ranks: int, nodes: int, joined: bool) -> None:
        self.chance = random.Random(seed)
        self.kinds: dict[int, float] = {}
        self.set = SimulatedSet(
            {rank: rank % nodes for rank in range(ranks)},
            self._duration,
            seed,
            failures=0.2,
            refusals=0.02,
            joined=joined,
        )

    def _duration(self, group: int, _: int) -> float:
        return self.kinds[group] * self.chance.choice([0.1, 1.0, 1.0, 5.0])

    def _tasks(self) -> list[tuple[int, int]]:
        return sorted(self.set.given)

    def _some_ranks(self) -> list[int]:
        return self.chance.sample(sorted(self.set.has), self.chance.randint(1, len(self.set.has)))

    @rule(
        count=st.integers(1, 60),
        kind=st.sampled_from(DURATIONS),
        expected=st.booleans(),
        alone=st.booleans(),
        restrict=st.booleans(),
    )
    def submit(self, count: int, kind: float, expected: bool, alone: bool, restrict: bool) -> None:
        group = len(self.kinds)
        self.kinds[group] = kind
        ranks = self._some_ranks() if restrict else ()
        operation = b"%d" % self.chance.randrange(5)
        wanted = kind if expected else None
        self.set.submit(group, range(count), ranks, alone and count < 9, expected=wanted, operation=operation)

    @rule(
        count=st.integers(1, 5),
        kind=st.sampled_from(DURATIONS),
        width=st.integers(2, 10),
        same_node=st.booleans(),
    )
    def submit_wide(self, count: int, kind: float, width: int, same_node: bool) -> None:
        group = len(self.kinds)
        self.kinds[group] = kind
        self.set.submit(group, range(count), width=width, same_node=same_node)

    @rule(seconds=st.sampled_from([0.0, LATENCY, 0.001, 0.02, 0.2, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.set.run(self.set.now + seconds)

    @precondition(lambda self: len(self.set.has) > 1)
    @rule()
    def lose(self) -> None:
        others = sorted(number for number in self.set.has if number)
        if others:
            self.set.lose(self.chance.choice(others))

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 0.5, 5.0]))
    def command(self, seconds: float) -> None:
        self.set.command(self._some_ranks(), seconds)

    @rule(on=st.booleans())
    def reserve(self, on: bool) -> None:
        self.set.reserve(self._some_ranks(), on)

    @precondition(lambda self: self.set.given)
    @rule(interrupt=st.booleans())
    def cancel(self, interrupt: bool) -> None:
        tasks = self._tasks()
        self.set.cancel(self.chance.sample(tasks, self.chance.randint(1, len(tasks))), interrupt)

    @rule(count=st.integers(1, 50))
    def take_back(self, count: int) -> None:
        self.set.take_back(count)

    @invariant()
    def window_is_sane(self) -> None:
        if hasattr(self, "set"):
            assert 0 <= self.set.window <= 20_000

    def teardown(self) -> None:
        if not hasattr(self, "set"):
            return
        world = self.set
        world.reserve(list(world.has), on=False)
        world.run()  # as long as anything happens
        assert not world.given, "tasks that nobody runs, although all ranks are free"
        assert not world.queue
        assert all(not has for has in world.has.values())
        assert not world.teams
        assert world.farm.next_deadline() is None
        for task in world.ends:
            if world.options[task[0]].width > 1 and world.ends[task] == "refused":
                assert world.ran[task] == 0


Steps.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSteps = Steps.TestCase
