from __future__ import annotations

import functools
import json
import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from ipmpi import limits
from ipmpi.client.session.functions import KEPT, FunctionCache, OfThisProgram
from ipmpi.errors import SerializationError


@pytest.fixture
def shelf() -> FunctionCache:
    return FunctionCache()


def call(shelf: FunctionCache, function: Callable[..., Any], *args: Any) -> Any:
    return pickle.loads(shelf.define(function).pickle)(*args)


def test_the_same_function_is_pickled_once(shelf: FunctionCache) -> None:
    def twice(x: int) -> int:
        return 2 * x

    assert shelf.define(twice) is shelf.define(twice)
    assert shelf.define(json.dumps) is shelf.define(json.dumps)
    assert call(shelf, twice, 4) == 8
    assert shelf.define(twice).label.endswith("twice")


def test_what_a_closure_holds_now_is_what_counts(shelf: FunctionCache) -> None:
    factor = 2

    def times(x: int) -> int:
        return factor * x

    assert call(shelf, times, 5) == 10
    factor = 3
    assert call(shelf, times, 5) == 15


def test_a_list_that_changes_is_sent_as_it_is(shelf: FunctionCache) -> None:
    seen: list[int] = []

    def count() -> int:
        return len(seen)

    assert call(shelf, count) == 0
    seen.append(1)
    assert call(shelf, count) == 1


def test_globals_defaults_and_functions_inside(shelf: FunctionCache) -> None:
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    exec("scale = 2\ndef inner(x): return scale * x\ndef outer(x, add=1): return inner(x) + add", space)
    outer = space["outer"]
    assert call(shelf, outer, 10) == 21
    assert shelf.define(outer) is shelf.define(outer)
    space["scale"] = 3
    assert call(shelf, outer, 10) == 31
    exec("def inner(x): return -x", space)
    assert call(shelf, outer, 10) == -9
    outer.__defaults__ = (5,)
    assert call(shelf, outer, 10) == -5
    exec("scale = 2\ndef inner(x): return later(x)\ndef later(x): return x", space)
    assert call(shelf, outer, 10) == 15


def test_callables_that_may_change_are_pickled_each_time(shelf: FunctionCache) -> None:
    partial = functools.partial(max, 3)
    assert shelf.define(partial) is shelf.define(partial)  # equal pickles are one definition
    items = [1]
    assert call(shelf, items.count, 1) == 1
    items.append(1)
    assert call(shelf, items.count, 1) == 2


def test_many_functions_are_not_kept(shelf: FunctionCache) -> None:
    def make(number: int) -> Callable[[], int]:
        return lambda: number

    functions = [make(number) for number in range(3 * KEPT)]
    assert [call(shelf, function) for function in functions] == list(range(3 * KEPT))
    assert len(shelf._kept) == len(shelf._by_key) == KEPT


def test_what_cannot_be_sent_is_named(shelf: FunctionCache, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="variable 'lock' of the function"):
        shelf.define(lambda: lock.locked())
    monkeypatch.setattr(limits, "FUNCTION", 1000)
    table = bytes(2000)
    with pytest.raises(SerializationError, match=r"push\(\) the large part"):
        shelf.define(lambda: len(table))


def test_a_function_whose_module_is_sent_by_value_from_now_on_is_pickled_anew(
    shelf: FunctionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_here_for_now")
    exec("def double(x):\n    return 2 * x\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    space: dict[str, Any] = {"__name__": "__main__", "double": module.double}
    exec("def caller(x): return double(x)", space)
    before = shelf.define(module.double), shelf.define(space["caller"])
    cloudpickle.register_pickle_by_value(module)
    try:
        after = shelf.define(module.double), shelf.define(space["caller"])
        assert shelf.define(module.double) is after[0]
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    monkeypatch.delitem(sys.modules, module.__name__)
    for old, new in zip(before, after, strict=True):
        with pytest.raises(ModuleNotFoundError):
            pickle.loads(old.pickle)(21)
        assert pickle.loads(new.pickle)(21) == 42


def test_functions_that_are_used_stay_when_many_others_come(shelf: FunctionCache) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("\n".join(f"def f{n}(): return {n}" for n in range(2 * KEPT)), space)
    first = shelf.define(space["f0"])
    for n in range(1, 2 * KEPT):
        shelf.define(space[f"f{n}"])
        assert shelf.define(space["f0"]) is first, n


def test_the_same_function_for_this_program_is_another_definition(shelf: FunctionCache) -> None:
    def f() -> int:
        return 1

    plain, own = shelf.define(f), shelf.define(OfThisProgram(f))
    assert plain.key == own.key
    assert (plain.space, own.space) == (b"", OfThisProgram.space)
    assert shelf.define(OfThisProgram(f)) is own
    assert shelf.define(f) is plain
    with pytest.raises(TypeError, match="not 5"):
        OfThisProgram(5)  # type: ignore[arg-type]
