"""Folding answers on their way up, with an injected clock."""

from __future__ import annotations

from ipmpi import limits
from ipmpi.engine.agent.fold import Fold, Folded
from ipmpi.protocol.messages import Result


def answer(rank: int, outcome: bytes = b"same", *, ok: bool = True, number: int = 1) -> Result:
    return Result(number, [rank], ok, outcome)


def brief(found: list[Folded]) -> list[tuple[list[int], bytes]]:
    return [(sorted(folded.message.engines), folded.message.outcome) for folded in found]


def test_equal_answers_are_one() -> None:
    fold = Fold()
    fold.begin(1, range(100))
    for rank in range(99):
        assert fold.add(answer(rank), [], 0.0) == []
    (folded,) = fold.add(answer(99), [], 0.0)
    assert sorted(folded.message.engines) == list(range(100))
    assert fold.next_deadline is None


def test_answers_that_differ_in_status_outcome_or_body_do_not_fold() -> None:
    fold = Fold()
    fold.begin(1, range(5))
    fold.add(answer(0), [b"x"], 0.0)
    fold.add(answer(1), [b"y"], 0.0)
    fold.add(answer(2, b"other"), [b"x"], 0.0)
    fold.add(answer(3, ok=False), [b"x"], 0.0)
    found = fold.add(answer(4), [bytearray(b"x")], 0.0)
    assert [(sorted(f.message.engines), f.message.ok, list(f.body)) for f in found] == [
        ([0, 4], True, [b"x"]),
        ([1], True, [b"y"]),
        ([2], True, [b"x"]),
        ([3], False, [b"x"]),
    ]


def test_segments_of_equal_bytes_and_other_lengths_do_not_fold() -> None:
    fold = Fold()
    fold.begin(1, [0, 1])
    fold.add(Result(1, [0], True, b"", [1, 2]), [b"a", b"bc"], 0.0)
    assert len(fold.add(Result(1, [1], True, b"", [2, 1]), [b"ab", b"c"], 0.0)) == 2


def test_a_slow_rank_holds_nobody_up() -> None:
    fold = Fold()
    fold.begin(1, range(3))
    fold.add(answer(0), [], 10.0)
    fold.add(answer(1), [], 10.001)
    deadline = fold.next_deadline
    assert deadline == 10.001 + limits.FOLD_PAUSE
    assert fold.due(deadline - 1e-6) == []
    assert brief(fold.due(deadline)) == [([0, 1], b"same")]
    assert fold.next_deadline is None
    assert fold.due(99.0) == []
    assert brief(fold.add(answer(2), [], 20.0)) == [([2], b"same")]


def test_answers_that_come_one_soon_after_the_other_go_up_together_but_not_for_ever() -> None:
    fold = Fold()
    fold.begin(1, range(1000))
    now, rank, reported = 10.0, 0, []
    while not reported:
        assert fold.add(answer(rank), [], now) == []
        rank, now = rank + 1, now + 0.9 * limits.FOLD_PAUSE
        reported = fold.due(now)
    assert brief(reported) == [(list(range(rank)), b"same")]
    assert 10.0 + limits.FOLD_DELAY <= now < 10.0 + limits.FOLD_DELAY + limits.FOLD_PAUSE
    fold.add(answer(rank), [], now)
    assert fold.next_deadline == now + limits.FOLD_PAUSE


def test_bodies_are_kept_apart_from_the_senders_memory() -> None:
    fold = Fold()
    fold.begin(1, [0, 1])
    body = bytearray(b"abc")
    fold.add(answer(0), [body], 0.0)
    body[:] = b"xyz"
    assert [bytes(f.body[0]) for f in fold.add(answer(1), [b"abc"], 0.0)] == [b"abc"]


def test_ranks_whose_answers_do_not_come_here() -> None:
    fold = Fold()
    fold.begin(1, [0, 1, 2])
    fold.begin(2, [1, 5])
    fold.add(answer(0), [], 0.0)
    assert fold.leave_out(1, [1]) == []
    assert brief(fold.leave_out(None, [1, 2])) == [([0], b"same")]
    assert fold.leave_out(9, [1]) == []
    assert brief(fold.add(answer(5, number=2), [], 0.0)) == [([5], b"same")]
    assert fold._open == {}


def test_late_answer_and_single_rank_pass_at_once() -> None:
    fold = Fold()
    assert brief(fold.add(answer(3), [b"x"], 0.0)) == [([3], b"same")]


def test_commands_do_not_mix() -> None:
    fold = Fold()
    fold.begin(1, [0, 1])
    fold.begin(2, [0, 1])
    fold.add(answer(0, number=1), [], 0.0)
    fold.add(answer(0, number=2), [], 5.0)
    assert fold.next_deadline == limits.FOLD_PAUSE
    assert brief(fold.due(1.0)) == [([0], b"same")]
    (folded,) = fold.add(answer(1, number=2), [], 5.0)
    assert (folded.message.id, folded.message.engines) == (2, [0, 1])


def test_more_ranks_join_a_command() -> None:
    fold = Fold()
    fold.begin(1, [0])
    fold.begin(1, [1])
    assert fold.add(answer(0), [], 0.0) == []
    assert brief(fold.add(answer(1), [], 0.0)) == [([0, 1], b"same")]
