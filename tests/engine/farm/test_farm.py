"""What the root agent says to its ranks and to the controller about tasks, event by event."""

from __future__ import annotations

import pytest
from set_stage import Stage, brief, options, returned

from ipmpi import limits
from ipmpi.engine.farm.scheduler import Down, Up
from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import messages as m, packed

# --- sharing out --------------------------------------------------------------------------------------------


def test_of_unknown_tasks_each_rank_gets_one() -> None:
    stage = Stage()
    stage.give(range(10))
    effects = stage.said()
    assert [effect.ranks for effect in effects if isinstance(effect, Down)] == [[0], [1], [2], [3]]
    assert [bytes(effect.body[0]) for effect in effects if isinstance(effect, Down)] == [
        b"00",
        b"01",
        b"02",
        b"03",
    ]
    assert all(effect.message.sizes == [2] for effect in effects if isinstance(effect, Down))


def test_batches_of_short_tasks_are_large_and_end_small() -> None:
    stage = Stage()
    stage.warm(1e-5)
    stage.give(range(4000))
    sizes = [len(packed.unpack(message.indices)) for message in stage.get(m.GiveTasks)]
    assert sizes[0] == 500
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 100
    assert sum(sizes) == 4000


def test_the_rank_that_became_idle_last_gets_the_next_task() -> None:
    stage = Stage()
    stage.give(range(4))
    stage.said()
    for rank in (1, 3, 2):
        stage.answer(rank, [rank])
    stage.said()
    stage.give([10, 11])
    assert brief(stage.get(m.GiveTasks)) == {2: [10], 3: [11]}


def test_results_go_up_untouched_and_those_of_nobody_do_not() -> None:
    stage = Stage()
    stage.give(range(2))
    stage.said()
    message = stage.answer(0, [0])
    stage.answer(1, [7])
    stage.answer(0, [1], group=8)
    stage.answer(17, [1])
    assert [effect.message for effect in stage.said() if isinstance(effect.message, m.TaskResults)] == [message]


def test_bound_tasks_run_where_they_must_and_go_back_when_that_rank_is_lost() -> None:
    stage = Stage()
    stage.give([0], ranks=[2])
    assert brief(stage.get(m.GiveTasks)) == {2: [0]}
    stage.give([1, 2], ranks=[2])
    stage.give([3], ranks=[2, 3])
    assert brief(stage.get(m.GiveTasks)) == {3: [3]}
    stage.farm.remove_ranks([2], 0.0)
    assert sorted(returned(stage.said())) == [([0], 2, "lost"), ([1, 2], -1, "taken")]
    stage.give([4], ranks=[2])
    assert returned(stage.said()) == [([4], -1, "taken")]


def test_a_task_given_alone_has_a_rank_for_itself() -> None:
    stage = Stage(2)
    stage.warm(1e-5)
    stage.give([0], alone=True)
    stage.give(range(10, 20))
    assert brief(stage.get(m.GiveTasks)) == {0: [0], 1: list(range(10, 20))}


def test_a_large_task_is_given_without_its_body_which_is_asked_for() -> None:
    stage = Stage()
    stage.farm.give(m.GiveTasks(1, options(), packed.pack([0]), b""), [], 0.0)
    (given,) = stage.get(m.GiveTasks)
    assert (given.lengths, given.ranks) == (b"", [0])
    want = m.WantTaskBody(1, 0, [0])
    stage.farm.want_body(want, 0.0)
    stage.farm.want_body(m.WantTaskBody(1, 5, [0]), 0.0)
    stage.farm.want_body(m.WantTaskBody(2, 0, [0]), 0.0)
    assert stage.said() == [Up(want)]
    stage.farm.result(m.LargeTaskResult(1, 0, 0, 0.0005, [100_000]), 0.0)
    stage.give([1])
    assert brief(stage.get(m.GiveTasks)) == {0: [1]}


def test_one_message_has_no_more_payload_than_a_message_may() -> None:
    stage = Stage(1)
    stage.warm(1e-6)
    sizes = [60_000, 30_000, 30_000, 10, 90_000]
    stage.farm.give(
        m.GiveTasks(1, options(), packed.pack(range(5)), packed.pack(sizes), [], False, [sum(sizes)]),
        [bytes(sum(sizes))],
        0.0,
    )
    given = [message for message in stage.get(m.GiveTasks)]
    assert sum(sum(message.sizes) for message in given) == sum(sizes)
    assert all(sum(message.sizes) <= limits.TASK_BATCH for message in given)


@pytest.mark.parametrize(
    ("indices", "lengths", "body"),
    [([1, 2], [], b""), ([1, 2], [1], b"a"), ([1], [3], b"ab"), ([1], [1, 1], b"ab")],
)
def test_what_contradicts_itself_is_a_protocol_error(indices: list[int], lengths: list[int], body: bytes) -> None:
    stage = Stage()
    message = m.GiveTasks(1, options(), packed.pack(indices), packed.pack(lengths), [], False, [len(body)])
    with pytest.raises(RemoteProtocolError):
        stage.farm.give(message, [body], 0.0)


# --- windows and taking back -----------------------------------------------------------------------------------


def test_the_window_follows_the_pace_and_the_size_of_tasks() -> None:
    stage = Stage()
    for seconds, window in ((1e-6, 20_000), (0.001, 120), (0.02, 12), (600.0, 4)):
        stage = Stage()
        stage.give([0])
        stage.said()
        stage.answer(0, [0], seconds)
        assert [want.window for want in stage.get(m.WantTasks)] == ([window] if window != 4 else [])
    stage = Stage()
    body = bytes(60_000)
    for index in range(30):
        message = m.GiveTasks(1, options(), packed.pack([index]), packed.pack([60_000]), [0], False, [60_000])
        stage.farm.give(message, [body], 0.0)
        stage.said()
        stage.answer(0, [index], 1e-6)
    stage.said()
    assert 500 < stage.farm._window < 2000


def test_waiting_tasks_go_back_only_if_they_are_much_more_work_than_is_wanted() -> None:
    stage = Stage()
    stage.warm(1e-4)
    stage.give(range(1000))
    (first, *_) = stage.get(m.GiveTasks)
    given = list(packed.unpack(first.indices))
    stage.answer(first.ranks[0], given[:50], 5e-4)  # a tenth of a second of work waits, at most
    effects = stage.said()
    assert [effect for effect in effects if isinstance(effect.message, m.WantTasks)], "the window has shrunk"
    assert returned(effects) == []
    stage.answer(first.ranks[0], given[50:], 0.02)
    assert returned(stage.said()), "more than ten seconds of work"


def test_what_came_last_is_taken_back_first_and_then_what_waits_at_ranks() -> None:
    stage = Stage(1)
    stage.warm(0.004)
    stage.give(range(8))
    (first, *_) = stage.get(m.GiveTasks)
    at_rank = list(packed.unpack(first.indices))
    stage.give([50], group=2)
    stage.farm.take_back(m.TakeBackTasks(2), 0.0)
    effects = stage.said()
    assert returned(effects)[0] == ([50], -1, "taken")
    stage.farm.take_back(m.TakeBackTasks(100), 0.0)
    asked = [effect.message for effect in stage.said() if isinstance(effect.message, m.TakeBackTasks)]
    assert asked[0].ranks == [0]
    assert asked[0].count > 0
    stage.farm.returned(m.TasksReturned(1, packed.pack(at_rank[-1:]), 0, "taken"), 0.0)
    assert returned(stage.said()) == [(at_rank[-1:], 0, "taken")]


def test_an_idle_rank_gets_half_of_what_waits_behind_a_slow_task() -> None:
    stage = Stage(2)
    stage.warm(1e-5)
    stage.give(range(9), ranks=[1])
    assert brief(stage.get(m.GiveTasks)) == {1: list(range(9))}
    stage.now = 0.019
    assert stage.get(m.TakeBackTasks) == []
    deadline = stage.farm.next_deadline()
    assert deadline == pytest.approx(0.02)
    stage.now = deadline
    assert stage.get(m.TakeBackTasks) == [m.TakeBackTasks(4, [1])]


def test_all_that_waits_behind_a_long_task_is_taken_back_although_no_rank_is_idle() -> None:
    stage = Stage(2)
    stage.warm(1e-5)
    stage.give(range(3))
    stage.give([50, 51], group=2, operation=b"g")
    stage.said()
    stage.now = 0.11
    assert {(message.count, message.ranks[0]) for message in stage.get(m.TakeBackTasks)} >= {(3, 0)}


def test_a_rank_with_a_command_gets_nothing_and_a_long_one_sends_its_tasks_elsewhere() -> None:
    stage = Stage(2)
    stage.give([0, 1])
    stage.said()
    stage.farm.command_given([0, 1], 0.0)
    stage.answer(1, [1])
    stage.give([2])
    assert stage.get(m.GiveTasks) == []
    stage.farm.command_answered([1], 0.0)
    assert brief(stage.get(m.GiveTasks)) == {1: [2]}
    stage.now = 0.2
    effects = stage.said()
    assert Down([0], m.TakeBackTasks(1, [0])) in effects
    assert Up(m.WantTasks(1)) in effects
    stage.farm.command_answered([0], 0.2)
    assert stage.get(m.WantTasks) == [m.WantTasks(2)]


def test_when_no_rank_may_start_tasks_all_that_waits_goes_back() -> None:
    stage = Stage(2)
    stage.give([0, 1, 2])
    stage.give([3], ranks=[1])
    stage.give([5], width=2, group=2)
    stage.said()
    stage.farm.reserve([0, 1], True, 0.0)
    effects = stage.said()
    assert Up(m.WantTasks(0)) in effects
    assert Down([0], m.TakeBackTasks(1, [0])) in effects
    assert sorted(returned(effects)) == [([2], -1, "taken"), ([3], -1, "taken"), ([5], -1, "taken")]
    stage.farm.reserve([0], False, 0.0)
    assert stage.get(m.WantTasks) == [m.WantTasks(1)]


def test_tasks_that_were_on_their_way_when_no_rank_could_start_any_more_go_back() -> None:
    stage = Stage(2)
    stage.farm.reserve([0, 1], True, 0.0)
    assert stage.get(m.WantTasks) == [m.WantTasks(0)]
    stage.give([7])
    stage.give([8], ranks=[1])
    assert sorted(returned(stage.said())) == [([7], -1, "taken"), ([8], -1, "taken")]


def test_waiting_tasks_are_cancelled_here_and_others_by_their_rank() -> None:
    stage = Stage(2)
    stage.give(range(6))
    stage.said()
    stage.farm.cancel(m.CancelTasks(1, packed.pack([0, 3, 5, 77]), True), 0.0)
    effects = stage.said()
    assert returned(effects) == [([3, 5], -1, "cancelled")]
    assert Down([0], m.CancelTasks(1, packed.pack([0]), True, [0])) in effects
    running = m.TasksReturned(1, packed.pack([0]), 0, "running")
    stage.farm.returned(running, 0.0)
    assert stage.said() == [Up(running)]
    stage.answer(0, [0])
    stage.answer(1, [1])
    effects = stage.said()
    assert sorted(bytes(e.body[0]) for e in effects if isinstance(e.message, m.GiveTasks)) == [b"02", b"04"]


def test_a_new_controller_hears_nothing_of_what_the_old_one_gave() -> None:
    stage = Stage(2)
    stage.give(range(3))
    stage.give([0], width=2, group=2)
    stage.said()
    stage.farm.reset()
    effects = stage.said()
    assert {type(effect.message) for effect in effects} == {m.CancelTasks, m.WantTasks}
    stage.farm.returned(m.TasksReturned(1, packed.pack([0]), 0, "running"), 0.0)
    stage.answer(0, [0])
    stage.farm.remove_ranks([1], 0.0)
    assert all(isinstance(effect.message, m.WantTasks) for effect in stage.said())
    stage.give([0], group=3)
    assert brief(stage.get(m.GiveTasks)) == {0: [0]}


def test_a_lost_rank_speaks_only_against_what_may_have_run() -> None:
    stage = Stage(2)
    stage.warm(0.001)
    stage.give(range(20), ranks=[1])
    batches = [list(packed.unpack(message.indices)) for message in stage.get(m.GiveTasks)]
    assert len(batches) > 1
    stage.answer(1, batches[0][:2], 0.001)
    stage.farm.remove_ranks([1], 0.0, died=True)
    told = returned(stage.said())
    lost = [(indices, rank) for indices, rank, why in told if why == "lost"]
    assert lost == [(batches[0][2:], 1)]
    taken = sorted(index for indices, _, why in told if why == "taken" for index in indices)
    assert taken == sorted({*range(20)}.difference(batches[0]))


def test_what_ran_on_ranks_that_were_told_to_end_is_not_to_blame() -> None:
    stage = Stage(2)
    stage.give(range(6))
    given = brief(stage.get(m.GiveTasks))
    stage.farm.remove_ranks(list(given), 0.0, died=True, ordered=True)
    told = returned(stage.said())
    running = {index for indices in given.values() for index in indices[:1]}
    assert {index for indices, _, why in told if why == "ended" for index in indices} == running
    assert not [why for _, _, why in told if why == "lost"]


def test_the_controller_hears_of_tasks_before_ranks_get_them() -> None:
    stage = Stage(2)
    stage.give(range(5))
    effects = stage.farm.decide(stage.now)
    first = effects[0].message
    assert isinstance(first, m.TasksStarted)
    given = [e.message for e in effects if isinstance(e.message, m.GiveTasks)]
    assert given
    assert first.indices == b"".join(message.indices for message in given)
