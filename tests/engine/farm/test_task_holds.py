"""Tasks that do not end when told to: their end is told, and their rank gets nothing before it comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from small_set import PATIENCE, SmallSet

from ipmpi import limits
from ipmpi.protocol import messages as m, operations as o, packed

STARTED: SimpleQueue[int] = SimpleQueue()
GO = threading.Event()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], SmallSet]]:
    monkeypatch.setattr(limits, "TASK_GRACE", 0.1)
    GO.clear()
    while not STARTED.empty():
        STARTED.get()
    sets = []

    def begin(size: int) -> SmallSet:
        sets.append(SmallSet(size))  # no signal reaches its main threads: all its tasks are stubborn
        return sets[-1]

    yield begin
    GO.set()
    for one in sets:
        one.close()


def stubborn(size: int = 0) -> Any:
    STARTED.put(size)
    GO.wait()
    return "x" * size or None


def together(comm: Any) -> Any:
    return stubborn()


def double(n: int) -> int:
    return 2 * n


def held(small: SmallSet, label: str = "label") -> int:
    message = small.hears(m.TaskHolds)
    assert message.label == label
    return message.rank


def is_used_again(small: SmallSet, rank: int) -> bool:
    return len(small.results(small.give(small.options(double), [(1,)], [rank]), 1)) == 1


@pytest.mark.parametrize("size", [0, 10_000_000])
def test_a_timeout_is_told_and_the_rank_gets_no_task_before_it_comes_back(
    start: Callable[[int], SmallSet], size: int
) -> None:
    small = start(2)
    group = small.give(small.options(stubborn, timeout=0.05), [(size,)])
    assert STARTED.get(timeout=PATIENCE) == size
    stuck = held(small)
    failed = small.results(group, 1)[0]
    assert failed.type_name == "TaskTimeout"
    assert failed.text.startswith("the task ran for longer than its timeout of 0.05 seconds")
    assert "has not ended 0.1 seconds later, and this engine gets no other task until it does" in failed.text
    others = small.give(small.options(double), [(n,) for n in range(50)])
    seen = set()
    found = 0
    while found < 50:
        message = small.hears(m.TaskResults, lambda message: message.group == others)
        found += packed.count(message.indices)
        seen.add(message.rank)
    assert seen == {1 - stuck}
    GO.set()
    assert held(small, "") == stuck
    assert is_used_again(small, stuck)
    assert not [said for said, _ in small.back if isinstance(said, m.LargeTaskResult)]


def test_tasks_behind_one_that_does_not_end_are_run_elsewhere(start: Callable[[int], SmallSet]) -> None:
    small = start(1)
    small.results(small.give(small.options(double), [(n,) for n in range(2000)]), 2000)
    mixed = small.options(lambda n: stubborn() if not n else 2 * n, timeout=0.05)
    group = small.give(mixed, [(n,) for n in range(5)])
    held(small)
    back: set[int] = set()
    while len(back) < 4:
        _, indices = small.returned(group, "taken")
        back.update(indices)
    assert back == {1, 2, 3, 4}
    assert small.results(group, 1)[0].type_name == "TaskTimeout"


def test_one_that_is_cancelled_is_told_as_cancelled(start: Callable[[int], SmallSet]) -> None:
    small = start(1)
    group = small.give(small.options(stubborn), [()])
    STARTED.get(timeout=PATIENCE)
    small.tell(m.CancelTasks(group, packed.pack([0]), True))
    held(small)
    assert small.results(group, 1)[0].type_name == "TaskAborted"
    GO.set()
    held(small, "")
    assert is_used_again(small, 0)


def test_a_task_on_several_ranks_ends_although_its_ranks_do_not_come_back(
    start: Callable[[int], SmallSet],
) -> None:
    small = start(3)
    group = small.give(small.options(together, width=2, timeout=0.05), [()])
    stuck = {held(small), held(small)}
    failed = small.results(group, 1)[0]
    assert failed.type_name == "TaskTimeout"
    GO.set()
    assert {held(small, ""), held(small, "")} == stuck
    for rank in stuck:
        assert is_used_again(small, rank)


def test_one_that_ends_in_time_holds_nothing(start: Callable[[int], SmallSet]) -> None:
    small = start(1)
    group = small.give(small.options(stubborn, timeout=0.05), [()])
    STARTED.get(timeout=PATIENCE)
    GO.set()
    small.results(group, 1)
    small.command(7, [0], o.Execute("1"))
    assert small.hears(m.Result).id == 7
    assert not [said for said, _ in small.back if isinstance(said, m.TaskHolds)]
