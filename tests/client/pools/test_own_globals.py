"""Programs that use the engines as processes of their own see their own globals, and exceptions are their own."""

from __future__ import annotations

from typing import Any

import pytest
from fake_farm import FakeFarm

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.client.pools.inflight import InFlightCalls
from ipmpi.client.pools.pool import Pool
from ipmpi.engine.session.namespace import Namespace
from ipmpi.errors import CompositeError
from ipmpi.protocol.operations import Push, encode
from ipmpi.serialize import dumps


def typed_at_a_prompt(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(source, names)
    return names


@pytest.fixture
def inside(farm: FakeFarm) -> Any:
    """A function of this program, on engines where somebody has another ``limit``."""
    for runner in farm.runners:
        namespace: Namespace = runner._namespace
        namespace.run("push", encode(Push()), [bytes(each) for each in dumps({"limit": 2})])
    return typed_at_a_prompt("limit = 7\ndef inside(x): return x < limit\n")["inside"]


WANTED = [True, True, False]


def test_executors(tc: TaskClient, inside: Any) -> None:
    executor = tc.executor()
    assert list(executor.map(inside, [1, 5, 9])) == WANTED
    assert list(executor.map(inside, [1, 5, 9], chunksize=2)) == WANTED
    assert list(executor.map(inside, [1, 5, 9], buffersize=1)) == WANTED
    assert [executor.submit(inside, x).result() for x in (1, 5, 9)] == WANTED
    assert executor.submit(lambda f, x: f(x), inside, 5).result() is True


def test_pools(tc: TaskClient, inside: Any) -> None:
    pool = tc.pool()
    assert pool.map(inside, [1, 5, 9]) == WANTED
    assert list(pool.imap(inside, [1, 5, 9])) == WANTED
    assert pool.apply(inside, (5,)) is True


def test_joblib(tc: TaskClient, inside: Any) -> None:
    joblib = pytest.importorskip("joblib")
    from ipmpi.client.pools.joblib_backend import register_joblib

    register_joblib(tc)
    with joblib.parallel_backend("ipmpi"):
        assert joblib.Parallel()(joblib.delayed(inside)(x) for x in (1, 5, 9)) == WANTED


def test_tasks_see_the_engines_names_as_before(tc: TaskClient, inside: Any) -> None:
    assert tc.map(inside, [1, 5, 9]) == [True, False, False]
    assert tc.submit(inside, 5).result() is False


# --- truth values of the user's objects ------------------------------------------------------------------------


class FalseError(Exception):
    """An error that counts as false, as containers of errors do that hold none."""

    def __len__(self) -> int:
        return 0


class FalseClient(TaskClient):
    def __len__(self) -> int:
        return 0


def fail() -> None:
    raise FalseError("all the same")


def test_an_exception_that_counts_as_false_is_raised(tc: TaskClient, mec: MultiEngineClient) -> None:
    with pytest.raises(FalseError, match="all the same"):
        tc.submit(fail).result()
    with pytest.raises(FalseError):
        list(tc.imap(fail_at, range(3)))
    with pytest.raises(FalseError):
        list(tc.pool().imap(fail_at, range(3)))
    with pytest.raises(FalseError):
        list(tc.executor().map(fail_at, range(3)))
    with pytest.raises(CompositeError) as caught:
        mec.apply(fail)
    assert {type(each[1]) for each in caught.value.elist} == {FalseError}


def fail_at(number: int) -> int:
    if number == 1:
        raise FalseError(number)
    return number


def rows_that_fail() -> Any:
    yield 1
    raise FalseError("of the iterable")


def test_an_iterable_that_fails_falsely_is_heard_of(tc: TaskClient) -> None:
    with pytest.raises(FalseError, match="of the iterable"):
        list(tc.pool().imap(abs, rows_that_fail()))


def test_a_client_that_counts_as_false_is_used(farm: FakeFarm) -> None:
    session: Any = farm
    client = FalseClient(session=session)
    assert list(client.executor().map(abs, [-1])) == [1]
    assert Pool(client=client).map(abs, [-1]) == [1]
    assert isinstance(client.executor()._underway, InFlightCalls)
