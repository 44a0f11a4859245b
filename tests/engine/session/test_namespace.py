from __future__ import annotations

import operator
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ipmpi import limits, serialize
from ipmpi.engine.session.namespace import CommandAnswer, Namespace
from ipmpi.protocol.operations import (
    Apply,
    BeforeWalltime,
    ClearProperties,
    DelProperties,
    EndComes,
    Execute,
    Executed,
    Failed,
    GetProperties,
    GetResult,
    HasProperties,
    Keys,
    Map,
    Nothing,
    Operation,
    Pull,
    PullFunction,
    Push,
    PushFunction,
    Reset,
    SetProperties,
    Value,
    decode_outcome,
    encode,
)
from ipmpi.serialize import Buffer, dumps

NOTHING = object()


class Engine:
    """A namespace as a client sees it."""

    def __init__(self) -> None:
        self.namespace = Namespace(7, mpi="the mpi")

    def answer(self, operation: Operation, body: object = NOTHING) -> CommandAnswer:
        segments: Sequence[Buffer] = [] if body is NOTHING else [bytearray(segment) for segment in dumps(body)]
        return self.namespace.run(type(operation).__name__, encode(operation), segments)

    def value(self, operation: Operation, body: object = NOTHING) -> Any:
        answer = self.answer(operation, body)
        outcome = decode_outcome(answer.outcome)
        assert answer.ok, outcome
        if isinstance(outcome, Nothing):
            assert answer.body == []
            return None
        assert isinstance(outcome, Value)
        return serialize.loads(answer.body)

    def failed(self, operation: Operation, body: object = NOTHING) -> Failed:
        answer = self.answer(operation, body)
        outcome = decode_outcome(answer.outcome)
        assert isinstance(outcome, Failed), outcome
        assert not answer.ok
        return outcome

    def execute(self, source: str) -> Executed:
        answer = self.answer(Execute(source))
        outcome = decode_outcome(answer.outcome)
        assert isinstance(outcome, Executed), outcome
        assert answer.ok
        return outcome

    def pull(self, name: str) -> Any:
        return self.value(Pull([name], single=True))


@pytest.fixture
def engine() -> Engine:
    return Engine()


def typed_at_a_prompt(source: str, **names: Any) -> dict[str, Any]:
    names["__name__"] = "__main__"
    exec(source, names)
    return names


# --- Push, pull, keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [10, "hi there", 1.23, {"p": (1, 2)}, None])
def test_what_is_pushed_can_be_pulled(engine: Engine, value: object) -> None:
    assert engine.value(Push(), {"a": value}) is None
    assert engine.pull("a") == value
    assert engine.value(Pull(["a"])) == [value]
    assert engine.value(Pull(["a", "a"])) == [value, value]


def test_arrays_are_pulled_without_a_copy(engine: Engine) -> None:
    engine.value(Push(), {"a": np.arange(10_000)})
    body = engine.answer(Pull(["a"], single=True)).body
    assert np.shares_memory(np.frombuffer(body[1], "u1"), engine.namespace.names["a"])
    engine.execute("a[0] = 5")
    assert serialize.loads(body)[0] == 5


def test_pull_of_a_missing_name(engine: Engine) -> None:
    failure = engine.failed(Pull(["a", "x"]))
    assert (failure.type_name, failure.text) == ("NameError", "name 'a' is not defined")
    assert failure.traceback == "NameError: name 'a' is not defined\n"


def test_pull_of_what_cannot_be_sent_says_which(engine: Engine) -> None:
    engine.execute("import threading; a = 1; lock = threading.Lock(); b = [lock]")
    for operation, part in ((Pull(["lock"], True), "'lock'"), (Pull(["a", "b"]), "item 0 of 'b'")):
        failure = engine.failed(operation)
        assert failure.type_name == "SerializationError"
        assert failure.text.startswith(f"cannot send {part}: a _thread.lock object cannot be pickled; ")


def test_push_of_names_that_are_no_strings(engine: Engine) -> None:
    assert engine.failed(Push(), {1: 2}).text == "a name in a namespace is a string, not 1"


def test_keys_hides_the_names_of_the_session(engine: Engine) -> None:
    engine.execute("5\nx: int = 3\n__warningregistry__ = {}")
    assert engine.value(Keys()) == ["id", "mpi", "x"]


def test_id_and_mpi_are_there(engine: Engine) -> None:
    assert (engine.pull("id"), engine.pull("mpi")) == (7, "the mpi")
    engine.namespace.engine_id = 9
    assert engine.pull("id") == 9


def test_an_engine_of_another_release_is_told(engine: Engine) -> None:
    answer = engine.namespace.run("teleport", b"\x91\xa8teleport", [])
    failure = decode_outcome(answer.outcome)
    assert isinstance(failure, Failed)
    assert failure.type_name == "RemoteProtocolError"
    assert failure.text.startswith("engine 7 does not understand this 'teleport'")
    assert failure.text.endswith("install the same release of ipmpi for client and engines")


# --- Reset -------------------------------------------------------------------------------------------------


def test_reset_starts_again(engine: Engine) -> None:
    engine.execute("from __future__ import annotations\na = 1\na")
    engine.value(SetProperties(), {"p": 1})
    engine.value(Reset())
    assert engine.value(Keys()) == ["id", "mpi"]
    assert engine.failed(Pull(["a"], True)).type_name == "NameError"
    assert engine.value(GetProperties()) == {}
    assert engine.failed(GetResult(1)).text == "index 1 out of range"
    assert engine.execute("In, Out").number == 1
    assert engine.pull("In") == ["", "In, Out"]


# --- Functions ---------------------------------------------------------------------------------------------


def test_pushed_functions_keep_defaults_and_closures(engine: Engine) -> None:
    source = "def outer(n):\n    def f(x, y=2, *, z=3): return x + y + z + n + g\n    return f\nf = outer(100)"
    engine.value(Push(), {"g": 1000})
    engine.value(PushFunction(), {"f": typed_at_a_prompt(source)["f"]})
    assert engine.execute("f(1)").display_repr == "1106"
    assert engine.pull("f").__name__ == "f"


def uses_globalvar() -> Any:
    return globalvar  # type: ignore[name-defined]  # noqa: F821


def uses_a_module() -> str:
    return operator.add.__name__


def test_functions_of_modules_too_take_globals_from_the_namespace(engine: Engine) -> None:
    engine.value(Push(), {"globalvar": 10})
    engine.value(PushFunction(), {"f": uses_globalvar, "g": uses_a_module})
    assert engine.execute("f(), g()").display_repr == "(10, 'add')"


def test_push_function_wants_functions(engine: Engine) -> None:
    failure = engine.failed(PushFunction(), {"f": len})
    assert (failure.type_name, failure.text) == ("TypeError", "function object expected")


def test_pull_function(engine: Engine) -> None:
    engine.execute("k = 2\ndef f(x): return x * k\ndef g(x): return f(x) + 1\nh = 5")
    f, g = engine.value(PullFunction(["f", "g"]))
    assert (f(2), g(2)) == (4, 5)
    assert engine.value(PullFunction(["f"], single=True))(3) == 6
    assert engine.failed(PullFunction(["h"])).text == "function object expected, but 'h' is a int; use pull"


# --- Apply and map -----------------------------------------------------------------------------------------


def test_apply_answers_what_the_function_returned(engine: Engine) -> None:
    assert engine.value(Apply(), (divmod, (7, 2), {})) == (3, 1)
    assert engine.value(Apply(), (dict, (), {"a": 1})) == {"a": 1}
    assert engine.answer(Apply(), (print, (), {"end": ""})).outcome == encode(Nothing())


def test_an_applied_function_sees_the_namespace(engine: Engine) -> None:
    engine.value(Push(), {"a": 21})
    lambda_ = typed_at_a_prompt("f = lambda: a * 2")["f"]
    assert engine.value(Apply(), (lambda_, (), {})) == 42


def test_a_name_of_the_engine_wins_over_what_the_function_brought(engine: Engine) -> None:
    engine.value(Push(), {"x": [1, 2]})
    total = typed_at_a_prompt("def f(): return sum(x)", x=[1, 2, 3, 4])["f"]
    assert engine.value(Apply(), (total, (), {})) == 3


def test_a_helper_is_used_as_it_was_sent_last(engine: Engine) -> None:
    caller = "def f(): return helper()\n"
    for number in (1, 2):
        names = typed_at_a_prompt(caller + f"def helper(): return {number}")
        assert engine.value(Apply(), (names["f"], (), {})) == number


def test_what_user_code_makes_of_a_brought_name_stays(engine: Engine) -> None:
    names = typed_at_a_prompt("def f():\n    global n\n    n += 1\n    return n", n=100)
    assert [engine.value(Apply(), (names["f"], (), {})) for _ in range(3)] == [101, 102, 103]
    engine.value(Push(), {"n": 5})
    assert engine.value(Apply(), (names["f"], (), {})) == 6
    assert engine.pull("n") == 6


def test_pushing_a_brought_name_makes_it_the_engines_own(engine: Engine) -> None:
    names = typed_at_a_prompt("def f(): return n", n=1)
    assert engine.value(Apply(), (names["f"], (), {})) == 1
    engine.value(Push(), {"n": 1})
    names["n"] = 2
    assert engine.value(Apply(), (names["f"], (), {})) == 1


def test_nested_functions_methods_and_partials_see_the_namespace(engine: Engine) -> None:
    source = (
        "import functools\n"
        "class C:\n    def method(self): return [a for _ in range(2)]\n"
        "def inner(): return a\n"
        "def f(): return inner(), C().method(), (lambda: a)()\n"
        "p = functools.partial(inner)\n"
    )
    names = typed_at_a_prompt(source)
    engine.value(Push(), {"a": 3})
    assert engine.value(Apply(), (names["f"], (), {})) == (3, [3, 3], 3)
    assert engine.value(Apply(), (names["p"], (), {})) == 3
    assert engine.value(Apply(), (names["C"]().method, (), {})) == [3, 3]


def test_recursive_functions(engine: Engine) -> None:
    fib = typed_at_a_prompt("def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)")["fib"]
    assert engine.value(Apply(), (fib, (10,), {})) == 55


def test_instances_of_client_classes_come_back_as_that_class(engine: Engine) -> None:
    names = typed_at_a_prompt("class P:\n    x = 1\ndef f(p):\n    p.x = 2\n    return p")
    result = engine.value(Apply(), (names["f"], (names["P"](),), {}))
    assert type(result) is names["P"]
    assert result.x == 2


def test_a_result_that_cannot_be_sent(engine: Engine) -> None:
    failure = engine.failed(Apply(), (threading.Lock, (), {}))
    assert failure.text.startswith("cannot send the result of apply: a _thread.lock object cannot be pickled")


def test_a_module_that_is_not_on_the_engine(engine: Engine) -> None:
    body = [b"\x80\x05cno_such_module\nf\n."]
    outcome = decode_outcome(engine.namespace.run("apply", encode(Apply()), body).outcome)
    assert isinstance(outcome, Failed)
    assert outcome.type_name == "ModuleNotFoundError"
    assert outcome.text.startswith(
        "No module named 'no_such_module': it is needed here to rebuild what was sent. "
    )
    assert "cloudpickle.register_pickle_by_value(module)" in outcome.text


def test_map(engine: Engine) -> None:
    assert engine.value(Map(), (lambda x, y: x * y, [[1, 2], (3, 4)])) == [3, 8]
    engine.execute("k = 10\ndef f(x): return x + k")
    assert engine.value(Map(), ("f", [[1, 2]])) == [11, 12]
    assert engine.value(Map(), ("lambda x: x - k", [range(2)])) == [-10, -9]
    assert engine.value(Map(), (str, [[]])) == []
    assert engine.value(Map(), (str, [])) == []


def test_map_that_fails(engine: Engine) -> None:
    assert engine.failed(Map(), ("missing", [[1]])).text == "name 'missing' is not defined"
    assert engine.failed(Map(), (operator.truediv, [[1], [0]])).type_name == "ZeroDivisionError"


# --- Properties --------------------------------------------------------------------------------------------


def test_properties(engine: Engine) -> None:
    assert engine.value(SetProperties(), {"a": 5, "b": [1]}) is None
    assert engine.value(GetProperties()) == {"a": 5, "b": [1]}
    assert engine.value(GetProperties(["b"])) == {"b": [1]}
    assert engine.value(HasProperties(["a", "z"])) == [True, False]
    assert engine.failed(GetProperties(["z"])).type_name == "KeyError"
    assert engine.failed(DelProperties(["a", "z"])).type_name == "KeyError"
    assert engine.value(DelProperties(["a"])) is None
    assert engine.value(GetProperties()) == {"b": [1]}
    assert engine.value(ClearProperties()) is None
    assert engine.value(GetProperties()) == {}


def test_properties_must_be_data(engine: Engine) -> None:
    failure = engine.failed(SetProperties(), {"ok": 1, "f": lambda: 1})
    assert failure.type_name == "InvalidProperty"
    assert failure.text.startswith("the property 'f' cannot be stored: ")
    assert engine.value(GetProperties()) == {}


# --- What task runners ask for ------------------------------------------------------------------------------


def test_clearing_names_begins_a_generation(engine: Engine) -> None:
    before = engine.namespace.generation
    engine.execute("a = 1")
    assert engine.namespace.generation == before
    engine.namespace.clear_names()
    assert engine.value(Keys()) == ["id", "mpi"]
    engine.value(Reset())
    assert engine.namespace.generation == before + 2


def test_operations_that_change_properties_are_counted(engine: Engine) -> None:
    versions = [engine.namespace.properties_version]

    def changed() -> bool:
        versions.append(engine.namespace.properties_version)
        return versions[-1] != versions[-2]

    engine.value(SetProperties(), {"a": 5, "b": 6})
    assert changed()
    engine.value(GetProperties())
    engine.failed(DelProperties(["z"]))
    assert not changed()
    engine.value(DelProperties(["a"]))
    assert changed()
    engine.value(ClearProperties())
    assert changed()


def test_functions_in_a_pickle_inside_a_pickle_see_the_namespace(engine: Engine) -> None:
    engine.value(Push(), {"a": 21})
    double = typed_at_a_prompt("def double(x): return a * 2")["double"]
    inside = serialize.in_one_piece(dumps((double, (np.zeros(1000),), {})))
    answer = engine.namespace.run("apply", encode(Apply()), [inside])
    assert serialize.loads(answer.body) == 42


# --- The module --------------------------------------------------------------------------------------------


@pytest.fixture
def main_restored() -> Iterator[None]:
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.mark.usefixtures("main_restored")
def test_installed_as_main_names_are_found_by_plain_pickle(engine: Engine) -> None:
    engine.namespace.install_as_main()
    result = engine.execute("import pickle\nclass C: pass\ntype(pickle.loads(pickle.dumps(C()))) is C")
    assert result.display_repr == "True"
    assert engine.execute("import __main__; __main__.C is C").display_repr == "True"


def test_without_installation_too_names_of_main_are_found_in_what_is_sent(engine: Engine) -> None:
    engine.execute("class C: pass")
    body = [b"\x80\x05}\x8c\x01kc__main__\nC\ns."]
    assert decode_outcome(engine.namespace.run("push", encode(Push()), body).outcome) == Nothing()
    assert engine.execute("k is C").display_repr == "True"


def test_importing_it_is_light() -> None:
    code = (
        "import sys; from ipmpi.engine.session.namespace import Namespace; Namespace()\n"
        "print({'numpy', 'cloudpickle', 'mpi4py', 'asyncio', 'pprint', 'OpenSSL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_answer_fits_in_a_message(engine: Engine) -> None:
    big = 2 * limits.RESULT_TEXT
    source = f"import sys; n = {big}; print('o' * n); print('é' * n, file=sys.stderr); 'd' * n; "
    source += "raise ValueError('t' * n)"
    assert len(engine.answer(Execute(source)).outcome) < limits.MESSAGE - limits.INLINE_BODY
    assert len(engine.answer(Execute(source.replace("raise", "#"))).outcome) < limits.MESSAGE - limits.INLINE_BODY
    assert len(engine.answer(GetResult()).outcome) < limits.MESSAGE


# --- Before the end of the job -----------------------------------------------------------------------------


def test_a_function_is_called_once_when_the_end_comes(engine: Engine) -> None:
    save = typed_at_a_prompt("def save(): saved.append(id)")["save"]
    engine.value(Push(), {"saved": []})
    engine.value(BeforeWalltime(b"k", 60.0, "save"), save)
    assert engine.pull("saved") == []
    for _ in range(2):
        assert engine.value(EndComes(b"k")) is None
    assert engine.pull("saved") == [7]


def test_its_failure_is_an_answer(engine: Engine) -> None:
    engine.value(BeforeWalltime(b"k", 60.0, "f"), typed_at_a_prompt("def f(): raise OSError('disk full')")["f"])
    failed = engine.failed(EndComes(b"k"))
    assert failed.traceback.endswith("OSError: disk full\n")
    assert engine.value(EndComes(b"k")) is None


def test_reset_forgets_it(engine: Engine) -> None:
    engine.value(BeforeWalltime(b"k", 60.0, "f"), typed_at_a_prompt("def f(): raise OSError")["f"])
    engine.value(Reset())
    assert engine.value(EndComes(b"k")) is None
