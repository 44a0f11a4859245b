"""Questions about ranks: each agent answers for its own, and equal answers go up once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from small_set import SmallSet

from ipmpi.engine.agent import inquiries as under_test
from ipmpi.protocol import inquiries, messages as m, operations
from ipmpi.protocol.inquiries import IDLE, RUNNING, RankStack, ReadLog, ReadStacks
from ipmpi.protocol.mpicalls import MpiCall


@pytest.fixture(scope="module")
def three() -> Iterator[SmallSet]:
    """Three ranks on three nodes."""
    small = SmallSet(3)
    yield small
    small.close()


def stacks(small: SmallSet, number: int, ranks: list[int], calls: int = 1) -> dict[int, RankStack]:
    small.tell(m.Inquiry(number, ranks, inquiries.encode(ReadStacks(calls=calls))))
    found: dict[int, RankStack] = {}
    while set(found) != set(ranks):
        findings = small.hears(m.Findings, lambda message: message.id == number)
        answer = inquiries.decode_answer(findings.answer)
        assert isinstance(answer, RankStack)
        assert not set(found) & set(findings.engines)
        found.update(dict.fromkeys(findings.engines, answer))
    return found


def test_ranks_of_all_nodes_are_told(three: SmallSet) -> None:
    assert {stack.state for stack in stacks(three, 1, [0, 1, 2]).values()} == {IDLE}
    assert set(stacks(three, 2, [1])) == {1}


def test_equal_answers_of_nodes_below_go_up_once(three: SmallSet) -> None:
    """Nothing was ever printed, so all logs are equal."""
    three.tell(m.Inquiry(3, [1, 2], inquiries.encode(ReadLog(10))))
    findings = three.hears(m.Findings, lambda message: message.id == 3)
    assert findings.engines == [1, 2]


def test_what_runs_is_told_with_its_time(three: SmallSet) -> None:
    operation = operations.encode(operations.Execute("import threading; go = threading.Event(); go.wait(20)"))
    began = time.monotonic()
    three.tell(m.Dispatch(5, [1], "execute", operation))
    names = three.ranks[1].namespace.names
    three.when(lambda: "go" in names)
    stack = stacks(three, 4, [1])[1]
    assert (stack.state, stack.runs) == (RUNNING, "execute")
    assert stack.running <= time.monotonic() - began + 1
    assert three.local[1].operation == operation
    names["go"].set()
    three.hears(m.Result, lambda message: message.id == 5)
    assert three.do(lambda: three.local[1].operation) == b""


def test_a_question_of_another_release_is_not_answered_and_harms_nobody(three: SmallSet) -> None:
    three.tell(m.Inquiry(6, [0, 1, 2], b"\xff"))
    assert len(stacks(three, 7, [0, 1, 2])) == 3
    assert not [entry for entry in three.back if isinstance(entry[0], m.Findings) and entry[0].id == 6]


def test_calls_that_ipmpi_has_made_itself_are_not_the_users() -> None:
    def call(file: str, is_open: bool) -> MpiCall:
        return MpiCall("comm", 1, "allgather", None, "", None, None, None, file, 1, "f", 0.0, is_open)

    own, theirs = "/usr/lib/python3/site-packages/ipmpi/engine/mpi/setcomm.py", "/home/me/heat.py"
    made = [call(own, False), call(theirs, False), call(own, True)]
    assert under_test.without_own(made) == made[1:]


def test_many_mpi_calls_are_not_told_whatever_is_asked(three: SmallSet) -> None:
    assert stacks(three, 8, [0], calls=10**9)[0].calls == []
    assert under_test.CALLS < 100
