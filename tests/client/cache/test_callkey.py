"""What makes two calls equal."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import importlib
import importlib.metadata
import itertools
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipmpi.client.cache.callkey import CallKeys
from ipmpi.reference import Reference

SCALE = 2.0
TABLE = {"a": 1, "b": 2}


def scaled(x: Any) -> Any:
    return SCALE * x


def key_of(function: Callable[..., Any], *args: Any, ranks: int = 1, **kwargs: Any) -> bytes:
    return CallKeys(function, ranks).of(args, kwargs)


def function_of(source: str, **names: Any) -> Callable[..., Any]:
    """The function ``f`` of some source code, as typed into ``__main__``."""
    space: dict[str, Any] = {"__name__": "__main__", **names}
    exec(source, space)
    made: Callable[..., Any] = space["f"]
    return made


# --- arguments --------------------------------------------------------------------------------------------------

DIFFERENT = [
    1, 1.0, True, 1 + 0j, "1", b"1", None, 0, 0.0, -0.0, False, "", b"", bytearray(), bytearray(b"1"),
    (1,), [1], {1}, frozenset({1}), {1: None}, [], (), {}, set(), frozenset(), [[1]], [(1,)], [None],
    10**40, float("inf"), "ä", "\ud800", range(1), range(2), slice(1), ..., Decimal(1), Decimal("1.0"),
    Fraction(1),
    np.int64(1), np.int32(1), np.float64(1), np.bool_(True), np.array(1), np.array([1]), np.array([[1]]),
    np.array([1], "i4"), np.array([1], ">i8"), np.array([1.0]), np.array(["1"]), np.array([1], object),
    np.zeros(0), np.zeros((0, 1)), np.zeros(0, "f4"), np.dtype("f8"), np.dtype("f4"),
    np.zeros(1, [("a", "f8")]), np.zeros(1, [("b", "f8")]), np.zeros(1, [("a", "f4"), ("b", "f4")]),
    np.datetime64("2020-01-01"), np.array(["2020-01-01"], "M8[ns]"), np.array(["2020-01-01"], "M8[s]"),
    np.ma.masked_array([1, 2], [0, 1]), np.ma.masked_array([1, 2], [1, 0]),
    datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=timezone.utc), Path("a"), Path("b"),
    scaled, key_of, len, max, np.sin, np.cos, int, float, Decimal, np, os, "a".upper, "b".upper,
    functools.partial(scaled, 1), functools.partial(scaled, 2), itertools.count,
]  # fmt: skip


def test_values_of_other_types_and_contents_differ() -> None:
    keys = [key_of(scaled, value) for value in DIFFERENT]
    pairs = itertools.combinations(zip(DIFFERENT, keys, strict=True), 2)
    assert not [(one, other) for (one, key), (other, other_key) in pairs if key == other_key]


def test_an_argument_by_name_is_another_call_and_so_is_another_number_of_ranks() -> None:
    calls = [
        key_of(scaled, 1), key_of(scaled, x=1), key_of(scaled, 1, 1), key_of(scaled, (1, 1)), key_of(scaled, y=1),
        key_of(scaled, 1, ranks=2), key_of(scaled),
    ]  # fmt: skip
    assert len(set(calls)) == len(calls)
    assert key_of(scaled, x=1, y=2) == key_of(scaled, y=2, x=1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="dicts in another order"),
        pytest.param({1: 1, "b": 2, (3,): 3}, {(3,): 3, "b": 2, 1: 1}, id="dicts of other keys"),
        pytest.param({"x", "y", "z"}, {"z", "y", "x"}, id="sets in another order"),
        pytest.param([1, [2, {"a": (3,)}]], [1, [2, {"a": (3,)}]], id="nested"),
        pytest.param(["ab"] * 2, ["".join(["a", "b"]) for _ in range(2)], id="one text or two"),
        pytest.param([[1]] * 2, [[1], [1]], id="one list or two"),
        pytest.param([Decimal("1.5")] * 2, [Decimal("1.5"), Decimal("1.5")], id="one object or two"),
        pytest.param(float("nan"), -float("-nan"), id="not a number"),
    ],
)
def test_equal_values_are_equal(one: object, other: object) -> None:
    assert key_of(scaled, one) == key_of(scaled, other)


def test_the_place_of_an_array_in_memory_does_not_matter() -> None:
    array = np.arange(24.0).reshape(4, 6)
    wide = np.zeros((4, 12))
    wide[:, ::2] = array
    backwards = array[::-1].copy()[::-1]
    same = [array, array.copy(), np.asfortranarray(array), wide[:, ::2], backwards, array.copy().view()]
    read_only = array.copy()
    read_only.flags.writeable = False
    assert len({key_of(scaled, each) for each in [*same, read_only]}) == 1
    assert key_of(scaled, array) != key_of(scaled, array.T)
    changed = array.copy()
    changed[3, 5] = np.nextafter(changed[3, 5], 0)
    assert key_of(scaled, array) != key_of(scaled, changed)


def test_bytes_between_the_fields_of_an_array_do_not_matter() -> None:
    kind = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    ones = np.frombuffer(b"\1" * 2 * kind.itemsize, kind)
    zeros = np.zeros(2, kind)
    for name in ("a", "b"):
        zeros[name] = ones[name]
    assert ones.view("u1").tobytes() != zeros.view("u1").tobytes()
    assert key_of(scaled, ones) == key_of(scaled, zeros)


def test_pandas_tables_are_compared() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert key_of(scaled, table) == key_of(scaled, table.copy())
    assert key_of(scaled, table) != key_of(scaled, table.assign(a=[1, 3]))
    assert key_of(scaled, table) != key_of(scaled, table.rename(columns={"a": "c"}))


@dataclasses.dataclass
class Case:
    name: str
    steps: list[int]


class Slotted:
    __slots__ = ("a", "b")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def test_objects_count_by_class_and_attributes() -> None:
    assert key_of(scaled, Case("a", [1])) == key_of(scaled, Case("a", [1]))
    assert key_of(scaled, Case("a", [1])) != key_of(scaled, Case("a", [2]))
    assert key_of(scaled, Colour.RED) != key_of(scaled, Colour.BLUE)
    one, other = Slotted(), Slotted()
    one.a = other.a = 1
    assert key_of(scaled, one) == key_of(scaled, other)
    other.b = 2
    assert key_of(scaled, one) != key_of(scaled, other)


def test_attributes_count_in_any_order() -> None:
    one, other = types.SimpleNamespace(a=1, b=2), types.SimpleNamespace(b=2, a=1)
    assert key_of(scaled, one) == key_of(scaled, other)


def test_values_that_contain_themselves() -> None:
    def ring(length: int) -> list[Any]:
        first: list[Any] = [0]
        last = first
        for _ in range(length - 1):
            last.append([0])
            last = last[-1]
        last.append(first)
        return first

    assert key_of(scaled, ring(3)) == key_of(scaled, ring(3))
    assert key_of(scaled, ring(3)) != key_of(scaled, ring(4))


@pytest.mark.timeout(20)
def test_many_objects_that_know_each_other_take_no_time() -> None:
    """There are more ways through 40 such objects than anybody could go."""

    def web(names: list[str]) -> list[types.SimpleNamespace]:
        nodes = [types.SimpleNamespace(name=name) for name in names]
        for node in nodes:
            node.others = [other for other in nodes if other is not node]
        return nodes

    names = [f"n{number}" for number in range(40)]
    assert key_of(scaled, web(names)) == key_of(scaled, web(names))
    assert key_of(scaled, web(names)) != key_of(scaled, web([*names[:-1], "x"]))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(lambda: ([1, threading.Lock()],), "item 1 of argument 1 is a _thread.lock object", id="lock"),
        pytest.param(lambda: (0, {"f": sys.__stdin__}), "'f' of argument 2 is a _io.TextIO", id="file"),
        pytest.param(lambda: ((x for x in ()),), "argument 1 is a generator object", id="generator"),
        pytest.param(
            lambda: (Reference("x"),), "argument 1 is Reference('x'), whose value only engines", id="reference"
        ),
        pytest.param(
            lambda: (Case("a", threading.Lock()),),  # type: ignore[arg-type]
            "attribute 'steps' of argument 1 is a _thread.lock", id="attribute",
        ),
        pytest.param(
            lambda: (types.ModuleType("made_here"),), "argument 1 uses has no file", id="module without a file"
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named(make: Callable[[], tuple[Any, ...]], told: str) -> None:
    with pytest.raises(TypeError) as error:
        key_of(scaled, *make())
    assert "cache=True cannot tell whether two calls of scaled are equal: " in str(error.value)
    assert told in str(error.value)
    assert "leave cache=True out" in str(error.value)


def test_an_argument_by_name_and_a_global_are_named() -> None:
    with pytest.raises(TypeError, match=r"argument 'x' is a _thread\.lock"):
        key_of(scaled, x=threading.Lock())
    uses_lock = function_of("def f(x):\n    with lock: return x", lock=threading.Lock())
    with pytest.raises(TypeError, match=r"the global variable 'lock' is a _thread\.lock"):
        key_of(uses_lock, 1)


# --- functions --------------------------------------------------------------------------------------------------

BASE = "def f(x, y=1, *, z=2):\n    return g(x) + y + z\n"
HELPER = "def g(x):\n    return K * x\nK = 3\n"


def changed_sources() -> Iterator[tuple[str, str]]:
    yield "code", BASE.replace("+ y", "- y") + HELPER
    yield "constant", BASE.replace("+ z", "+ z + 1") + HELPER
    yield "default", BASE.replace("y=1", "y=2") + HELPER
    yield "keyword default", BASE.replace("z=2", "z=3") + HELPER
    yield "name of a parameter", BASE.replace("y", "w") + HELPER
    yield "function that it calls", BASE + HELPER.replace("K * x", "K + x")
    yield "global of the function that it calls", BASE + HELPER.replace("K = 3", "K = 4")
    yield "type of the global", BASE + HELPER.replace("K = 3", "K = 3.0")
    yield "no global", BASE + HELPER.replace("K = 3", "")
    yield "decorator", "import functools\n@functools.lru_cache\n" + BASE + HELPER


@pytest.mark.parametrize(("what", "source"), [*changed_sources()], ids=[what for what, _ in changed_sources()])
def test_a_change_of_the_function_is_another_call(what: str, source: str) -> None:
    assert key_of(function_of(BASE + HELPER), 1) != key_of(function_of(source), 1), what


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("# a comment\n\n\n" + BASE + "\n\n# another\n" + HELPER, id="comments and lines"),
        pytest.param(HELPER + BASE, id="order in the file"),
        pytest.param(BASE + HELPER + "UNUSED = 5\ndef h(): pass\n", id="unused globals"),
        pytest.param(BASE.replace("def f", "def e") + HELPER + "f = e\n", id="another name"),
    ],
)
def test_what_does_not_change_what_the_function_does(source: str) -> None:
    assert key_of(function_of(BASE + HELPER), 1) == key_of(function_of(source), 1)


def test_closures_and_inner_functions_count() -> None:
    def made(a: Any) -> Callable[..., Any]:
        return lambda x: x + a

    assert key_of(made(1), 1) == key_of(made(1), 1)
    assert key_of(made(1), 1) != key_of(made(2), 1)
    assert key_of(made(np.zeros(2)), 1) != key_of(made(np.ones(2)), 1)
    inner = "def f(x):\n    def h(y):\n        return y + K\n    return h(x)\nK = {}\n"
    assert key_of(function_of(inner.format(1)), 1) != key_of(function_of(inner.format(2)), 1)
    sets = "def f(x):\n    return x in {'a', 'b', 'c', 'd'}"
    assert key_of(function_of(sets), 1) != key_of(function_of(sets.replace("'d'", "'e'")), 1)


def test_functions_that_call_each_other() -> None:
    source = "def f(n):\n    return n and g(n - 1)\ndef g(n):\n    return n and f(n - 1) + {}\n"
    assert key_of(function_of(source.format(1)), 1) == key_of(function_of(source.format(1)), 1)
    assert key_of(function_of(source.format(1)), 1) != key_of(function_of(source.format(2)), 1)


def test_classes_and_methods_of_the_user_count() -> None:
    source = (
        "class Base:\n    def half(self): return self.x / {0}\n"
        "class Model(Base):\n    factor = {1}\n    def __init__(self, x): self.x = x\n"
        "    @property\n    def y(self): return self.x + {2}\n    @staticmethod\n    def s(): return {3}\n"
        "def f(x): return Model(x).half()\n"
    )
    changed = [[2, 1, 0, 0], [3, 1, 0, 0], [2, 2, 0, 0], [2, 1, 1, 0], [2, 1, 0, 1]]
    keys = [key_of(function_of(source.format(*each)), 1) for each in changed]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of(function_of(source.format(*changed[0])), 1)
    methods = [function_of(source.format(*each)).__globals__["Model"](1).half for each in changed]
    assert len({key_of(method) for method in methods}) == len(changed)


def test_attributes_of_a_function_count() -> None:
    one, other = function_of(BASE + HELPER), function_of(BASE + HELPER)
    other.table = TABLE  # type: ignore[attr-defined]
    assert key_of(one, 1) != key_of(other, 1)


def test_a_function_that_has_run_often_is_the_same() -> None:
    """Python specializes bytecode that runs often."""
    function = function_of(BASE + HELPER)
    before = key_of(function, 1)
    for number in range(5_000):
        function(number)
    assert key_of(function, 1) == before


def wrapped(number: int) -> Callable[..., Any]:
    @functools.wraps(Decimal.from_float)
    def of_user(x: int) -> int:
        return x + number

    @functools.wraps(dataclasses.replace)  # of a module in Python
    def too(x: int) -> int:
        return of_user(x) + number

    return too


def dataclass_made(number: int) -> Callable[..., Any]:
    kind = dataclasses.make_dataclass("Point", ["x"], namespace={"moved": lambda self: self.x + number})
    kind.__module__ = "types"  # as Python 3.11 and older have it
    return lambda x: kind(x).moved()


@pytest.mark.parametrize("make", [wrapped, dataclass_made])
def test_what_bears_the_name_of_a_library_counts_by_its_code(make: Callable[[int], Callable[..., Any]]) -> None:
    assert key_of(make(1), 1) == key_of(make(1), 1)
    assert key_of(make(1), 1) != key_of(make(2), 1)


@pytest.mark.parametrize(
    "value",
    [
        dataclasses.replace, functools.partial, functools.partial.__call__, type(iter([])), type(np.sin),
        type(dataclasses.replace), np.linalg.norm, np.random.Generator, collections.Counter.fromkeys,
        collections.Counter.most_common, type(None), importlib.metadata.version, enum.Enum, np.dtypes.Float64DType,
    ],
)  # fmt: skip
def test_parts_of_libraries_are_comparable(value: Any) -> None:
    assert key_of(scaled, value) == key_of(scaled, value)


def test_installed_modules_count_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def uses_numpy(x: Any) -> Any:
        return np.sum(x)

    before = key_of(uses_numpy, 1), key_of(np.sum, 1), key_of(scaled, np.dtype)
    from ipmpi.client.cache import modules

    modules._version.cache_clear()
    monkeypatch.setattr(np, "__version__", "99.9")
    after = key_of(uses_numpy, 1), key_of(np.sum, 1), key_of(scaled, np.dtype)
    modules._version.cache_clear()
    assert all(one != other for one, other in zip(before, after, strict=True))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with a module that uses another one."""
    (tmp_path / "physics_of_test.py").write_text("G = 9.81\n\ndef fall(t):\n    return G * t * t / 2\n")
    (tmp_path / "study_of_test.py").write_text(
        "import physics_of_test\nfrom physics_of_test import fall\n\n"
        "def by_module(t):\n    return physics_of_test.fall(t)\n\n"
        "def by_name(t):\n    return fall(t)\n\n"
        "def late(t):\n    import physics_of_test as p\n    return p.fall(t)\n\n"
        "def other(t):\n    return t\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("physics_of_test", "study_of_test"):
        sys.modules.pop(name, None)


def keys_of_project() -> dict[str, bytes]:
    for name in ("physics_of_test", "study_of_test"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    study = importlib.import_module("study_of_test")
    return {name: key_of(getattr(study, name), 1) for name in ("by_module", "by_name", "late", "other")}


def test_modules_of_the_user_count_by_what_is_in_them(project: Path) -> None:
    before = keys_of_project()
    assert keys_of_project() == before
    file = project / "physics_of_test.py"
    file.write_text(file.read_text().replace("9.81", "9.8065"))
    after = keys_of_project()
    assert {name for name in before if before[name] != after[name]} == {"by_module", "by_name", "late"}


# --- other processes ---------------------------------------------------------------------------------------------

PROGRAM = """
import dataclasses, enum, sys
from decimal import Decimal
import numpy as np
from ipmpi.client.cache.callkey import CallKeys

K = {"b": {3, 1, 2}, "a": frozenset({"x", "y", "zz"})}

@dataclasses.dataclass
class Case:
    name: str
    steps: list = dataclasses.field(default_factory=list)

class Colour(enum.Enum):
    RED = 1

def g(x):
    return f(x - 1) if x in {"a", "b", "c", None} else np.sin(x) * len(K)

def f(x, *, names={"p", "q", "r"}):
    "What it does."
    return g(x) + Case("a").steps + [Colour.RED]

keys = CallKeys(f)
for value in [1, "a", {"x", "y", "z"}, {"k": {"l", "m"}}, Case("a", [1]), Colour.RED, Case, np.arange(3.0),
              Decimal(1), np.array(["a", None, {"q", "w"}], object), lambda: K, {Colour.RED, Case}]:
    print(keys.of((value,)).hex())
"""


def test_keys_are_the_same_in_other_processes(tmp_path: Path) -> None:
    """Whatever the seed of hashes, the folder and the lines before the code, which change in another session."""
    said = set()
    for number, seed in enumerate(["0", "1", "77"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        program = folder / f"program{number}.py"
        program.write_text("\n" * number + PROGRAM)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[3])}
        options = ["-O"] if number == 2 else []
        ran = subprocess.run(
            [sys.executable, *options, str(program)], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=100, check=True,
        )  # fmt: skip
        said.add(ran.stdout)
    assert len(said) == 1
    assert len(set(said.pop().split())) == 12


def test_the_version_of_python_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(scaled, 1)
    implementation = types.SimpleNamespace(**{**vars(sys.implementation), "cache_tag": "cpython-399"})
    monkeypatch.setattr(sys, "implementation", implementation)
    assert key_of(scaled, 1) != before


def test_the_keys_of_many_calls_are_those_of_each() -> None:
    shared = np.arange(5.0)
    rows: list[tuple[Any, ...]] = [(1, 2.0), ("a",), (shared, 1), (shared, 2), ([1], shared), ()]
    keys = CallKeys(scaled)
    assert keys.of_rows(rows) == [CallKeys(scaled).of(row) for row in rows]
