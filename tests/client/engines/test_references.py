"""``Reference`` in the calls of both clients."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from fake_farm import FakeFarm

from ipmpi.client import CompositeError, MultiEngineClient, Reference, StringTask, TaskClient


def pair(first: Any, second: Any = None) -> tuple[Any, Any]:
    return first, second


@pytest.fixture
def named(tc: TaskClient, farm: FakeFarm) -> TaskClient:
    """A task client whose engines have the name ``a``."""
    for number, runner in enumerate(farm.runners):
        runner._namespace.merge({"a": 10 + number})
    return tc


def test_apply_takes_the_value_of_each_engine(mec: MultiEngineClient) -> None:
    mec.execute("x = [id, 2 * id]")
    assert mec.apply(sum, Reference("x")) == [0, 3, 6, 9]
    assert mec.apply(pair, Reference("x[0]"), second=Reference("id")) == [(n, n) for n in range(4)]
    assert mec.apply(pair, [Reference("x")], {"a": Reference("id")})[2] == ([[2, 4]], {"a": 2})


def test_a_later_call_sees_the_new_value(mec: MultiEngineClient) -> None:
    for value in (1, 2):
        mec.push({"x": value})
        assert mec.apply(lambda x: x, Reference("x")) == [value] * 4


def test_apply_gives_the_object_itself(mec: MultiEngineClient) -> None:
    mec.execute("x = []")
    mec.apply(list.append, Reference("x"), 5)
    assert mec["x"] == [[5]] * 4


def test_map_and_push_take_them(mec: MultiEngineClient) -> None:
    mec.execute("x = 10 * id")
    assert mec.map(operator.add, [Reference("x")] * 4, range(4)) == [0, 11, 22, 33]
    mec.push({"y": Reference("x + 1")})
    assert mec["y"] == [1, 11, 21, 31]


def test_a_name_that_is_missing_is_the_error_of_the_call(
    mec: MultiEngineClient, capsys: pytest.CaptureFixture[str]
) -> None:
    mec.push({"x": 1}, targets=[0, 1, 2])
    with pytest.raises(CompositeError) as caught:
        mec.apply(abs, Reference("x"))
    assert str(caught.value).endswith("method: apply\n[3:apply]: NameError: name 'x' is not defined")
    caught.value.print_tracebacks()
    assert 'File "<Reference>", line 1, in <module>' in capsys.readouterr().out
    assert mec.apply(abs, Reference("id")) == [0, 1, 2, 3]


def test_tasks_take_them(named: TaskClient) -> None:
    found = {named.submit(pair, Reference("a"), second=[Reference("a")]).result()[0] for _ in range(2)}
    assert found == {10, 11}
    assert set(named.map(operator.neg, [Reference("a")] * 4)) == {-10, -11}
    assert named.run(StringTask("c = b + 1", push={"b": Reference("a")}, pull="c"), block=True)["c"] in (11, 12)
    with named.executor() as executor:
        assert executor.submit(abs, Reference("a")).result() in (10, 11)
    with pytest.raises(NameError, match=r"name 'nowhere' is not defined"):
        named.submit(abs, Reference("nowhere")).result()
