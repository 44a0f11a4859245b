"""What ranks answer when a client wants to watch a value."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ipmpi.errors import ClientError
from ipmpi.protocol import rankmessages as rm
from ipmpi.steering.ticking import NEVER
from ipmpi.steering.watching import Watch, Watching


class Odd:
    """A value that has a size, and raises what it likes."""

    size = 2

    def __float__(self) -> float:
        raise RuntimeError("on another device")


@pytest.mark.parametrize(
    ("value", "reduce", "words"),
    [
        (10**400, "", "v is not a number that can be watched: int too large"),
        (Odd(), "", "v is not a number that can be watched: on another device"),
        (Odd(), "max", "v is not a number that can be watched: object cannot be"),
        (np.zeros((2, 3)), "", r"v is an array of shape \(2, 3\): watch one number of it, as with reduce='max'"),
        ([1, 2], "", "v is not a number that can be watched"),
        ("hello", "", "v is not a number that can be watched"),
    ],
    ids=["huge", "odd", "odd to reduce", "array", "list", "text"],
)
def test_a_rank_whose_value_cannot_be_watched_answers_all_others(value: Any, reduce: str, words: str) -> None:
    """Whatever its value raises: the others wait for its answer."""
    told: list[str] = []
    comm = SimpleNamespace(allgather=lambda text: [told.append(text) or text, ""])
    watching = Watching({"v": value}, {"v"}, lambda: 0, comm, None, True, told.append)
    with pytest.raises(ClientError, match=rf"rank 0 says: {words}.*\(rank 1 has it: publish it on all ranks"):
        watching.begin(Watch(1, "v", 1, reduce))
    assert len(told) == 1


class Counted(float):
    """A number with code of its own."""

    def __float__(self) -> float:
        raise AssertionError("it was run")


@pytest.mark.parametrize(
    ("name", "reduce", "words"),
    [
        ("pushed", "", r"the program has published no 'pushed' \(it has published counted, numbers, v\)"),
        ("counted", "", "a monitor may watch numbers and arrays of NumPy, and this is of type Counted"),
        ("counted", "max", "a monitor may watch numbers and arrays of NumPy, and this is of type Counted"),
        ("numbers", "sum", "a monitor may watch numbers and arrays of NumPy, and this is of type list"),
    ],
)
def test_for_monitors_nothing_is_run_that_the_program_has_not_published(
    name: str, reduce: str, words: str
) -> None:
    values = {"v": 1.0, "counted": Counted(1), "numbers": [1, 2], "pushed": 3.0}
    told: list[rm.Sampled] = []
    watching = Watching(values, {"v", "counted", "numbers"}, lambda: 0, None, None, True, told.append)
    with pytest.raises(ClientError, match=words):
        watching.begin(Watch(1, name, 1, reduce, published=True))
    watch = Watch(2, "v", 1, "", published=True)
    watching.begin(watch)
    sample = watching.duty(watch)
    for value in (np.float32(2), np.array(2.0), Counted(9), 3):
        values["v"] = value
        sample(0)
    assert [each.value for each in told][:2] == [2, 2]
    assert math.isnan(told[2].value), "one that has become something else since is not asked"
    assert told[3].value == 3


@pytest.mark.parametrize("who", ["this rank was told", "another rank was told"])
def test_a_reduction_ends_on_all_ranks_at_one_tick_whichever_of_them_knows_of_it(who: str) -> None:
    """A rank that is missing in it would keep the others waiting for ever."""
    others: list[int] = []  # what the other rank says each time
    told: list[rm.Sampled] = []
    calls: list[str] = []

    def allreduce(value: Any, op: str) -> Any:
        calls.append(op)
        return max(value, others.pop(0)) if isinstance(value, int) else value + 1.0

    comm = SimpleNamespace(allgather=lambda text: [text, ""], allreduce=allreduce)
    mpi = SimpleNamespace(MAX="max", MIN="min", SUM="sum")
    watching = Watching({"v": 2.0}, {"v"}, lambda: 5, comm, mpi, True, told.append)
    watch = Watch(1, "v", 10, "sum")
    watching.begin(watch)
    sample = watching.duty(watch)
    others.append(0)
    assert sample(10) == 20
    assert told == [rm.Sampled(1, 5, 3.0)]
    if who == "this rank was told":
        watching.end(1)
    others.append(int(who != "this rank was told"))
    assert sample(20) == NEVER
    assert len(told) == 1
    assert calls == ["max", "sum", "max"], "no rank adds up in the last one"


def test_a_rank_without_an_agent_tells_the_others_to_end_a_reduction() -> None:
    said: list[int] = []
    comm = SimpleNamespace(allgather=lambda text: [text], allreduce=lambda value, op: said.append(value) or value)
    mpi = SimpleNamespace(MAX="max")
    watching = Watching({"v": 2.0}, {"v"}, lambda: 5, comm, mpi, False, print, lambda: False)
    watching.begin(Watch(1, "v", 10, "max"))
    assert watching.duty(Watch(1, "v", 10, "max"))(10) == NEVER
    assert said == [1]
