"""Tasks on several ranks: what rank 0 says about them, event by event."""

from __future__ import annotations

from typing import Any

import pytest
from set_stage import Stage, brief, failure, options, returned

from ipmpi import limits
from ipmpi.engine.agent import settasks
from ipmpi.engine.farm.scheduler import Down, Up
from ipmpi.protocol import messages as m, packed


def start(stage: Stage, index: int = 0, width: int = 3, **rest: Any) -> m.RunTogether:
    stage.give([index], width=width, **rest)
    effects = [effect for effect in stage.said() if isinstance(effect.message, m.RunTogether)]
    assert len(effects) == 1
    assert isinstance(effects[0], Down)
    assert bytes(effects[0].body[0]) == b"%02d" % index
    message = effects[0].message
    assert isinstance(message, m.RunTogether)
    return message


def test_the_first_rank_delivers_when_all_have_succeeded_and_the_communicator_stays() -> None:
    stage = Stage(4)
    run = start(stage)
    assert run.ranks == [0, 1, 2]
    stage.part(0, 0)
    stage.part(0, 2)
    stage.give([0, 1], group=2)
    assert set(brief(stage.get(m.GiveTasks))) == {3, 2}, "the first has a result, the second still works"
    stage.part(0, 1)
    assert stage.said() == [Down([0], m.DeliverTogether(1, 0, [0]))]
    message = stage.answer(0, [0])
    assert Up(message, [b""]) in stage.said()
    stage.answer(2, [0], group=2)
    stage.answer(3, [1], group=2)
    stage.said()
    again = start(stage, 7)
    assert (again.ranks, again.serial) == (run.ranks, run.serial)


def test_a_failure_is_that_of_the_rank_that_caused_it_and_told_when_all_have_left() -> None:
    stage = Stage(3)
    run = start(stage)
    stage.part(0, 2, failure("PeerError"))
    (leave,) = stage.get(m.LeaveTogether)
    assert leave.ranks == [0, 1]
    assert "Rank 2" in leave.text
    stage.part(0, 1, failure("ValueError", "the cause"))
    assert stage.said() == []
    stage.part(0, 0)
    effects = [effect for effect in stage.said() if isinstance(effect.message, m.TaskResults)]
    (effect,) = effects
    assert (effect.message.rank, list(packed.unpack(effect.message.failed))) == (1, [0])
    failed, rest = packed.unpack_failure(effect.body[0])
    assert failed.type_name == "ValueError"
    assert failed.text == "[rank 1 of the task, engine rank 1] the cause"
    assert failed.traceback.startswith("[rank 1 of the task, engine rank 1] ")
    assert [bytes(piece) for piece in rest] == [b"pickled"]
    assert start(stage, 1).serial != run.serial


def test_a_failure_that_cannot_be_read_is_still_one() -> None:
    stage = Stage(2)
    start(stage, width=2)
    stage.part(0, 0, b"\x01")
    stage.part(0, 1, failure("PeerError"))
    (effect,) = [effect for effect in stage.said() if isinstance(effect.message, m.TaskResults)]
    assert "[rank 0 of the task" in packed.unpack_failure(effect.body[0])[0].text


def test_when_a_rank_is_lost_the_others_leave_and_the_task_goes_back() -> None:
    stage = Stage(3)
    start(stage)
    stage.farm.remove_ranks([0], 0.0)
    effects = stage.said()
    (leave,) = [effect for effect in effects if isinstance(effect.message, m.LeaveTogether)]
    assert leave.ranks == [1, 2]
    assert returned(effects) == []
    stage.part(0, 1, failure("PeerError"))
    stage.part(0, 2, failure("PeerError"))
    assert returned(stage.said()) == [([0], 0, "lost")]


def test_a_rank_that_does_not_run_its_part_ends_the_task_for_all() -> None:
    stage = Stage(2)
    start(stage, width=2)
    stage.farm.returned(m.TasksReturned(1, packed.pack([0]), 1, "rejected", "not here"), 0.0)
    assert [leave.ranks for leave in stage.get(m.LeaveTogether)] == [[0]]
    stage.part(0, 0, failure("PeerError"))
    assert stage.said()[0].message == m.TasksReturned(1, packed.pack([0]), 1, "rejected", "not here")


def test_cancelling_tasks_of_several_ranks() -> None:
    stage = Stage(2)
    start(stage, width=2)
    stage.give([1], width=2)
    stage.said()
    stage.farm.cancel(m.CancelTasks(1, packed.pack([0, 1]), False), 0.0)
    assert returned(stage.said()) == [([1], -1, "cancelled"), ([0], -1, "running")]
    stage.farm.cancel(m.CancelTasks(1, packed.pack([0]), True), 0.0)
    effects = stage.said()
    assert [type(effect.message) for effect in effects] == [m.LeaveTogether, m.CancelTasks]
    assert effects[1] == Down([0, 1], m.CancelTasks(1, packed.pack([0]), True, [0, 1]))
    stage.part(0, 0)  # it had ended in the meantime, but was told to forget its result
    stage.part(0, 1, failure("KeyboardInterrupt"))
    (effect,) = [effect for effect in stage.said() if isinstance(effect.message, m.TaskResults)]
    assert packed.unpack_failure(effect.body[0])[0].type_name == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("stage", "rest", "sentence"),
    [
        (Stage(4, joined=False), {"width": 2}, "share no communicator"),
        (Stage(4), {"width": 5}, "needs 5 ranks, and the set has 4"),
        (Stage(nodes={0: 0, 1: 0, 2: 2, 3: 2}), {"width": 3, "same_node": True}, "3 ranks of one node"),
    ],
)
def test_what_can_never_run_here_is_refused(stage: Stage, rest: dict[str, Any], sentence: str) -> None:
    stage.give([0], **rest)
    (message,) = stage.get(m.TasksReturned)
    assert (message.rank, message.why) == (-1, "refused")
    assert sentence in message.text


def test_one_node_is_one_node() -> None:
    stage = Stage(nodes={0: 0, 1: 1, 2: 0, 3: 1, 4: 1})
    assert start(stage, width=3, same_node=True).ranks == [1, 3, 4]
    assert start(stage, index=1, width=2, group=2, same_node=True).ranks == [0, 2]


def test_the_body_of_a_large_task_is_asked_for_once_all_its_ranks_wait() -> None:
    stage = Stage(2)
    stage.farm.give(m.GiveTasks(1, options(width=2), packed.pack([0]), b""), [], 0.0)
    (run,) = stage.get(m.RunTogether)
    assert run.large
    for rank in (1, 1, 0):
        assert stage.said() == []
        stage.farm.want_body(m.WantTaskBody(1, 0, [rank]), 0.0)
    assert stage.said() == [Up(m.WantTaskBody(1, 0, [0, 1]))]


def test_communicators_come_to_an_end_and_are_spared_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ABANDONED_COMMUNICATORS", 4)
    stage = Stage(2)
    for index in range(4):
        start(stage, index, width=2)
        stage.part(index, 0, failure("ValueError"))
        stage.part(index, 1, failure("PeerError"))
        stage.said()
    stage.give([9], width=2)
    (effect,) = stage.said()
    assert isinstance(effect.message, m.TaskResults)
    failed, _ = packed.unpack_failure(effect.body[0])
    assert failed.type_name == "LauncherError"
    assert "used up their communicators" in failed.text
    stage.give([0], group=2)
    assert len(stage.get(m.GiveTasks)) == 1, "tasks on one rank go on"


def test_few_communicators_serve_many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ABANDONED_COMMUNICATORS", 10)
    stage = Stage(8)
    serials = set()
    for index in range(300):
        stage.give([index], group=2, width=1)
        given = stage.get(m.GiveTasks)
        stage.give([index], width=3)
        runs = stage.get(m.RunTogether)
        for message in given:
            stage.answer(message.ranks[0], [index], group=2)
        runs = runs or stage.get(m.RunTogether)
        (run,) = runs
        serials.add(run.serial)
        for rank in run.ranks:
            stage.part(index, rank)
        stage.said()
        stage.answer(run.ranks[0], [index])
        stage.said()
    assert len(serials) < 10


def test_a_wide_task_waits_for_what_came_before_it_and_holds_ranks_against_what_comes_after() -> None:
    stage = Stage(2)
    stage.give(range(3))
    stage.said()
    stage.give([0], group=2, width=2)
    stage.give(range(10, 14), group=3, operation=b"g")
    stage.said()
    stage.answer(0, [0], 0.2)
    assert brief(stage.get(m.GiveTasks)) == {0: [2]}, "the first group came before"
    stage.answer(1, [1], 0.2)
    assert stage.get(m.GiveTasks) == []
    stage.answer(0, [2], 0.2)
    assert [run.ranks for run in stage.get(m.RunTogether)] == [[0, 1]]


def test_when_a_rank_has_died_the_others_go_on_together_if_their_mpi_can() -> None:
    stage = Stage(4, survives=True)
    run = start(stage)
    assert not run.has_lost
    for rank in run.ranks:
        stage.part(0, rank)
    stage.said()
    stage.answer(run.ranks[0], [0])
    stage.farm.remove_ranks([run.ranks[-1]], 0.0, died=True)
    stage.said()
    again = start(stage, 7)
    assert again.has_lost, "they must know, whether MPI has told them or not"
    assert run.ranks[-1] not in again.ranks


def test_when_a_rank_has_died_tasks_on_several_ranks_are_refused_if_their_mpi_cannot() -> None:
    stage = Stage(4)
    stage.farm.remove_ranks([3], 0.0, died=True)
    stage.said()
    stage.give([0], width=3)
    (refused,) = stage.get(m.TasksReturned)
    assert refused.why == "refused"
    assert "a rank of this set has died" in refused.text


@pytest.mark.parametrize(
    ("mpi", "can"),
    [
        ("Open MPI v5.0.11, MPI_THREAD_MULTIPLE", True),
        ("Open MPI v4.1.6, MPI_THREAD_MULTIPLE", False),
        ("Open MPI v10.0.0", True),
        ("MPICH Version: 5.0.2", False),
        ("", False),
    ],
)
def test_which_mpi_can(mpi: str, can: bool) -> None:
    assert settasks._survives(mpi) == can
