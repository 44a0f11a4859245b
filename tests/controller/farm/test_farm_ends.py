"""Tasks that do not simply run: aborted ones, lost engines, clients that leave; functions and reservations."""

from __future__ import annotations

from typing import Any

import pytest
from farm_stage import ALICE, BOB, OTHER, SET, Stage

from ipmpi import errors, limits
from ipmpi.protocol import messages as m, packed


@pytest.fixture
def stage() -> Stage:
    """One set of two ranks that wants two tasks; of four, two wait."""
    stage = Stage()
    stage.add_set(SET, 2)
    stage.submit(1, [b"a", b"b", b"c", b"d"])
    return stage


def cancels(stage: Stage) -> list[tuple[int, list[int], bool]]:
    return [(key, list(packed.unpack(c.indices)), c.interrupt) for key, c in stage.told_set(m.CancelTasks)]


def tasks(*indices: int) -> list[tuple[int, int]]:
    return [(1, index) for index in indices]


# --- abort -----------------------------------------------------------------------------------------------


def test_cancel_is_answered_when_it_is_certain(stage: Stage) -> None:
    stage.abort(1)
    assert stage.kinds(1, 4) == ["-", "-", "TaskAborted", "TaskAborted"]
    assert cancels(stage) == [(SET, [0, 1], False)]
    assert stage.replies() == []
    stage.return_(SET, tasks(1), "cancelled")
    assert stage.replies() == []
    stage.return_(SET, tasks(0), "running")
    assert stage.replies() == [[1, 2, 3]]
    assert stage.kinds(1, 4) == ["-", "TaskAborted", "TaskAborted", "TaskAborted"]
    stage.answer(SET, tasks(0))
    assert stage.kinds(1, 1) == ["ok"]
    assert stage.counts() == (0, 0, 1, 3)
    stage.check_empty()


def test_result_overtakes_cancel(stage: Stage) -> None:
    stage.abort(1, [0, 2])
    stage.answer(SET, tasks(0))
    assert stage.replies() == [[2]]
    assert stage.kinds(1, 4) == ["ok", "-", "TaskAborted", "-"]
    assert sorted(stage.given[SET]) == tasks(1, 3)


@pytest.mark.parametrize("why", ["taken", "lost", "refused", "rejected", "cancelled"])
def test_what_comes_back_while_it_is_cancelled_is_cancelled(stage: Stage, why: str) -> None:
    stage.abort(1, [0])
    stage.return_(SET, tasks(0), why, rank=0)
    assert stage.kinds(1, 1) == ["TaskAborted"]
    assert stage.replies() == [[0]]


def test_cancelled_twice(stage: Stage) -> None:
    stage.abort(1, [0, 1])
    stage.abort(1, [0])
    assert cancels(stage) == [(SET, [0, 1], False)], "asked once"
    stage.return_(SET, tasks(0), "cancelled")
    assert stage.replies() == [[0]]
    stage.return_(SET, tasks(1), "running")
    assert stage.replies() == [[0]]
    stage.return_(SET, tasks(1), "running")
    stage.answer(SET, tasks(1))
    assert stage.kinds(1, 2) == ["TaskAborted", "ok"]


def test_drop(stage: Stage) -> None:
    stage.abort(1, [0, 2, 0, 9], "drop")
    assert stage.replies() == [[0, 2]]
    assert cancels(stage) == [(SET, [0], False)]
    assert stage.kinds(1, 4) == ["TaskAborted", "-", "TaskAborted", "-"]
    assert stage.counts() == (1, 1, 0, 2)
    assert sorted(stage.given[SET]) == tasks(0, 1), "its engine is busy until it has ended"
    stage.answer(SET, tasks(0, 1))
    stage.answer(SET, tasks(3))
    assert stage.kinds(1, 4) == ["TaskAborted", "ok", "TaskAborted", "ok"]
    assert stage.counts() == (0, 0, 2, 2)
    stage.check_empty()


def test_interrupt_is_told_when_it_has_ended(stage: Stage) -> None:
    stage.submit(2, after=[(1, 0)])
    stage.abort(1, [0, 2], "interrupt")
    assert stage.replies() == [[0, 2]]
    assert cancels(stage) == [(SET, [0], True)]
    assert stage.kinds(1, 3) == ["-", "-", "TaskAborted"]
    stage.answer(SET, tasks(0), failed=tasks(0))
    assert stage.end(1, 0).payload == b"f1 was interrupted"  # type: ignore[union-attr]
    assert stage.kinds(2, 1) == ["DependencyError"]


@pytest.mark.parametrize("why", ["cancelled", "lost", "taken"])
def test_interrupted_before_it_started(stage: Stage, why: str) -> None:
    stage.abort(1, [0], "interrupt")
    stage.return_(SET, tasks(0), why, rank=0)
    assert stage.kinds(1, 1) == ["TaskAborted"]


def test_an_interrupted_task_can_be_dropped(stage: Stage) -> None:
    stage.abort(1, [0], "interrupt")
    stage.abort(1, [0], "drop")
    assert stage.replies() == [[0], [0]]
    assert stage.kinds(1, 1) == ["TaskAborted"]
    stage.answer_large(SET, (1, 0), stream=4)
    assert stage.declined == [(SET, 4)]
    stage.abort(1, [1], "interrupt")
    stage.answer_large(SET, (1, 1), stream=5)
    assert stage.declined == [(SET, 4), (SET, 5)]
    assert stage.kinds(1, 2) == ["TaskAborted", "TaskAborted"]


def test_a_task_that_is_tried_again_was_not_cancelled() -> None:
    stage = Stage()
    stage.add_set(SET, 1)
    stage.submit(1, retries=1)
    stage.abort(1)
    stage.answer(SET, tasks(0), failed=tasks(0))
    assert stage.replies() == [[]]
    stage.answer(SET, tasks(0))
    assert stage.kinds(1, 1) == ["ok"]


@pytest.mark.parametrize("how", ["cancel", "drop", "interrupt"])
def test_abort_of_what_has_ended_or_is_unknown(stage: Stage, how: str) -> None:
    stage.answer(SET, tasks(0, 1))
    stage.answer(SET, tasks(2, 3))
    stage.abort(1, how=how)
    stage.abort(99, how=how)
    stage.abort(1, how=how, client=BOB)
    assert stage.replies() == [[], [], []]
    assert stage.kinds(1, 4) == ["ok"] * 4


def test_cancelled_tasks_are_passed_over(stage: Stage) -> None:
    stage.submit(2, [b""] * 10)
    stage.abort(2, [0, 1, 2, 5, 9])
    stage.want(SET, 20)
    assert stage.running[SET] == [*tasks(0, 1, 2, 3), *[(2, i) for i in (3, 4, 6, 7, 8)]]


def test_queues_of_cancelled_groups_do_not_grow(stage: Stage) -> None:
    for number in range(2, 5002):
        stage.submit(number, priority=-1)
        stage.abort(number)
    assert stage.farm._waiting.count < 2500
    stage.submit(6000, priority=-2)
    stage.answer(SET, tasks(0, 1))
    stage.answer(SET, tasks(2, 3))
    assert list(stage.given[SET]) == [(6000, 0)]
    assert stage.farm._waiting.count == 0


# --- losses ----------------------------------------------------------------------------------------------


def test_lost_tasks_keep_their_place_and_use_no_retry(stage: Stage) -> None:
    stage.lose_ranks(SET, [0])
    stage.return_(SET, tasks(0), "lost", rank=0)
    assert not stage.given[SET][1, 1].alone
    assert stage.ends == {}
    # The engine that is left gets it when it has nothing else: if it is lost then, it is clear why.
    assert stage.running[SET] == tasks(0, 1)
    stage.answer(SET, tasks(1), rank=1)
    assert stage.running[SET] == tasks(0, 1, 0)
    assert stage.given[SET][1, 0].alone


def test_a_task_that_takes_engines_down_is_given_up() -> None:
    stage = Stage()
    stage.add_set(SET, 5, window=1)
    stage.submit(1, [b"", b""], retries=10)
    for rank in range(3):
        assert stage.end(1) is None
        stage.lose_ranks(SET, [rank])
        stage.return_(SET, tasks(0), "lost", rank=rank)
    end = stage.end(1)
    assert end is not None
    assert end.kind == "EngineLost"
    assert end.payload == (
        b"f1 was given up: 3 engines were lost while they had it. It is most likely the cause: "
        b"it crashes, calls MPI_Abort, or takes too much memory. The last was engine 2 (rank 2, pid 102 on h)"
    )
    assert list(stage.given[SET]) == tasks(1)


def test_a_task_that_is_given_up_says_how_its_last_engine_has_ended() -> None:
    stage = Stage()
    stage.add_set(SET, 4, window=1)
    stage.submit(1, [b""], retries=10)
    for rank in range(3):
        stage.lose_ranks(SET, [rank], f"the kernel's OOM killer ended it at step {rank}")
        stage.return_(SET, tasks(0), "lost", rank=rank)
    end = stage.end(1)
    assert end is not None
    assert end.payload.endswith(
        b"The last was engine 2 (rank 2, pid 102 on h): the kernel's OOM killer ended it at step 2"
    )


def test_a_lost_set_counts_against_its_tasks_unless_it_said_why() -> None:
    stage = Stage()
    for key in (10, 11):
        stage.add_set(key, 2)
        stage.submit(key, [b"", b""])
    stage.start(10, [(10, 0), (10, 1)])
    stage.lose_set(10)
    stage.want(11, 4)
    assert [stage.given[11][10, i].alone for i in (0, 1)] == [True, True]
    stage.lose_ranks(11, [1])
    stage.lose_set(11)
    stage.add_set(12, 4)
    assert [stage.given[12][11, i].alone for i in (0, 1)] == [False, False]


def test_what_only_waited_in_a_lost_set_is_no_suspect() -> None:
    stage = Stage()
    stage.add_set(10, 2, window=8)
    stage.submit(1, [b""] * 8)
    stage.start(10, [(1, 0), (1, 3)])
    stage.lose_set(10)
    stage.add_set(11, 8)
    assert {task[1] for task, given in stage.given[11].items() if given.alone} == {0, 3}
    assert len(stage.given[11]) == 8


def test_only_the_cause_is_given_up_where_each_loss_takes_a_whole_set() -> None:
    """Ranks of an MPI that does not survive a loss: a poison task, and others that ran beside it."""
    stage = Stage()
    stage.submit(1, [b""] * 40)
    poison = (1, 5)
    for key in range(10, 200):
        stage.add_set(key, 4, window=12)
        while stage.given[key]:
            runs = stage.running[key][:4]
            running = [task for task in runs if task in stage.given[key]][:4] or list(stage.given[key])[:4]
            stage.start(key, running)
            if poison in running:
                stage.lose_set(key)
                break
            stage.answer(key, running)
            stage.running[key] = [task for task in stage.running[key] if task in stage.given[key]]
        else:
            break
    kinds = {index: stage.ends[1, 1, index][0].kind for index in range(40)}
    assert {index for index, kind in kinds.items() if kind != "ok"} == {5}
    assert kinds[5] == "EngineLost"


def test_engines_that_a_client_ended_are_not_held_against_their_tasks(stage: Stage) -> None:
    stage.farm.ranks_lost(SET, [1], ordered=True)
    stage.registry.remove([1])
    stage.return_(SET, tasks(1), "lost", rank=1)
    assert not stage.given[SET][1, 1].alone
    stage.farm.ranks_lost(SET, [0], ordered=True)
    stage.registry.remove([0])
    stage.add_set(OTHER, 4)
    assert {given.alone for given in stage.given[OTHER].values()} == {False}
    assert sorted(stage.given[OTHER]) == tasks(0, 1, 2, 3)
    before = stage.farm.stale_results
    stage.answer(SET, tasks(0))
    assert stage.farm.stale_results == before + 1


def test_a_set_that_registers_anew_has_nothing(stage: Stage) -> None:
    stage.registry.remove([0, 1])
    stage.add_set(SET, 2)
    assert stage.running[SET] == tasks(0, 1)
    assert not stage.given[SET][1, 0].alone


def test_a_lost_rank_whose_result_was_on_its_way(stage: Stage) -> None:
    stage.lose_ranks(SET, [0])
    stage.answer(SET, tasks(0), rank=0)
    assert stage.end(1, 0) == ("ok", 0, b"r")


# --- clients that leave ------------------------------------------------------------------------------------


def test_a_lost_client(stage: Stage) -> None:
    stage.submit_large(2, stream=5)
    stage.submit(3, after=[(1, 0)], conditional=True)
    stage.abort(1, [0], "cancel")
    cancels(stage)
    stage.farm.client_lost(ALICE)
    stage.submit(1, client=BOB)
    assert cancels(stage) == [(SET, [0, 1], False)]
    assert stage.declined == [(ALICE, 5)]
    stage.return_(SET, tasks(0), "cancelled")
    stage.answer(SET, tasks(1))
    assert list(stage.given[SET]) == tasks(0), "Bob's"
    assert stage.ends == {}
    stage.answer(SET, tasks(0))
    assert stage.end(1, client=BOB) == ("ok", 0, b"r")
    stage.check_empty()


def test_status_counts_everybody_and_names_ones_own(stage: Stage) -> None:
    stage.submit(5, client=BOB)
    status = stage.farm.status(ALICE)
    assert (status["scheduled"], status["pending"]) == (3, 2)
    assert status["running"] == [[1, packed.pack([0, 1])]]
    assert stage.farm.status(BOB)["running"] == []
    assert stage.farm.status(1234)["scheduled"] == 3


# --- functions -------------------------------------------------------------------------------------------


def test_a_function_goes_to_a_set_once_before_its_first_task() -> None:
    stage = Stage()
    data = bytes(range(256)) * 1500
    key = stage.define(data)
    stage.add_set(SET, 2)
    stage.submit(1, [b"", b""], functions=[key])
    pieces = [d for _, d in stage.told_set(m.DefineFunction)]
    assert [(p.offset, p.total) for p in pieces] == [
        (o, len(data)) for o in range(0, len(data), limits.INLINE_BODY)
    ]
    stage.answer(SET, tasks(0, 1))
    stage.submit(2, functions=[key])
    assert stage.told_set(m.DefineFunction) == []
    stage.add_set(OTHER, 1)
    stage.answer(SET, [(2, 0)])
    stage.want(SET, 0)
    stage.submit(3, functions=[key])
    assert [to for to, _ in stage.told_set(m.DefineFunction)] == [OTHER] * 3


def test_a_function_is_forgotten_when_its_tasks_have_ended() -> None:
    stage = Stage()
    key = stage.define(b"function")
    stage.add_set(SET, 1)
    stage.submit(1, functions=[key])
    stage.define(b"function", client=BOB)
    stage.farm.forget(ALICE, m.ForgetFunctions([key, b"unknown"]))
    with pytest.raises(errors.ClientError, match="not defined"):
        stage.submit(2, functions=[key])
    stage.farm.client_lost(BOB)
    stage.flush()
    assert stage.told_set(m.ForgetFunctions) == []
    stage.answer(SET, tasks(0))
    assert stage.told_set(m.ForgetFunctions) == [(SET, m.ForgetFunctions([key]))]
    stage.define(b"function")
    stage.submit(3, functions=[key])
    assert len(stage.told_set(m.DefineFunction)) == 2, "at first and anew"


@pytest.mark.parametrize(
    ("key", "offset", "total", "body"),
    [
        (b"k" * 15, 0, 30, b"abc"),
        (b"k" * 16, 3, 30, b"abc"),
        (b"k" * 16, 0, 2, b"abc"),
        (b"k" * 16, 0, limits.FUNCTION + 1, b"abc"),
        (b"k" * 16, 0, 3, b""),
    ],
    ids=["short key", "no beginning", "too long", "too large", "empty"],
)
def test_pieces_that_make_no_sense_end_the_client(key: bytes, offset: int, total: int, body: bytes) -> None:
    with pytest.raises(errors.RemoteProtocolError):
        Stage().farm.define(ALICE, m.DefineFunction(key, offset, total, [len(body)]), [body])


def test_bytes_that_do_not_fit_their_key_are_no_function() -> None:
    stage = Stage()
    stage.farm.define(ALICE, m.DefineFunction(b"k" * 16, 0, 3, [3]), [b"abc"])
    with pytest.raises(errors.ClientError, match="not defined"):
        stage.submit(1, functions=[b"k" * 16])


def test_functions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TASK_BYTES", 10)
    stage = Stage()
    first = stage.define(b"12345678")
    second = stage.define(b"second")
    stage.submit(1, functions=[first])
    with pytest.raises(errors.Backpressure, match="functions of this client hold"):
        stage.submit(2, functions=[first, second])
    stage.farm.forget(ALICE, m.ForgetFunctions([first]))
    stage.define(b"second")
    stage.submit(2, functions=[second])


# --- reservations ----------------------------------------------------------------------------------------


def test_reserved_engines_are_told_and_get_nothing_new() -> None:
    stage = Stage()
    stage.add_set(SET, 2)
    assert stage.farm.reserve(BOB, [1]) == [1]
    assert stage.farm.reserve(ALICE, None) == [0, 1]
    stage.submit(1)
    assert stage.told_set(m.ReserveRanks) == [(SET, m.ReserveRanks([1], True)), (SET, m.ReserveRanks([0], True))]
    assert stage.given[SET] == {}
    assert stage.farm.release(ALICE, [0, 1, 77]) == [0, 1]
    stage.farm.release(ALICE, [0, 1])
    stage.flush()
    assert stage.told_set(m.ReserveRanks) == [(SET, m.ReserveRanks([0], False))]
    assert list(stage.given[SET]) == tasks(0)
    stage.farm.client_lost(BOB)
    stage.flush()
    assert stage.told_set(m.ReserveRanks) == [(SET, m.ReserveRanks([1], False))]


def test_what_waits_at_a_reserved_set_is_taken_back(stage: Stage) -> None:
    stage.farm.reserve(BOB, [0, 1])
    stage.flush()
    assert stage.told_set(m.TakeBackTasks) == [(SET, m.TakeBackTasks(2))]
    stage.return_(SET, tasks(1), "taken")
    stage.add_set(OTHER, 4)
    assert sorted(stage.given[OTHER]) == tasks(1, 2, 3)


def test_reservations_of_engines_that_are_gone(stage: Stage) -> None:
    stage.farm.reserve(BOB, [0, 1])
    stage.lose_ranks(SET, [1])
    stage.farm.client_lost(BOB)
    stage.flush()
    assert stage.told_set(m.ReserveRanks)[-1] == (SET, m.ReserveRanks([0], False))
    with pytest.raises(errors.InvalidEngineID):
        stage.farm.reserve(BOB, [1])


def test_tasks_that_need_certain_or_many_ranks_wait_for_reserved_ones() -> None:
    stage = Stage()
    stage.add_set(SET, 3, window=9)
    stage.submit(1)
    stage.answer(SET, tasks(0), rank=1)
    stage.farm.reserve(BOB, [1])
    stage.submit(2, follow=(1, 0))
    stage.submit(3, width=3)
    stage.submit(4, width=2, same_node=True)
    assert list(stage.given[SET]) == [(4, 0)]
    stage.flush(now=100.0)
    assert stage.ends.keys() == {(ALICE, 1, 0)}, "they can run, only not now"
    stage.farm.release(BOB, [1])
    stage.flush()
    assert sorted(stage.given[SET]) == [(2, 0), (3, 0), (4, 0)]


def test_events_of_sets_that_are_not_there() -> None:
    stage = Stage()
    calls: list[Any] = [
        lambda farm: farm.want_tasks(5, 3),
        lambda farm: farm.properties_changed(5, [0]),
        lambda farm: farm.ranks_lost(5, [0]),
        lambda farm: farm.set_lost(5, "gone"),
        lambda farm: farm.recheck(5),
        lambda farm: farm.client_lost(5),
    ]
    for call in calls:
        call(stage.farm)
    assert stage.farm.flush(0.0) == []
    assert stage.farm.next_deadline() is None


# --- engines that are told to end --------------------------------------------------------------------------


def end_rank(stage: Stage, key: int, rank: int, tasks_there: list[tuple[int, int]]) -> None:
    """As when earlyoom sends SIGTERM to one process of a set."""
    stage.farm.ranks_lost(key, [rank], told=True)
    stage.registry.remove(stage.registry.of_ranks(key, [rank]))
    stage.return_(key, tasks_there, "lost", rank=rank)


def test_a_task_for_which_engine_after_engine_is_told_to_end_is_given_up() -> None:
    stage = Stage()
    stage.submit(1, [b"hog"])
    stage.add_set(SET, 4)
    end_rank(stage, SET, 0, tasks(0))
    assert not stage.given[SET][1, 0].alone, "once is no sign"
    end_rank(stage, SET, 1, tasks(0))
    assert stage.given[SET][1, 0].alone
    end_rank(stage, SET, 2, tasks(0))
    ((end,),) = [stage.ends[ALICE, 1, 0]]
    assert end.kind == "EngineLost"
    assert b"f1 was given up: 3 engines were told to end (SIGTERM) while they ran it" in end.payload
    assert b"earlyoom" in end.payload
    assert b"engine 2 (rank 2, pid 102 on h)" in end.payload


def test_engines_by_themselves_that_are_told_to_end_one_by_one() -> None:
    stage = Stage()
    stage.submit(1, [b"hog"])
    for key in range(10, 14):
        stage.add_set(key, 1)
    for _ in range(3):
        (key,) = [key for key, given in stage.given.items() if given]
        stage.return_(key, tasks(0), "ended", rank=0)
        stage.farm.set_lost(key, "got SIGTERM", blame=False)
        stage.registry.remove(stage.registry.of_ranks(key, [0]))
        del stage.given[key], stage.windows[key]
        stage.flush()
    ((end,),) = [stage.ends[ALICE, 1, 0]]
    assert end.kind == "EngineLost"


def test_a_task_whose_jobs_come_to_their_end_is_not_suspected() -> None:
    stage = Stage()
    stage.submit(1, [b"long"])
    for key in range(10, 20):
        stage.add_set(key, 2, hosts=[f"node{key}"])
        stage.farm.ranks_lost(key, [0], told=True)
        stage.return_(key, tasks(0), "lost", rank=0)
        stage.farm.ranks_lost(key, [1], told=True)
        stage.registry.remove([e.id for e in stage.registry.sets[key].engines.values()])
        del stage.given[key], stage.windows[key]
        stage.flush()
    stage.add_set(SET + 50, 2)
    assert not stage.given[SET + 50][1, 0].alone
    assert (ALICE, 1, 0) not in stage.ends
