"""Who gets which tasks, and what their client hears; effects are compared, not internals."""

from __future__ import annotations

import pytest
from farm_stage import ALICE, BIG, BOB, OTHER, SET, Given, Stage

from ipmpi import errors, limits
from ipmpi.controller.effects import Forward
from ipmpi.controller.farm.order import Fifo, Lifo
from ipmpi.protocol import messages as m, packed


@pytest.fixture
def stage() -> Stage:
    """One set of two ranks that wants two tasks."""
    stage = Stage()
    stage.add_set(SET, 2)
    return stage


def group(number: int, count: int) -> list[tuple[int, int]]:
    return [(number, index) for index in range(count)]


# --- giving ----------------------------------------------------------------------------------------------


def test_tasks_go_where_they_are_wanted_and_results_come_back(stage: Stage) -> None:
    stage.submit(1, [b"a", b"", b"ccc"])
    assert stage.given[SET] == {(1, 0): Given(1000, b"a", [], False), (1, 1): Given(1000, b"", [], False)}
    assert stage.counts() == (1, 2, 0, 0)
    stage.answer(SET, [(1, 1)], rank=1, result=b"one")
    assert stage.end(1, 1) == ("ok", 1, b"one")
    assert list(stage.given[SET]) == [(1, 0), (1, 2)], "the next one, at once"
    stage.answer(SET, [(1, 0), (1, 2)], failed=[(1, 2)])
    assert stage.kinds(1, 3) == ["ok", "ok", "failed"]
    assert stage.counts() == (0, 0, 2, 1)
    stage.check_empty()


def test_a_set_gets_no_tasks_before_it_wants_some() -> None:
    stage = Stage()
    stage.submit(1)
    stage.add_set(SET, 4, window=0)
    assert stage.given[SET] == {}
    stage.want(SET, 4)
    assert list(stage.given[SET]) == [(1, 0)]


def test_a_window_that_shrinks_is_not_exceeded(stage: Stage) -> None:
    stage.want(SET, 100)
    stage.submit(1, [b"x"] * 150)
    stage.want(SET, 10)
    stage.windows[SET] = 10
    stage.answer(SET, group(1, 95))
    assert len(stage.given[SET]) == 10
    stage.answer(SET, [(1, i) for i in range(95, 105)])
    assert len(stage.given[SET]) == 10


def test_what_needs_no_change_is_passed_on_as_it_is(stage: Stage) -> None:
    stage.want(SET, 1000)
    stage.submit(1, [b"ab"] * 500)
    body = memoryview(b"z" * 100)
    packed_indices = packed.pack(range(100, 200))
    message = m.TaskResults(1000, 1, packed_indices, packed.pack([3]), packed.pack([1] * 100), 0.1, [100])
    stage.farm.results(SET, message, [body])
    (effect,) = stage.farm.flush(0.0)
    assert effect.to == ALICE
    assert effect.message == m.TasksDone(1, 1, packed_indices, packed.pack([3]), message.lengths, [100])
    assert effect.body[0] is body
    assert stage.counts() == (0, 400, 99, 1)


def test_order_of_the_default_is_priority_then_arrival(stage: Stage) -> None:
    stage.submit(1, [b"x"] * 4)
    stage.submit(2)
    stage.submit(3, priority=5)
    stage.submit(4, priority=-1)
    stage.submit(5, priority=5)
    stage.want(SET, 20)
    assert stage.running[SET] == [(1, 0), (1, 1), (3, 0), (5, 0), (1, 2), (1, 3), (2, 0), (4, 0)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [(Fifo(), [(1, 0), (1, 1), (2, 0)]), (Lifo(), [(2, 0), (1, 1), (1, 0)])],
    ids=["fifo", "lifo"],
)
def test_order_can_be_chosen(order: Fifo | Lifo, expected: list[tuple[int, int]]) -> None:
    stage = Stage(order)
    stage.submit(1, [b"x", b"yy"])
    stage.submit(2, priority=-7)
    stage.add_set(SET, 3)
    assert stage.running[SET] == expected
    assert stage.given[SET][1, 1].payload == b"yy"


def test_two_sets_share_in_proportion_to_what_they_want() -> None:
    stage = Stage()
    stage.add_set(SET, 4, window=300)
    stage.add_set(OTHER, 4, window=100)
    stage.submit(1, [b""] * 200)
    assert (len(stage.given[SET]), len(stage.given[OTHER])) == (150, 50)


def test_idle_engines_come_first() -> None:
    stage = Stage()
    stage.add_set(SET, 1, window=10)
    stage.submit(1)
    stage.add_set(OTHER, 2, window=10)
    stage.submit(2, [b"", b""])
    assert (list(stage.given[SET]), list(stage.given[OTHER])) == ([(1, 0)], [(2, 0), (2, 1)])


def test_single_tasks_go_round() -> None:
    stage = Stage()
    for key in range(10, 15):
        stage.add_set(key, 1, window=5)
    for number in range(5):
        stage.submit(number)
    assert [len(tasks) for tasks in stage.given.values()] == [1] * 5


def test_tasks_that_wait_at_a_busy_set_are_taken_back_for_an_idle_one() -> None:
    stage = Stage()
    stage.add_set(SET, 2, window=10)
    stage.submit(1, [b""] * 10)
    stage.add_set(OTHER, 2, window=10)
    assert stage.told_set(m.TakeBackTasks) == [(SET, m.TakeBackTasks(4))]
    stage.flush()
    assert stage.told_set(m.TakeBackTasks) == [], "not before the first can have been answered"
    assert stage.farm.next_deadline() == pytest.approx(0.01)
    stage.return_(SET, [(1, i) for i in range(6, 10)], "taken")
    assert list(stage.given[OTHER]) == [(1, 6), (1, 7), (1, 8), (1, 9)] or len(stage.given[OTHER]) >= 2
    stage.answer(OTHER, list(stage.given[OTHER]))
    stage.flush(now=0.06)
    assert len(stage.told_set(m.TakeBackTasks)) == 1


def test_a_lone_set_is_left_alone() -> None:
    stage = Stage()
    stage.add_set(SET, 2, window=10)
    stage.submit(1, [b""] * 10)
    stage.flush(now=1.0)
    assert stage.to_set == []
    assert stage.farm.next_deadline() is None


# --- results that are not wanted ---------------------------------------------------------------------------


def test_results_count_only_from_the_set_that_has_the_task(stage: Stage) -> None:
    stage.add_set(OTHER, 1, window=0)
    stage.submit(1)
    message = m.TaskResults(1000, 0, packed.pack([0]), b"", packed.pack([0]), 0.1, [0])
    for key, wrong in (
        (OTHER, message),
        (99, message),
        (SET, m.TaskResults(999, 0, packed.pack([0]), b"", packed.pack([0]), 0.1, [0])),
        (SET, m.TaskResults(1000, 5, packed.pack([0]), b"", packed.pack([0]), 0.1, [0])),
        (SET, m.TaskResults(1000, 0, packed.pack([1]), b"", packed.pack([0]), 0.1, [0])),
        (SET, m.TaskResults(1000, 0, packed.pack([2**32 - 1]), b"", packed.pack([0]), 0.1, [0])),
    ):
        stage.farm.results(key, wrong, [b""])
    stage.farm.result(OTHER, m.LargeTaskResult(1000, 0, 0, 0.1, [BIG]), [], 3)
    stage.farm.returned(OTHER, m.TasksReturned(1000, packed.pack([0]), 0, "taken"))
    stage.flush()
    assert (stage.ends, stage.farm.stale_results, stage.declined) == ({}, 8, [(OTHER, 3)])
    both = packed.pack([0, 0])
    stage.farm.results(SET, m.TaskResults(1000, 0, both, b"", packed.pack([1, 1]), 0.1, [2]), [b"ab"])
    stage.flush()
    assert stage.end(1) == ("ok", 0, b"a")
    assert stage.farm.stale_results == 9


@pytest.mark.parametrize(
    "wrong",
    [
        m.TaskResults(1000, 0, packed.pack([0]), b"", b"", 0.1, [0]),
        m.TaskResults(1000, 0, packed.pack([0]), packed.pack([1]), packed.pack([0]), 0.1, [0]),
        m.TaskResults(1000, 0, packed.pack([0]), b"abc", packed.pack([0]), 0.1, [0]),
        m.TaskResults(1000, 0, packed.pack([0]), b"", packed.pack([1]), 0.1, [0]),
        m.TaskResults(1000, 0, b"abc", b"", b"abc", 0.1, [0]),
    ],
    ids=["lengths", "failed", "failed-odd", "sum", "odd"],
)
def test_answers_that_make_no_sense_end_the_set(stage: Stage, wrong: m.TaskResults) -> None:
    stage.submit(1)
    with pytest.raises(errors.RemoteProtocolError, match=r"are inconsistent|impossible length"):
        stage.farm.results(SET, wrong, [b""])
    with pytest.raises(errors.RemoteProtocolError):
        stage.farm.returned(SET, m.TasksReturned(1000, b"abc", 0, "taken"))


# --- retries, refusals, rejections -------------------------------------------------------------------------


def test_failed_tasks_are_tried_again_at_the_tail(stage: Stage) -> None:
    stage.want(SET, 1)
    stage.submit(1, [b"x", b"y"], retries=1)
    stage.submit(2)
    stage.answer(SET, [(1, 0)], failed=[(1, 0)])
    assert stage.ends == {}
    stage.answer(SET, [(1, 1)])
    stage.answer(SET, [(2, 0)])
    stage.answer(SET, [(1, 0)], failed=[(1, 0)], result=b"why")
    assert stage.running[SET] == [(1, 0), (1, 1), (2, 0), (1, 0)]
    assert stage.end(1, 0) == ("failed", 0, b"why")
    assert stage.counts() == (0, 0, 2, 1)
    stage.check_empty()


def test_of_a_batch_only_what_is_not_tried_again_is_told(stage: Stage) -> None:
    stage.want(SET, 6)
    stage.submit(1, [b"x"] * 6, retries=1)
    stage.answer(SET, group(1, 6), failed=[(1, 2), (1, 5)])
    assert stage.kinds(1, 6) == ["ok", "ok", "-", "ok", "ok", "-"]
    assert sorted(stage.given[SET]) == [(1, 2), (1, 5)]
    stage.answer(SET, [(1, 5), (1, 2)], failed=[(1, 2)], result=b"rr")
    assert stage.end(1, 2) == ("failed", 0, b"rr")
    assert stage.end(1, 5) == ("ok", 0, b"rr")


def test_a_refused_condition_is_asked_on_the_other_engines(stage: Stage) -> None:
    stage.submit(1, [b"x", b"y"], conditional=True)
    stage.return_(SET, [(1, 0), (1, 1)], "refused", rank=0)
    assert stage.given[SET] == {(1, i): Given(1000, p, [1], False) for i, p in enumerate([b"x", b"y"])}
    stage.return_(SET, [(1, 0)], "refused", rank=1)
    stage.answer(SET, [(1, 1)], rank=1)
    assert stage.given[SET] == {}
    stage.farm.properties_changed(SET, [0])
    stage.flush()
    assert stage.given[SET][1, 0].ranks == [0]


def test_what_engines_refused_counts_for_all_tasks_with_that_condition(stage: Stage) -> None:
    stage.submit(1, conditional=True)
    stage.return_(SET, [(1, 0)], "refused", rank=-1)
    stage.submit(2, conditional=True)
    assert stage.given[SET] == {}
    stage.submit(3, conditional=True, operation=b"other")
    assert list(stage.given[SET]) == [(3, 0)]
    stage.want(SET, 10)
    stage.add_set(OTHER, 2)
    assert list(stage.given[OTHER]) == [(1, 0), (2, 0)], "new engines were not asked yet"
    stage.return_(OTHER, [(1, 0), (2, 0)], "refused", rank=-1)
    stage.farm.recheck(ALICE)
    stage.flush()
    assert sorted(stage.given[SET] | stage.given[OTHER]) == [(1, 0), (2, 0), (3, 0)]


def test_a_condition_that_holds_nowhere_ends_the_task(stage: Stage) -> None:
    stage.now = 100.0
    stage.submit(1, conditional=True, label="wants a GPU")
    stage.return_(SET, [(1, 0)], "refused", rank=-1)
    assert stage.farm.next_deadline() == 100.0 + limits.UNSCHEDULABLE_AFTER
    stage.flush(now=129.0)
    assert stage.end(1) is None
    stage.flush(now=130.0)
    end = stage.end(1)
    assert end is not None
    assert end.kind == "TaskTimeout"
    assert end.payload == b"task wants a GPU failed to execute due to unmet dependencies for 30 seconds"
    stage.check_empty()


def test_each_engine_is_tried_once_by_a_task_that_rejects_it(stage: Stage) -> None:
    stage.add_set(OTHER, 1)
    stage.submit(1)
    first = SET if stage.given[SET] else OTHER
    for _ in range(3):
        key = SET if stage.given[SET] else OTHER
        ranks = stage.given[key][1, 0].ranks
        stage.return_(key, [(1, 0)], "rejected", rank=ranks[0] if ranks else 0)
    end = stage.end(1)
    assert end is not None
    assert end.kind == "TaskRejectError"
    assert end.payload == b"f1 was rejected by all engines on which it could run"
    assert first in (SET, OTHER)
    stage.check_empty()


def test_without_engines_tasks_wait_as_long_as_it_takes() -> None:
    stage = Stage()
    stage.submit(1, conditional=True)
    stage.submit(2, width=4)
    stage.flush(now=1000.0)
    assert stage.ends == {}
    stage.add_set(SET, 4)
    assert list(stage.given[SET]) == [(1, 0), (2, 0)]


def test_more_ranks_than_any_set_has(stage: Stage) -> None:
    stage.add_set(OTHER, 4, hosts=["a", "b"])
    stage.submit(1, width=4)
    assert list(stage.given[OTHER]) == [(1, 0)]
    stage.submit(2, width=3, same_node=True)
    stage.submit(3, width=5)
    stage.flush(now=31.0)
    assert [stage.end(n).kind for n in (2, 3)] == ["TaskTimeout", "TaskTimeout"]  # type: ignore[union-attr]
    assert b"it needs 3 ranks of one node of one engine set" in stage.end(2).payload  # type: ignore[union-attr]


# --- dependencies ------------------------------------------------------------------------------------------


def test_tasks_wait_for_others(stage: Stage) -> None:
    stage.submit(1, [b"a", b"b"])
    stage.submit(2, after=[(1, 0), (1, 1), (1, 0)])
    assert stage.counts() == (1, 2, 0, 0)
    stage.answer(SET, [(1, 1)])
    assert (2, 0) not in stage.given[SET]
    stage.answer(SET, [(1, 0)])
    assert list(stage.given[SET]) == [(2, 0)]
    stage.submit(3, after=[(1, 0)])
    assert (3, 0) in stage.given[SET], "it had succeeded already"


def test_one_that_fails_takes_those_that_wait_for_it_with_it(stage: Stage) -> None:
    stage.submit(1, label="parent")
    for number in range(2, 3000):
        stage.submit(number, after=[(number - 1, 0)])
    stage.answer(SET, [(1, 0)], failed=[(1, 0)])
    assert {stage.end(number).kind for number in range(2, 3000)} == {"DependencyError"}  # type: ignore[union-attr]
    text = b"f2 was not run: it waited for parent (task 0 of group 1), which did not succeed"
    assert stage.end(2).payload == text  # type: ignore[union-attr]
    stage.submit(5000, after=[(1, 0)])
    assert stage.end(5000).kind == "DependencyError"  # type: ignore[union-attr]
    stage.check_empty()


def test_a_cancelled_parent(stage: Stage) -> None:
    stage.want(SET, 0)
    stage.submit(1)
    stage.submit(2, after=[(1, 0)])
    stage.abort(1)
    assert (stage.kinds(1, 1), stage.kinds(2, 1)) == (["TaskAborted"], ["DependencyError"])


@pytest.mark.parametrize("parent", [(7, 0), (2, 0), (1, 1), (3, 0)], ids=["unknown", "itself", "index", "later"])
def test_only_what_was_submitted_before_can_be_waited_for(stage: Stage, parent: tuple[int, int]) -> None:
    stage.submit(1)
    with pytest.raises(errors.DependencyError, match="not known"):
        stage.submit(2, after=[parent])
    with pytest.raises(errors.DependencyError):
        stage.submit(2, follow=parent)
    stage.submit(2)


def test_follow_runs_on_the_same_engine(stage: Stage) -> None:
    stage.add_set(OTHER, 3, window=9)
    stage.want(SET, 0)
    stage.submit(1)
    stage.submit(2, follow=(1, 0))
    stage.answer(OTHER, [(1, 0)], rank=2)
    assert stage.given[OTHER][2, 0].ranks == [2]
    stage.want(OTHER, 1)
    stage.submit(3, follow=(1, 0))
    stage.lose_ranks(OTHER, [2])
    assert stage.end(3).kind == "DependencyError"  # type: ignore[union-attr]
    stage.submit(4, follow=(1, 0))
    assert b"the engine on which it had to run is lost" in stage.end(4).payload  # type: ignore[union-attr]


def test_an_engine_with_the_same_id_is_not_the_one_to_follow(stage: Stage) -> None:
    stage.submit(1)
    stage.answer(SET, [(1, 0)])
    stage.lose_set(SET)
    assert stage.add_set(OTHER, 2) == [0, 1]
    stage.submit(2, follow=(1, 0))
    assert stage.kinds(2, 1) == ["DependencyError"]


# --- refused submissions -------------------------------------------------------------------------------------


def test_a_number_can_be_used_once(stage: Stage) -> None:
    stage.submit(1)
    with pytest.raises(errors.ClientError, match="was used for another group"):
        stage.submit(1)
    stage.answer(SET, [(1, 0)])
    with pytest.raises(errors.ClientError):
        stage.submit(1)
    stage.submit(1, client=BOB)


def test_arguments_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TASK_BYTES", 10)
    stage.submit(1, [b"12345", b"678"])
    with pytest.raises(errors.Backpressure, match="wait for some"):
        stage.submit(2, [b"123"])
    stage.submit(2, [b"123"], client=BOB)
    stage.answer(SET, [(1, 0), (1, 1)])
    stage.submit(3, [b"1234567890"])


def test_messages_that_make_no_sense(stage: Stage) -> None:
    options = m.TaskOptions(b"op", "f")
    for message in (
        m.SubmitTasks(1, options, packed.pack([1] * 4097), [4097]),
        m.SubmitTasks(1, options, b"abc", [0]),
        m.SubmitTasks(1, options, packed.pack([5]), [1]),
        m.SubmitTasks(1, m.TaskOptions(b"op", "f", width=0), packed.pack([1]), [1]),
        m.SubmitTasks(1, m.TaskOptions(b"op", "f", retries=-1), packed.pack([1]), [1]),
    ):
        with pytest.raises(errors.ClientError):
            stage.farm.submit(ALICE, message, [bytes(sum(message.sizes))], 0)
    with pytest.raises(errors.MessageSizeError, match="Push large data first"):
        stage.submit(1, operation=b"x" * (limits.MESSAGE - 1000))
    with pytest.raises(errors.ClientError, match="aborted by 'cancel', 'drop'"):
        stage.abort(1, how="kill")
    with pytest.raises(errors.ClientError):
        stage.farm.aborts.abort(ALICE, m.AbortTasks(1, 1, b"abc", "drop"))


# --- large arguments and results -------------------------------------------------------------------------------


def test_a_large_body_comes_when_a_rank_waits_for_it(stage: Stage) -> None:
    stage.submit_large(1, stream=5)
    assert stage.given[SET][1, 0].payload is None
    assert stage.forwards == []
    stage.farm.bodies.want(SET, m.WantTaskBody(1000, 0, [1]))
    stage.flush()
    assert stage.forwards == [Forward(ALICE, 5, BIG, ((SET, m.TaskBody(1000, 0, [1], [BIG])),))]
    stage.answer(SET, [(1, 0)])
    stage.check_empty()
    assert stage.declined == []


def test_a_large_body_is_asked_for_again_when_its_task_moves(stage: Stage) -> None:
    stage.submit_large(1, stream=5)
    stage.farm.bodies.want(SET, m.WantTaskBody(1000, 0, [1]))
    stage.add_set(OTHER, 1)
    stage.lose_set(SET)
    stage.farm.bodies.want(OTHER, m.WantTaskBody(1000, 0, [0]))
    stage.farm.bodies.want(OTHER, m.WantTaskBody(1000, 0, [0]))
    stage.flush()
    assert stage.to_client == [(ALICE, m.SendBodyAgain(1))], "asked once"
    assert not stage.farm.bodies.again(ALICE, m.BodyAgain(2, [BIG]), 6)
    assert not stage.farm.bodies.again(BOB, m.BodyAgain(1, [BIG]), 6)
    assert stage.farm.bodies.again(ALICE, m.BodyAgain(1, [BIG - 1]), 6)
    assert stage.farm.bodies.again(ALICE, m.BodyAgain(1, [BIG]), 7)
    stage.flush()
    assert stage.declined == [(ALICE, 6)]
    assert stage.forwards[-1] == Forward(ALICE, 7, BIG, ((OTHER, m.TaskBody(1000, 0, [0], [BIG])),))


def test_a_body_that_comes_when_its_set_is_gone_is_kept(stage: Stage) -> None:
    stage.submit_large(1, stream=5)
    stage.farm.bodies.want(SET, m.WantTaskBody(1000, 0, [0]))
    stage.return_(SET, [(1, 0)], "broken")
    stage.farm.bodies.want(SET, m.WantTaskBody(1000, 0, [0]))
    stage.lose_set(SET)
    assert stage.farm.bodies.again(ALICE, m.BodyAgain(1, [BIG]), 6)
    stage.flush()
    stage.add_set(OTHER, 1)
    stage.farm.bodies.want(OTHER, m.WantTaskBody(1000, 0, [0]))
    stage.flush()
    assert stage.forwards[-1].stream == 6
    stage.farm.bodies.want(SET, m.WantTaskBody(1000, 0, [0]))
    stage.farm.bodies.want(OTHER, m.WantTaskBody(1000, 3, [0]))
    stage.farm.bodies.want(OTHER, m.WantTaskBody(1234, 0, [0]))
    stage.flush()
    assert len(stage.forwards) == 2


def test_a_body_that_never_arrives_ends_its_task(stage: Stage) -> None:
    stage.submit_large(1, stream=5)
    for _ in range(3):
        stage.return_(SET, [(1, 0)], "broken", text="the stream was given up")
    assert stage.kinds(1, 1) == ["ConnectionError"]
    assert stage.declined == [(ALICE, 5)]


def test_a_body_of_middle_size_is_kept_here(stage: Stage) -> None:
    message = m.SubmitTasks(1, m.TaskOptions(b"op", "f"), b"", [2, 3])
    stage.farm.submit(ALICE, message, [b"ab", b"cde"], 0)
    stage.farm.flush(0.0)
    stage.farm.bodies.want(SET, m.WantTaskBody(1000, 0, [1]))
    (effect,) = stage.farm.flush(0.0)
    assert (effect.to, effect.message) == (SET, m.TaskBody(1000, 0, [1], [2, 3]))
    assert [bytes(part) for part in effect.body] == [b"ab", b"cde"]


def test_a_large_result_is_passed_on_as_a_stream(stage: Stage) -> None:
    stage.submit(1, [b"a", b"b"])
    stage.submit(2, after=[(1, 1)])
    stage.answer_large(SET, (1, 1), stream=8, rank=1)
    assert stage.forwards == [Forward(SET, 8, BIG, ((ALICE, m.TaskDone(1, 1, 1, [BIG])),))]
    assert (2, 0) in stage.given[SET]
    stage.answer_large(SET, (1, 0), stream=0)
    assert stage.kinds(1, 2) == ["large", "large"]
    assert stage.counts() == (0, 1, 2, 0)


def test_which_large_results_are_on_their_way_to_whom(stage: Stage) -> None:
    stage.submit(1)
    serial = stage.given[SET].pop((1, 0)).serial
    stage.farm.result(SET, m.LargeTaskResult(serial, 0, 0, 0.1, [BIG]), [], 7)
    stage.flush()
    assert stage.farm.large.to_client(ALICE) == [(SET, 7)]
    assert stage.farm.large.to_client(BOB) == []
    stage.farm.result_passed_on(SET, 7, False)
    assert stage.farm.large.to_client(ALICE) == []
    stage.flush()
    assert (1, 0) in stage.given[SET], "it runs again"


def test_a_large_result_that_comes_from_engines_that_are_lost_ends_its_task(stage: Stage) -> None:
    """Their agent has all of it, and has told first that they are lost: its task was given to others meanwhile."""
    stage.submit(1)
    stage.submit(2, after=[(1, 0)])
    serial = stage.given[SET].pop((1, 0)).serial
    stage.farm.result(SET, m.LargeTaskResult(serial, 0, 0, 0.1, [BIG]), [], 7)
    stage.flush()
    stage.lose_ranks(SET, [0, 1])
    stage.add_set(OTHER, 2)
    assert (1, 0) in stage.given[OTHER]
    stage.farm.result_passed_on(SET, 7, True)
    stage.flush()
    assert (2, 0) in stage.given[OTHER], "it waited for the first one"
    stage.answer(OTHER, [(1, 0)])
    assert stage.ends.get((ALICE, 1, 0), []) == [], "its client has had the result"
    stage.answer(OTHER, [(2, 0)])
    assert stage.counts() == (0, 0, 2, 0)


def test_a_large_result_that_is_lost_half_way_is_made_again(stage: Stage) -> None:
    stage.submit(1)
    stage.answer_large(SET, (1, 0), complete=False)
    assert stage.counts() == (0, 1, 0, 0)
    assert (1, 0) in stage.given[SET]
    stage.answer(SET, [(1, 0)])
    assert stage.kinds(1, 1) == ["ok"]
