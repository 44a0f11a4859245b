"""What a set wants run before the end of its job stands at one place in the order of all its engines' commands."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Announce, Effect, Send
from ipmpi.protocol import messages as m, operations

ALICE, SET = 1, 10
HOOK = b"hook"


class Stage:
    """One set of three, whose ranks answer when they are told to; what each has begun, in order."""

    def __init__(self) -> None:
        self.router = Router()
        self.router.register(SET, m.Register([m.EngineInfo(r, r, "h", 1) for r in range(3)], "", ""))
        self.begun: dict[int, list[str]] = {rank: [] for rank in range(3)}
        self.running: dict[int, m.Dispatch | None] = dict.fromkeys(range(3))
        self.said: list[str] = []
        self.undone: list[Any] = []
        self.flush()

    def flush(self) -> None:
        effects: list[Effect] = self.router.flush()
        for effect in effects:
            if isinstance(effect, Announce):
                self.said.append(effect.text)
            elif isinstance(effect, Send) and isinstance(effect.message, m.Dispatch):
                for rank in effect.message.ranks:
                    assert self.running[rank] is None
                    self.running[rank] = effect.message
                    self.begun[rank].append(effect.message.operation.decode())
            elif isinstance(effect, Send) and isinstance(effect.message, m.Undone):
                self.undone.append(effect.message)

    def command(self, number: int, targets: list[int] | None = None) -> None:
        self.router.command(ALICE, m.Command(number, targets, "execute", str(number), b"c%d" % number), [], 0)
        self.flush()

    def hook(self, ranks: list[int] | None = None, operation: bytes = HOOK) -> None:
        everyone = [0, 1, 2] if ranks is None else ranks
        self.router.own.before_end(SET, m.RunBeforeEnd(everyone, "before_walltime(save)", operation))
        self.flush()

    def answer(self, *ranks: int, ok: bool = True, outcome: bytes = b"") -> None:
        for rank in ranks:
            dispatch = self.running[rank]
            assert dispatch is not None
            self.running[rank] = None
            self.router.result(SET, m.Result(dispatch.id, [rank], ok, outcome), [], 0)
        self.flush()

    def answer_all(self) -> None:
        while busy := [rank for rank in range(3) if self.running[rank] is not None]:
            self.answer(*busy)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_idle_engines_run_it_at_once(stage: Stage) -> None:
    stage.hook()
    assert stage.begun == {rank: ["hook"] for rank in range(3)}
    stage.answer_all()
    assert stage.said == []


def test_it_overtakes_what_no_engine_has_begun(stage: Stage) -> None:
    for number in (1, 2, 3):
        stage.command(number)
    stage.hook()
    stage.answer_all()
    assert stage.begun == {rank: ["c1", "hook", "c2", "c3"] for rank in range(3)}


def test_it_stands_behind_what_the_fastest_engine_has_begun(stage: Stage) -> None:
    for number in (1, 2, 3):
        stage.command(number)
    stage.answer(0)
    stage.hook()
    assert stage.begun[0] == ["c1", "c2"]
    stage.answer_all()
    assert stage.begun == {rank: ["c1", "c2", "hook", "c3"] for rank in range(3)}


def test_an_engine_that_has_done_all_counts_as_well(stage: Stage) -> None:
    stage.command(1)
    stage.command(2)
    stage.answer(0)
    stage.answer(0)
    stage.hook()
    assert stage.begun[0] == ["c1", "c2", "hook"]
    stage.answer_all()
    assert stage.begun[2] == ["c1", "c2", "hook"]


def test_two_keep_their_order(stage: Stage) -> None:
    for number in (1, 2):
        stage.command(number)
    stage.hook(operation=b"first")
    stage.answer(1)
    stage.hook(operation=b"second")
    stage.answer_all()
    assert stage.begun == {rank: ["c1", "first", "second", "c2"] for rank in range(3)}


def test_the_order_is_one_whatever_happens_when() -> None:
    for seed in range(200):
        chance, stage = random.Random(seed), Stage()
        number = 0
        for _ in range(30):
            event = chance.random()
            if event < 0.4:
                number += 1
                stage.command(number, chance.sample(range(3), chance.randint(1, 3)))
            elif event < 0.5:
                stage.hook(operation=b"h%d" % number)
            elif busy := [rank for rank in range(3) if stage.running[rank] is not None]:
                stage.answer(chance.choice(busy))
        stage.answer_all()
        for one in range(3):
            for other in range(one):
                common = set(stage.begun[one]) & set(stage.begun[other])
                mine = [name for name in stage.begun[one] if name in common]
                assert mine == [name for name in stage.begun[other] if name in common], f"seed {seed}"


def test_neither_failures_nor_users_clear_it(stage: Stage) -> None:
    stage.command(1)
    stage.command(2)
    stage.hook()
    stage.router.clear_queue(None)
    stage.answer(0, 1, ok=False)
    stage.answer(2)
    assert stage.begun == {rank: ["c1", "hook"] for rank in range(3)}
    assert [undone.id for undone in stage.undone] == [2]


def test_its_failure_clears_nothing_and_all_clients_hear_of_it(stage: Stage) -> None:
    stage.hook()
    stage.command(1)
    failed = operations.encode(operations.Failed("OSError", "full", "Traceback\nOSError: disk full\n"))
    stage.answer(0, 1, ok=False, outcome=failed)
    stage.answer(2)
    assert stage.begun[0] == ["hook", "c1"]
    assert stage.said == [
        "before_walltime(save) failed on engine 0: OSError: disk full",
        "before_walltime(save) failed on engine 1: OSError: disk full",
    ]


def test_an_engine_that_is_lost_before_it_is_told_of(stage: Stage) -> None:
    stage.command(1)
    stage.hook()
    stage.router.ranks_lost(SET, [1], "killed")
    stage.flush()
    (said,) = stage.said
    assert said.startswith("before_walltime(save) did not come to its end on engine 1: engine 1 (rank 1")
    stage.answer(0, 2)
    assert stage.begun[0] == stage.begun[2] == ["c1", "hook"]


def test_ranks_that_are_not_there_are_left_out(stage: Stage) -> None:
    stage.hook(ranks=[7])
    stage.router.own.before_end(77, m.RunBeforeEnd([0], "x", HOOK))
    stage.hook(ranks=[2, 9])
    assert stage.begun == {0: [], 1: [], 2: ["hook"]}


def test_a_set_cannot_fill_the_queues(stage: Stage) -> None:
    for _ in range(1000):
        stage.hook()
    assert len(stage.router.queue_status([0])[0][2]) == 100
