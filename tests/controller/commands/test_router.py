"""Queues, answers and losses, each rule by itself; effects are compared, not internals."""

from __future__ import annotations

from typing import Any

import pytest

from ipmpi import errors, limits
from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Decline, Effect, Forward, GiveUp, Send, refusal
from ipmpi.protocol import messages as m

ALICE, BOB, SET, OTHER = 1, 2, 10, 11
BIG = 500_000


def rows(router: Router, targets: list[int] | None) -> list[list[Any]]:
    """The queue of each engine: its id, what it runs, and what waits."""
    return [[engine, runs, waiting] for part, runs, waiting in router.queue_status(targets) for engine in part]


def register(router: Router, key: int, count: int) -> list[int]:
    infos = [m.EngineInfo(rank, rank, "n1", 100 + rank) for rank in range(count)]
    ids = router.register(key, m.Register(infos, "MPI", "3.11"))
    router.flush()
    return ids


@pytest.fixture
def router() -> Router:
    """Engines 0-2 in one set, 3-4 in another."""
    router = Router()
    register(router, SET, 3)
    register(router, OTHER, 2)
    return router


def command(
    router: Router,
    number: int,
    targets: list[int] | None,
    *,
    client: int = ALICE,
    body: bytes = b"",
    stream: int = 0,
) -> None:
    sizes = [len(body)] if body else [BIG] if stream else []
    message = m.Command(number, targets, "execute", f"command {number}", b"op", sizes)
    router.command(client, message, [body] if body else [], stream)


def answer(
    router: Router, key: int, dispatch: m.AnyMessage, ranks: list[int], *, ok: bool = True, stream: int = 0
) -> None:
    assert isinstance(dispatch, m.Dispatch)
    router.result(key, m.Result(dispatch.id, ranks, ok, b"out", [BIG] if stream else []), [], stream)


def sent(effects: list[Effect], kind: type[Any]) -> list[tuple[int, Any]]:
    return [(e.to, e.message) for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def dispatches(router: Router) -> list[tuple[int, m.Dispatch]]:
    """What goes to engine sets now, with or without a streamed body."""
    found: list[tuple[int, Any]] = []
    for effect in router.flush():
        pairs = effect.sinks if isinstance(effect, Forward) else ()
        pairs = ((effect.to, effect.message),) if isinstance(effect, Send) else pairs
        found += [pair for pair in pairs if isinstance(pair[1], m.Dispatch)]
    return found


# --- queues ----------------------------------------------------------------------------------------------


def test_one_message_per_set(router: Router) -> None:
    command(router, 1, None, body=b"abc")
    effects = router.flush()
    assert [(to, message.ranks) for to, message in sent(effects, m.Dispatch)] == [
        (SET, [0, 1, 2]),
        (OTHER, [0, 1]),
    ]
    assert all(effect.body == [b"abc"] for effect in effects if isinstance(effect, Send))


def test_queue_order_and_one_at_a_time(router: Router) -> None:
    for number in (1, 2, 3):
        command(router, number, [0])
    command(router, 4, [1])
    ((_, first), (_, fourth)) = dispatches(router)
    assert rows(router, [0, 1]) == [[0, "command 1", ["command 2", "command 3"]], [1, "command 4", []]]
    answer(router, SET, first, [0])
    ((_, second),) = dispatches(router)
    assert first.id < second.id < fourth.id
    answer(router, SET, second, [0])
    ((_, third),) = dispatches(router)
    assert second.id < third.id


def test_since_when_an_engine_runs_a_command(router: Router) -> None:
    assert router.busy_since(0) is None
    command(router, 1, [0])
    command(router, 2, [0])
    (given,) = [effect.message for effect in router.flush(100.0) if isinstance(effect, Send)]
    router.flush(200.0)
    assert [router.busy_since(0), router.busy_since(1)] == [100.0, None]
    answer(router, SET, given, [0])
    assert router.busy_since(0) is None, "it was not given the next one yet"
    router.flush(300.0)
    assert router.busy_since(0) == 300.0


def test_a_command_joins_all_queues_in_one_step(router: Router) -> None:
    command(router, 1, [0])
    command(router, 2, [0, 1])
    command(router, 3, [1, 0], client=BOB)
    status = {engine: [running, *waiting] for engine, running, waiting in rows(router, [0, 1])}
    assert status[0] == ["command 1", "command 2", "command 3"]
    assert status[1] == ["command 2", "command 3"]


def test_answers_go_to_the_client_with_engine_ids(router: Router) -> None:
    command(router, 7, [4, 3])
    ((key, dispatch),) = dispatches(router)
    answer(router, key, dispatch, [0, 1])
    assert router.flush() == [Send(ALICE, m.Result(7, [3, 4], True, b"out"), [])]


def test_who_was_meant_by_all_is_said_before_the_first_answer(router: Router) -> None:
    command(router, 1, None)
    (first, _) = dispatches(router)
    answer(router, SET, first[1], [1])
    answer(router, SET, first[1], [0, 2])
    kinds = [type(e.message).__name__ for e in router.flush() if isinstance(e, Send)]
    assert kinds == ["Accepted", "Result", "Result"]


def test_engines_that_become_free_in_one_turn_share_a_message(router: Router) -> None:
    command(router, 1, [0, 1, 2])
    command(router, 2, [0, 1, 2])
    ((_, first),) = dispatches(router)
    answer(router, SET, first, [0])
    answer(router, SET, first, [2])
    ((_, second),) = dispatches(router)
    assert second.ranks == [0, 2]


# --- failures --------------------------------------------------------------------------------------------


def test_a_failure_clears_the_queue_of_its_engine_for_all_clients(router: Router) -> None:
    command(router, 1, [0, 1])
    command(router, 2, [0, 1])
    command(router, 3, [0], client=BOB)
    ((_, first),) = dispatches(router)
    answer(router, SET, first, [0], ok=False)
    effects = router.flush()
    undone = dict(sent(effects, m.Undone))
    assert undone[ALICE].engines == undone[BOB].engines == [0]
    assert (undone[ALICE].id, undone[ALICE].error, undone[BOB].id) == (2, "QueueCleared", 3)
    assert undone[BOB].text == "command 1 failed on engine 0, which cleared its queue"
    assert rows(router, [0, 1]) == [[0, None, []], [1, "command 1", ["command 2"]]]


def test_clear_queue_leaves_what_runs(router: Router) -> None:
    command(router, 1, [0])
    command(router, 2, [0, 1])
    router.flush()
    assert router.clear_queue([0]) == [0]
    ((to, undone),) = sent(router.flush(), m.Undone)
    assert (to, undone.id, undone.engines, undone.error) == (ALICE, 2, [0], "QueueCleared")
    assert rows(router, [0]) == [[0, "command 1", []]]


def test_lost_engine_answers_for_what_ran_and_waited(router: Router) -> None:
    command(router, 1, [0, 1])
    command(router, 2, [0])
    ((_, first),) = dispatches(router)
    assert router.ranks_lost(SET, [0, 99], "signal 9") == [0]
    undone = [message for _, message in sent(router.flush(), m.Undone)]
    assert [(u.id, u.engines, u.error) for u in undone] == [(1, [0], "EngineLost"), (2, [0], "EngineLost")]
    assert undone[0].text == "engine 0 (rank 0, pid 100 on n1) is gone: signal 9"
    assert undone[0].death == m.Death(0, 100, "n1"), "nothing else is known"
    answer(router, SET, first, [0, 1])
    ((_, result),) = sent(router.flush(), m.Result)
    assert result.engines == [1]
    assert router.stale_results == 1
    with pytest.raises(errors.InvalidEngineID, match=r"id 0 is not registered \(registered: 1-4\)"):
        command(router, 3, [0])


def test_what_is_known_of_a_death_reaches_all_who_waited_for_the_engine(router: Router) -> None:
    command(router, 1, [0, 1])
    command(router, 2, [0])
    router.flush()
    death = m.Death(0, 100, "n1", signal=9, oom=True, ran="execute", seconds=41.0)
    router.ranks_lost(SET, [0], "the kernel ended it", 60.0, death)
    undone = [message for _, message in sent(router.flush(), m.Undone)]
    assert [(u.id, u.death) for u in undone] == [(1, death), (2, death)]


def test_of_an_engine_whose_node_is_lost_the_controller_knows_what_it_ran(router: Router) -> None:
    command(router, 1, [0, 1])
    command(router, 2, [0])
    router.flush(10.0)
    router.ranks_lost(SET, [0], "its node is down", 51.4)
    router.set_lost(SET, "its link is lost", 55.0)
    undone = [message for _, message in sent(router.flush(60.0), m.Undone)]
    assert [(u.id, u.engines) for u in undone] == [(1, [0]), (2, [0]), (1, [1])]
    assert undone[0].text.endswith("on n1) is gone: its node is down; it ran command 1 for 41 s")
    assert undone[2].text.endswith("is gone: its link is lost; it ran command 1 for 45 s")


def test_lost_set(router: Router) -> None:
    command(router, 1, None)
    router.flush()
    assert router.set_lost(SET, "gone") == [0, 1, 2]
    assert router.set_lost(SET, "gone") == []
    assert router.registry.ids() == [3, 4]


def test_kill(router: Router) -> None:
    command(router, 1, [2])
    router.flush()
    assert router.kill([2, 3]) == [2, 3]
    effects = router.flush()
    assert sent(effects, m.StopRanks) == [(SET, m.StopRanks([2])), (OTHER, m.StopRanks([0]))]
    assert "ended by kill()" in sent(effects, m.Undone)[0][1].text
    assert router.registry.ids() == [0, 1, 4]


def test_interrupt_reaches_only_the_busy(router: Router) -> None:
    command(router, 1, [1, 4])
    router.flush()
    assert list(router.interrupt(None)) == [1, 4]
    assert router.flush() == [Send(SET, m.InterruptRanks([1])), Send(OTHER, m.InterruptRanks([1]))]
    assert router.interrupt([0]) == {}
    assert router.flush() == []


def test_an_interrupt_of_a_command_spares_what_others_run(router: Router) -> None:
    command(router, 1, [0, 1])
    command(router, 5, [2, 4], client=BOB)
    command(router, 2, [0, 2])
    router.flush()
    assert router.interrupt(None, ALICE, [1, 99]).keys() == {0, 1}
    assert router.flush() == [Send(SET, m.InterruptRanks([0, 1]))]
    assert router.interrupt(None, BOB, [1]) == {}  # it is another one's number


@pytest.mark.parametrize("commands", [None, [1]])
def test_an_interrupt_of_a_command_that_ends_in_the_same_turn_spares_the_next_one(
    router: Router, commands: list[int] | None
) -> None:
    command(router, 1, [0, 1])
    command(router, 5, [0, 1], client=BOB)
    ((_, first),) = dispatches(router)
    assert router.interrupt([0, 1], ALICE, commands).keys() == {0, 1}
    answer(router, SET, first, [0])
    effects = router.flush()
    assert [dispatch.number for _, dispatch in sent(effects, m.Dispatch)] == [5]
    assert sent(effects, m.InterruptRanks) == [(SET, m.InterruptRanks([1]))]


def test_an_interrupted_command_leaves_the_queues_in_which_it_waits(router: Router) -> None:
    command(router, 5, [0, 1], client=BOB)
    command(router, 1, [0, 1, 2])
    command(router, 2, [0])
    router.flush()
    assert router.interrupt(None, ALICE, [1]).keys() == {2}
    effects = router.flush()
    ((to, undone),) = sent(effects, m.Undone)
    assert (to, undone.id, undone.engines, undone.error) == (ALICE, 1, [0, 1], "KeyboardInterrupt")
    assert sent(effects, m.InterruptRanks) == [(SET, m.InterruptRanks([2]))]
    assert rows(router, [0, 1]) == [[0, "command 5", ["command 2"]], [1, "command 5", []]]


def test_a_command_for_one_idle_engine_is_not_queued(router: Router) -> None:
    command(router, 1, [0, 1])
    router.flush()
    router.command(BOB, m.Command(1, None, "complete", "complete", b"", one_idle=True), [], 0)
    effects = router.flush()
    ((to, dispatch),) = sent(effects, m.Dispatch)
    assert (to, dispatch.ranks) == (SET, [2])
    answer(router, SET, dispatch, [2])
    assert sent(router.flush(), m.Result)[0][1].engines == [2]
    with pytest.raises(errors.EngineBusy, match="only for an idle engine"):
        router.command(BOB, m.Command(2, [0, 1], "complete", "complete", b"", one_idle=True), [], 0)
    assert [waiting for _, _, waiting in rows(router, [0, 1])] == [[], []]


@pytest.mark.parametrize(
    ("serial", "ranks", "stale"), [(999, [0], 1), (None, [1], 1), (None, [0, 0, 0], 2), (None, [0, 77, -1], 2)]
)
def test_answers_to_what_was_not_asked_are_dropped(
    router: Router, serial: int | None, ranks: list[int], stale: int
) -> None:
    command(router, 1, [0])
    ((_, dispatch),) = dispatches(router)
    router.result(SET, m.Result(serial or dispatch.id, ranks, True, b""), [], 0)
    assert router.stale_results == stale
    assert len(sent(router.flush(), m.Result)) == len(ranks) - stale


def test_another_set_cannot_answer(router: Router) -> None:
    command(router, 1, [0])
    ((_, dispatch),) = dispatches(router)
    router.result(OTHER, m.Result(dispatch.id, [0], True, b"", [BIG]), [], 33)
    assert router.flush() == [Decline(OTHER, 33)]
    assert rows(router, [0]) == [[0, "command 1", []]]


def test_a_set_that_registers_again_loses_what_it_had(router: Router) -> None:
    command(router, 1, [0])
    router.flush()
    router.register(SET, m.Register([m.EngineInfo(0, 0, "n1", 5)], "", ""))
    ((_, undone),) = sent(router.flush(), m.Undone)
    assert (undone.error, undone.engines) == ("EngineLost", [0])
    assert router.registry.ids() == [0, 3, 4]
    command(router, 2, None)
    assert [message.ranks for _, message in dispatches(router)] == [[0], [0, 1]]


# --- streamed bodies -------------------------------------------------------------------------------------


def test_body_is_forwarded_once_to_all_that_are_free(router: Router) -> None:
    command(router, 1, None, stream=5)
    (forward,) = router.flush()
    assert isinstance(forward, Forward)
    assert (forward.source, forward.stream, forward.size) == (ALICE, 5, BIG)
    assert [to for to, _ in forward.sinks] == [SET, OTHER]


def test_body_is_asked_for_again(router: Router) -> None:
    command(router, 1, [1])
    command(router, 2, [2])
    command(router, 3, [0, 1, 2], stream=5)
    one, two, _three = (message for _, message in dispatches(router))
    answer(router, SET, one, [1])
    assert sent(router.flush(), m.SendBodyAgain) == [(ALICE, m.SendBodyAgain(3))]
    answer(router, SET, two, [2])
    assert not sent(router.flush(), m.SendBodyAgain), "asked once"
    router.body_again(ALICE, m.BodyAgain(3, [BIG]), 6)
    (forward,) = router.flush()
    assert isinstance(forward, Forward)
    assert (forward.stream, forward.sinks[0][1].ranks) == (6, [1, 2])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "again", [m.BodyAgain(3, [BIG]), m.BodyAgain(1, [BIG - 1])], ids=["unknown", "other size"]
)
def test_body_that_nobody_asked_for(router: Router, again: m.BodyAgain) -> None:
    command(router, 2, [0])
    command(router, 1, [0, 1], stream=5)
    two, _ = (message for _, message in dispatches(router))
    answer(router, SET, two, [0])
    assert sent(router.flush(), m.SendBodyAgain) == [(ALICE, m.SendBodyAgain(1))]
    router.body_again(ALICE, again, 9)
    assert router.flush() == [Decline(ALICE, 9)]


def test_body_that_comes_when_its_engine_is_gone_is_kept_for_the_next(router: Router) -> None:
    command(router, 1, [1])
    command(router, 2, [2])
    command(router, 3, [0, 1, 2], stream=5)
    one, two, _ = (message for _, message in dispatches(router))
    answer(router, SET, one, [1])
    router.flush()
    router.ranks_lost(SET, [1], "killed")
    router.body_again(ALICE, m.BodyAgain(3, [BIG]), 6)
    assert not sent(router.flush(), m.SendBodyAgain)
    answer(router, SET, two, [2])
    ((_, again),) = dispatches(router)
    assert again.ranks == [2]


def test_stream_of_a_command_that_never_runs_is_declined(router: Router) -> None:
    command(router, 1, [0])
    command(router, 2, [0], stream=5)
    router.flush()
    router.clear_queue([0])
    assert Decline(ALICE, 5) in router.flush()


def test_engine_gets_its_next_command_while_its_answer_passes(router: Router) -> None:
    command(router, 1, [0])
    command(router, 2, [0])
    ((_, first),) = dispatches(router)
    answer(router, SET, first, [0], stream=8)
    effects = router.flush()
    assert effects[0] == Forward(SET, 8, BIG, ((ALICE, m.Result(1, [0], True, b"out", [BIG])),))
    ((_, second),) = sent(effects, m.Dispatch)
    assert second.id > first.id
    answer(router, SET, first, [0])
    assert router.stale_results == 1, "one answer each"
    assert router.passing() == {0: [("command 1", ALICE)]}
    router.forward_ended(SET, 8)
    assert router.passing() == {}
    assert rows(router, [0]) == [[0, "command 2", []]]
    assert router.flush() == []


def test_client_is_told_why_the_body_of_an_answer_does_not_come(router: Router) -> None:
    command(router, 1, [0])
    ((_, first),) = dispatches(router)
    answer(router, SET, first, [0], stream=8)
    router.flush()
    router.ranks_lost(SET, [0], "killed")
    assert not sent(router.flush(), m.Undone)
    register(router, 12, 1)
    command(router, 2, [0])
    router.flush()
    router.forward_ended(SET, 8, complete=False)
    ((to, undone),) = sent(router.flush(), m.Undone)
    assert (to, undone.id, undone.engines, undone.error) == (ALICE, 1, [0], "EngineLost")
    assert "command 1" in undone.text
    assert "killed" in undone.text
    assert rows(router, [0]) == [[0, "command 2", []]], "the new engine 0 is not freed"


def test_an_answer_that_nobody_takes_is_given_up_if_others_wait_for_the_engine(router: Router) -> None:
    def nobody(engine: int, client: int) -> bool:
        return False

    command(router, 1, [0])
    command(router, 2, [0])
    ((_, first),) = dispatches(router)
    answer(router, SET, first, [0], stream=8)
    router.flush()
    stuck = m.AnswerStuck(0, first.id)
    assert router.stuck(SET, stuck, nobody) == 0, "its client waits for itself"
    assert router.stuck(SET, m.AnswerStuck(1, first.id), nobody) == 0
    assert router.stuck(OTHER, stuck, nobody) == 0
    assert router.flush() == []
    command(router, 1, [0], client=BOB)
    assert router.stuck(SET, stuck, nobody) == ALICE
    assert GiveUp(SET, 8) in router.flush()
    router.give_up(SET, 8)
    router.forward_ended(SET, 8, complete=False)
    ((to, undone),) = sent(router.flush(), m.Undone)
    assert (to, undone.error) == (ALICE, "ConnectionError")
    assert "others waited for the engine" in undone.text


def test_a_command_that_waits_for_its_data_is_interrupted_at_once(router: Router) -> None:
    command(router, 1, [0])
    command(router, 2, [0, 1], stream=5)
    ((_, first), *_) = dispatches(router)
    answer(router, SET, first, [0])
    router.flush()  # engine 1 had the data, engine 0 asks for them again
    command(router, 3, [0])
    busy = router.interrupt([0])
    assert [work.id for work in busy.values()] == [2]
    effects = router.flush()
    ((to, undone),) = [(to, m_) for to, m_ in sent(effects, m.Undone) if m_.id == 2]
    assert (to, undone.engines, undone.error) == (ALICE, [0], "KeyboardInterrupt")
    assert [m_.error for _, m_ in sent(effects, m.Undone) if m_.id == 3] == ["QueueCleared"]
    assert not sent(effects, m.InterruptRanks)
    assert not any(router.runs(engine, work) for engine, work in busy.items())


# --- clients that leave ----------------------------------------------------------------------------------


def test_commands_of_a_lost_client_run_if_their_bodies_are_here(router: Router) -> None:
    command(router, 1, [0])
    command(router, 2, [0], body=b"here")
    command(router, 3, [0], stream=5)
    ((_, first),) = dispatches(router)
    router.client_lost(ALICE)
    answer(router, SET, first, [0])
    ((_, second),) = dispatches(router)
    answer(router, SET, second, [0])
    assert router.flush() == []
    assert rows(router, [0]) == [[0, None, []]]
    assert router._works == {}


def test_engine_that_waits_for_the_body_of_a_lost_client_is_set_free(router: Router) -> None:
    command(router, 1, [1])
    command(router, 2, [0, 1], stream=5)
    command(router, 3, [1], client=BOB)
    one, _two = (message for _, message in dispatches(router))
    answer(router, SET, one, [1])
    assert sent(router.flush(), m.SendBodyAgain)
    router.client_lost(ALICE)
    ((_, third),) = dispatches(router)
    assert third.ranks == [1]


def test_answer_for_a_lost_client_is_declined(router: Router) -> None:
    command(router, 1, [0])
    ((_, first),) = dispatches(router)
    router.client_lost(ALICE)
    answer(router, SET, first, [0], stream=8)
    assert router.flush() == [Decline(SET, 8)]


# --- refusals --------------------------------------------------------------------------------------------


def test_command_for_nobody(router: Router) -> None:
    with pytest.raises(errors.InvalidEngineID, match="list of targets is empty"):
        command(router, 1, [])
    with pytest.raises(errors.InvalidEngineID, match="list of targets is empty"):
        router.command(BOB, m.Command(2, [], "complete", "complete", b"", one_idle=True), [], 0)
    with pytest.raises(errors.NoEnginesRegistered, match="mpirun -n 4 ipengine"):
        command(Router(), 1, None)


def test_number_that_is_in_use(router: Router) -> None:
    command(router, 1, [0])
    with pytest.raises(errors.ClientError, match="command 1 is under way"):
        command(router, 1, [0])
    command(router, 1, [0], client=BOB)


def test_backpressure_by_number(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLIENT_COMMANDS", 3)
    for number in range(3):
        command(router, number, [0])
    with pytest.raises(errors.Backpressure, match="3 commands of this client wait"):
        command(router, 3, [0])
    command(router, 3, [0], client=BOB)


def test_backpressure_by_bytes_ends_when_commands_do(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLIENT_INLINE_BACKLOG", 100)
    command(router, 1, [0, 1], body=b"x" * 150)
    with pytest.raises(errors.Backpressure):
        command(router, 2, [0], body=b"x" * 51)
    command(router, 3, [1])
    (first, *_) = dispatches(router)
    answer(router, SET, first[1], [0, 1])
    command(router, 2, [0], body=b"x" * 200)


def test_what_would_not_fit_into_the_message_to_the_engines(router: Router) -> None:
    operation = b"x" * (limits.MESSAGE - 1000)
    with pytest.raises(errors.MessageSizeError, match="Push large data first"):
        router.command(ALICE, m.Command(1, None, "execute", "big", operation), [], 0)


def test_answer_that_would_not_fit_into_the_message_to_the_client(router: Router) -> None:
    command(router, 1, [0])
    ((key, dispatch),) = dispatches(router)
    router.result(key, m.Result(dispatch.id, dispatch.ranks, True, b"x" * (limits.MESSAGE - 50)), [], 0)
    ((_, undone),) = sent(router.flush(), m.Undone)
    assert undone.error == "MessageSizeError"
    assert rows(router, [0]) == [[0, None, []]]
    assert router._works == {}


def test_labels_are_shortened(router: Router) -> None:
    router.command(ALICE, m.Command(1, [0], "execute", "y" * 100_000, b""), [], 0)
    assert rows(router, [0]) == [[0, "y" * limits.LABEL, []]]


def test_refusal_names_the_error() -> None:
    assert refusal(4, errors.Backpressure("wait")) == m.Refused(4, "Backpressure", "wait")


def test_an_interrupt_comes_after_the_command_it_is_for() -> None:
    router = Router()
    router.register(1, m.Register([m.EngineInfo(0, 0, "n1", 100)], "", ""))
    router.flush()
    router.command(9, m.Command(1, [0], "execute", "execute", b"x"), [], 0)
    assert list(router.interrupt([0])) == [0]
    assert [type(effect.message) for effect in router.flush() if isinstance(effect, Send)] == [
        m.Dispatch,
        m.InterruptRanks,
    ]


# --- what an engine does ---------------------------------------------------------------------------------


def test_the_task_that_an_engine_does_not_come_back_from_is_shown(router: Router) -> None:
    router.task_holds(SET, m.TaskHolds(1, "stubborn()"))
    assert rows(router, [0, 1]) == [
        [0, None, []], [1, "stubborn(), a task that was told to end and has not", []],
    ]  # fmt: skip
    command(router, 1, [1])
    ((_, running, _),) = rows(router, [1])
    assert running == "command 1, which waits for stubborn(), a task that was told to end and has not"
    router.task_holds(SET, m.TaskHolds(1, ""))
    router.task_holds(SET, m.TaskHolds(7, "of a rank that is not there"))
    assert rows(router, [0, 1]) == [[0, None, []], [1, "command 1", []]]


# --- a client that does not send what it announced -------------------------------------------------------


def not_come(router: Router, key: int, dispatch: m.AnyMessage, ranks: list[int]) -> None:
    """What a set says when a body was given up: it has failed, and that concerns nobody's queue."""
    answer(router, key, dispatch, ranks)


def running(router: Router, *engines: int) -> list[str | None]:
    return [row[1] for row in rows(router, list(engines))]


def test_only_who_keeps_others_waiting_is_in_the_way(router: Router) -> None:
    command(router, 1, [0, 1], stream=5)
    command(router, 2, [0])
    router.flush()
    assert router.held_up() == {}, "only its own client waits"
    command(router, 3, [1], client=BOB)
    assert [(client, work.label) for client, work in router.held_up().items()] == [(ALICE, "command 1")]
    router.forward_ended(ALICE, 5)
    assert router.held_up() == {}, "the engines have it"


def test_a_command_gives_way_on_all_its_engines_with_those_after_it(router: Router) -> None:
    command(router, 1, [0], client=BOB)
    command(router, 2, [0, 1], stream=5)
    command(router, 3, [0, 1])
    command(router, 4, [0, 1], client=BOB)
    (_, first), (_, second) = dispatches(router)
    router.give_way(router.held_up()[ALICE])
    assert GiveUp(ALICE, 5) in router.flush()
    not_come(router, SET, second, [1])
    assert running(router, 0, 1) == ["command 1", "command 4"]
    answer(router, SET, first, [0])
    assert rows(router, [0, 1]) == [[e, "command 4", ["command 2", "command 3"]] for e in (0, 1)]
    effects = router.flush()
    assert not sent(effects, m.Result) or [to for to, _ in sent(effects, m.Result)] == [BOB]
    command(router, 5, [0, 1], client=BOB)
    waiting = [row[2] for row in rows(router, [0, 1])]
    assert waiting == [["command 2", "command 3", "command 5"]] * 2, "later ones do not pass it"


def test_a_command_that_gave_way_is_run_with_its_body_sent_again(router: Router) -> None:
    command(router, 1, [0], stream=5)
    command(router, 2, [0], client=BOB)
    ((_, pushed),) = dispatches(router)
    router.give_way(router.held_up()[ALICE])
    router.flush()
    not_come(router, SET, pushed, [0])
    ((_, bobs),) = dispatches(router)
    answer(router, SET, bobs, [0])
    assert sent(router.flush(), m.SendBodyAgain) == [(ALICE, m.SendBodyAgain(1))]
    router.body_again(ALICE, m.BodyAgain(1, [BIG]), 6)
    ((_, again),) = dispatches(router)
    assert (again.id, again.ranks) == (pushed.id, [0])
    answer(router, SET, again, [0])
    assert [(to, message.id) for to, message in sent(router.flush(), m.Result)] == [(ALICE, 1)]
    assert rows(router, [0]) == [[0, None, []]]


def test_a_client_that_does_not_answer_when_it_is_asked_again_gives_way_as_well(router: Router) -> None:
    command(router, 1, [1], client=BOB)
    command(router, 2, [0, 1], stream=5)
    (_, first), (_, pushed) = dispatches(router)
    answer(router, SET, pushed, [0])
    answer(router, SET, first, [1])
    assert sent(router.flush(), m.SendBodyAgain)
    command(router, 3, [1], client=BOB)
    router.give_way(router.held_up()[ALICE])
    assert running(router, 1) == ["command 3"]
    ((_, undone),) = sent(router.flush(), m.Undone)
    assert (undone.id, undone.engines, undone.error) == (2, [1], "ConnectionError"), "engine 0 has run it"
    assert "this client was silent" in undone.text
    assert "Call it again" in undone.text


def test_where_later_commands_have_begun_a_command_fails_instead_of_giving_way(router: Router) -> None:
    command(router, 1, [0], stream=5)
    command(router, 2, [0])
    command(router, 3, [1])
    command(router, 4, [0], client=BOB)
    (_, pushed), _ = dispatches(router)
    router.give_way(router.held_up()[ALICE])
    not_come(router, SET, pushed, [0])
    undone = {message.id: message.error for _, message in sent(router.flush(), m.Undone)}
    assert undone == {1: "ConnectionError", 2: "QueueCleared"}
    assert rows(router, [0]) == [[0, "command 4", []]]


def test_an_engine_is_lost_or_the_client_while_a_command_gives_way(router: Router) -> None:
    command(router, 1, [0, 1], stream=5)
    command(router, 2, [0, 1], client=BOB)
    ((_, pushed),) = dispatches(router)
    router.give_way(router.held_up()[ALICE])
    router.ranks_lost(SET, [0], "killed")
    router.client_lost(ALICE)
    not_come(router, SET, pushed, [1])
    assert rows(router, [1]) == [[1, "command 2", []]], "nobody is left who could send it"


# --- what a set is told of its other ranks -------------------------------------------------------------------


def test_a_command_for_all_engines_of_a_set_says_so(router: Router) -> None:
    command(router, 1, [0, 1, 2, 3])
    assert [(key, message.whole) for key, message in dispatches(router)] == [(SET, True), (OTHER, False)]


def test_a_command_for_all_says_so_also_to_those_that_get_it_later(router: Router) -> None:
    command(router, 1, [2])
    ((_, first),) = dispatches(router)
    command(router, 2, None)
    assert [(message.ranks, message.whole) for _, message in dispatches(router)] == [
        ([0, 1], True),
        ([0, 1], True),
    ]
    answer(router, SET, first, [2])
    assert [(message.ranks, message.whole) for _, message in dispatches(router)] == [([2], True)]


def test_engines_that_have_begun_are_told_of_those_whose_queue_was_cleared(router: Router) -> None:
    command(router, 1, [2])
    ((_, first),) = dispatches(router)
    command(router, 2, [0, 1, 2, 3])
    ((_, second), _) = dispatches(router)
    answer(router, SET, first, [2], ok=False)
    ((key, told),) = sent(router.flush(), m.CommandWithdrawn)
    assert (key, told.id, told.ranks) == (SET, second.id, [2])
    assert told.text.startswith("QueueCleared: command 1 failed on engine 2")


def test_they_are_told_behind_the_command_itself(router: Router) -> None:
    command(router, 1, [2])
    ((_, first),) = dispatches(router)
    command(router, 2, [0, 1, 2])
    answer(router, SET, first, [2], ok=False)
    kinds = [type(e.message) for e in router.flush() if isinstance(e, Send) and e.to == SET]
    assert kinds == [m.Dispatch, m.CommandWithdrawn]


def test_nobody_is_told_of_a_command_that_nobody_has_begun(router: Router) -> None:
    command(router, 1, [0, 1, 2])
    ((_, first),) = dispatches(router)
    command(router, 2, [0, 1, 2])
    answer(router, SET, first, [0, 1, 2], ok=False)
    assert sent(router.flush(), m.CommandWithdrawn) == []
