"""What a client opens of the pickles of engines, in each place where it opens one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_farm import FakeFarm

from ipmpi import serialize
from ipmpi.client import StringTask, TaskClient
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.failures import failure_of
from ipmpi.client.session.opening import EVERYTHING, Opener, opener_of
from ipmpi.client.session.replies import values
from ipmpi.errors import SecurityError, UnpickleableException
from ipmpi.protocol.operations import Failed, Value

MARK = "opened_by_test"


class Attack:
    """Sets an attribute of ``sys`` when it is opened."""

    def __reduce__(self) -> Any:
        return setattr, (sys, MARK, True)


@pytest.fixture(autouse=True)
def nothing_is_opened() -> Iterator[None]:
    yield
    assert not hasattr(sys, MARK)


def attack(*_: object) -> Attack:
    return Attack()


def large_attack() -> list[Any]:
    return [np.zeros(100_000), Attack()]


class OwnError(Exception):
    """Of a module that engines have, too."""


def raises() -> None:
    raise OwnError("a text")


def safe(**options: Any) -> TaskClient:
    return TaskClient(session=FakeFarm(), unpickle="safe", **options)  # type: ignore[arg-type]


REFUSED = r"engine \d sent .*, and unpickle='safe' opens plain data only"


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda tc: tc.submit(attack).result(), id="submit"),
        pytest.param(lambda tc: tc.submit(large_attack).result(), id="large result"),
        pytest.param(lambda tc: tc.map(attack, [1, 2]), id="map"),
        pytest.param(lambda tc: list(tc.imap(attack, [1, 2])), id="imap"),
        pytest.param(lambda tc: list(tc.imap(attack, [1, 2], ordered=False)), id="imap without order"),
        pytest.param(lambda tc: [f.result() for f in [tc.executor().submit(attack)]], id="executor"),
        pytest.param(lambda tc: tc.pool().map(attack, [1, 2]), id="pool"),
    ],
)
def test_results_of_tasks(call: Callable[[TaskClient], object]) -> None:
    with pytest.raises(SecurityError, match=REFUSED):
        call(safe())


def test_results_of_tasks_with_ids() -> None:
    tc = safe()
    taskid = tc.run(
        StringTask("import sys\nclass A:\n    def __reduce__(self): return eval, ('1',)\na = A()", pull="a")
    )
    result = tc.get_task_result(taskid, block=True)
    assert isinstance(result.failure.value, SecurityError)
    with pytest.raises(SecurityError, match=REFUSED):
        result["a"]


def test_plain_results_are_opened() -> None:
    tc = safe()
    array = np.arange(100_000.0)
    assert tc.map(pow, range(5), [2] * 5) == [0, 1, 4, 9, 16]
    got = tc.submit(np.multiply, array, 2).result()
    np.testing.assert_array_equal(got, array * 2)
    got[0] = 5  # writable, as always
    assert tc.map(np.full, [2_000] * 2, [7.0] * 2)[1][3] == 7


def test_exceptions_that_are_refused_are_described() -> None:
    tc = safe()
    with pytest.raises(ZeroDivisionError):
        tc.submit(divmod, 1, 0).result()
    for call in (lambda: tc.submit(raises).result(), lambda: tc.map(raises_nothing_else, [1])):
        with pytest.raises(UnpickleableException, match="OwnError: a text") as error:
            call()
        (note,) = error.value.__notes__
        assert "this is its description only: engine" in note
        assert "allow=['test_opening.OwnError']" in note or "allow=[" in note


def raises_nothing_else(_: int) -> None:
    raises()


def test_what_is_allowed_is_opened() -> None:
    with pytest.raises(OwnError, match="a text"):
        safe(allow=[OwnError]).submit(raises).result()
    with pytest.raises(SecurityError, match=r"sent pathlib.*, make the client with .*allow=\['pathlib"):
        safe().submit(Path, "a").result()
    assert safe(allow=[Path("a").__class__]).submit(Path, "a").result() == Path("a")
    assert safe(allow=["pathlib"]).submit(Path, "a").result() == Path("a")


def test_what_can_never_be_allowed_is_told() -> None:
    with pytest.raises(SecurityError, match=r"sent builtins\.setattr.*This can run any code here: find out"):
        safe().submit(attack).result()


def test_arrays_of_objects_say_how_to_allow_them() -> None:
    with pytest.raises(SecurityError, match=r"an array of objects.*allow=\[numpy\.object_\]"):
        safe().submit(np.array, [1, None]).result()


def test_results_in_the_cache_are_opened_as_others(tmp_path: Path) -> None:
    """A client that opens everything may have kept them."""
    usual = TaskClient(session=FakeFarm(), cache_folder=tmp_path / "cache")  # type: ignore[arg-type]
    assert usual.submit(Path, "a", cache=True).result() == Path("a")
    usual.close()
    for call in (
        lambda: safe(cache_folder=tmp_path / "cache").submit(Path, "a", cache=True).result(),
        lambda: safe(cache_folder=tmp_path / "cache").map(Path, ["a"], cache=True),
    ):
        with pytest.raises(SecurityError, match=REFUSED):
            call()
    assert usual.cache_info().entries == 1


# --- commands ---------------------------------------------------------------------------------------------------


def reply(value: object, opener: Opener = EVERYTHING, outcome: Any = None) -> EngineReply:
    outcome = Value() if outcome is None else outcome
    return EngineReply(3, isinstance(outcome, Value), outcome, serialize.dumps(value), opener=opener)


def test_answers_of_commands() -> None:
    opener = Opener(frozenset())
    assert values([reply([1, 2], opener), reply({"a": 1.5}, opener)], "pull") == [[1, 2], {"a": 1.5}]
    with pytest.raises(SecurityError, match=r"^engine 3 sent builtins\.setattr"):
        values([reply(Attack(), opener)], "pull")


def test_exceptions_of_commands() -> None:
    outcome = Failed("OwnError", "a text", "")
    error = failure_of(reply(OwnError("a text"), Opener(frozenset()), outcome), "execute")
    assert isinstance(error, UnpickleableException)
    assert isinstance(failure_of(reply(OwnError("a text"), EVERYTHING, outcome), "execute"), OwnError)
    allowed = Opener(frozenset({f"{OwnError.__module__}.OwnError"}))
    assert isinstance(failure_of(reply(OwnError("a text"), allowed, outcome), "execute"), OwnError)
    assert failure_of(reply(Attack(), Opener(frozenset()), outcome), "execute") is not None


def test_a_session_gives_its_opener_to_all_answers_and_is_never_widened() -> None:
    farm = FakeFarm()
    TaskClient(session=farm, unpickle="safe")  # type: ignore[arg-type]
    with pytest.raises(SecurityError):
        TaskClient(session=farm).submit(attack).result()  # type: ignore[arg-type]


# --- options ----------------------------------------------------------------------------------------------------


def test_the_options_are_checked() -> None:
    assert opener_of("all", ()) is EVERYTHING
    assert opener_of("safe", ["pandas", Path]).allowed == {"pandas", "pathlib.Path"}
    with pytest.raises(ValueError, match="allow= adds to unpickle='safe'"):
        opener_of("all", ["pandas"])
    with pytest.raises(ValueError, match="unpickle must be 'all' or 'safe': 'none'"):
        opener_of("none", ())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="allow= takes a list of classes and modules"):
        opener_of("safe", "pandas")
