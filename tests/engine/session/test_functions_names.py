"""Which names a function sees on an engine: its own globals before those that ipmpi puts there."""

from __future__ import annotations

import builtins
import json
import pickle
from typing import Any

import cloudpickle
import pytest

from ipmpi import serialize
from ipmpi.engine.rank.taskrunner import DONE, TaskRunner
from ipmpi.engine.session.namespace import Namespace
from ipmpi.protocol.messages import DefineFunction
from ipmpi.protocol.operations import (
    Apply,
    BeforeWalltime,
    CallTaskOperation,
    EndComes,
    Execute,
    Pull,
    Push,
    StringTaskOperation,
    decode_outcome,
    encode,
)

SCRIPT = """
In, Out = 0.05, 0.4
_ = {"hello": "bonjour"}.get
mpi = "miles per inch"
id = 77
def balance(): return In - Out
def greet(word): return _(word)
def unit(): return mpi
def number(): return id
def outer(): return balance(), greet("hello"), unit(), number()
"""
WANTED = (0.05 - 0.4, "bonjour", "miles per inch", 77)


class Engine:
    def __init__(self) -> None:
        self.namespace = Namespace(3, mpi="the mpi")
        self.runner = TaskRunner(self.namespace)
        self._keys = 0

    def command(self, operation: Any, body: Any = None) -> Any:
        segments = [] if body is None else [bytes(each) for each in serialize.dumps(body)]
        answer = self.namespace.run("command", encode(operation), segments)
        assert answer.ok, decode_outcome(answer.outcome)
        self.runner.names_changed()
        return serialize.loads(answer.body) if answer.body else decode_outcome(answer.outcome)

    def task(self, function: Any, *args: Any, space: bytes = b"") -> Any:
        self._keys += 1
        key = self._keys.to_bytes(16, "big")
        data = cloudpickle.dumps(function, protocol=5)
        self.runner.define(DefineFunction(key, 0, len(data), [len(data)]), data)
        return self.again(key, *args, space=space)

    def again(self, key: bytes, *args: Any, space: bytes = b"") -> Any:
        program = self.runner.program(encode(CallTaskOperation(key, True, space=space)))
        kind, data = self.runner.run(program, pickle.dumps(args))
        assert kind == DONE, data
        return pickle.loads(data) if data else None

    def shown(self, source: str) -> str:
        return str(self.command(Execute(source)).display_repr)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def typed_at_a_prompt(source: str, **names: Any) -> dict[str, Any]:
    names["__name__"] = "__main__"
    exec(source, names)
    return names


def test_a_function_sees_its_own_globals_before_ipmpis(engine: Engine) -> None:
    names = typed_at_a_prompt(SCRIPT)
    for _ in range(2):
        assert engine.task(names["outer"]) == WANTED
        assert engine.command(Apply(), (names["outer"], (), {})) == WANTED


def test_after_the_call_the_session_has_its_names_again(engine: Engine) -> None:
    names = typed_at_a_prompt(SCRIPT)
    engine.command(Execute("'shown'"))
    engine.task(names["outer"])
    assert engine.shown("id, mpi, _") == "(3, 'the mpi', 'shown')"
    assert engine.shown("In[1]") == "\"'shown'\""
    engine.command(Apply(), (names["outer"], (), {}))
    assert engine.command(Pull(["id"], True)) == 3
    engine.task(names["outer"])
    program = engine.runner.program(encode(StringTaskOperation("here = id, mpi", ["here"])))
    assert pickle.loads(engine.runner.run(program, b"")[1]) == {"here": (3, "the mpi")}
    assert engine.task(typed_at_a_prompt("def f(): return id, mpi")["f"]) == (3, "the mpi")


def test_what_the_user_put_there_is_the_engines(engine: Engine) -> None:
    names = typed_at_a_prompt("_ = 5\nlimit = 1\ndef f(): return _, limit\n")
    engine.command(Push(), {"limit": 2})
    engine.command(Execute("_ = 'mine'; 1 + 1"))
    assert engine.task(names["f"]) == ("mine", 2)


def test_a_pushed_function_keeps_its_own(engine: Engine) -> None:
    names = typed_at_a_prompt(SCRIPT)
    engine.command(Push(), {"outer": names["outer"]})
    assert eval(engine.shown("outer()")) == WANTED
    engine.command(Push(), {"other": 1})
    assert eval(engine.shown("outer()")) == WANTED


def test_the_function_for_the_end_of_the_job_sees_its_own(engine: Engine) -> None:
    names = typed_at_a_prompt("mpi = 5\nseen = []\ndef save():\n    global saved\n    saved = mpi\n")
    engine.command(BeforeWalltime(b"key", 10.0, "save"), names["save"])
    engine.command(Execute("1"))
    engine.command(EndComes(b"key"))
    assert engine.shown("saved, mpi") == "(5, 'the mpi')"


def test_id_can_be_called_as_pythons_own(engine: Engine) -> None:
    names = typed_at_a_prompt("def distinct(objects): return len({id(each) for each in objects})\n")
    assert engine.task(names["distinct"], [1, "a", None]) == 3
    assert engine.shown("id(id) > 1000, id == 3, f'{id:02d}', isinstance(id, int)") == "(True, True, '03', True)"
    pulled = engine.command(Pull(["id"], True))
    assert (pulled, type(pulled)) == (3, int)
    engine.namespace.engine_id = 8
    assert engine.shown("id") == "8"
    assert json.dumps({"id": engine.namespace.names["id"]}) == '{"id": 8}'


# --- programs that use the engines as processes of their own -------------------------------------------------


def test_a_program_sees_its_own_globals_whatever_others_have_put_there(engine: Engine) -> None:
    names = typed_at_a_prompt("limit = 7\ndef inside(x): return x < limit\n")
    engine.command(Execute("limit = 2"))
    assert engine.task(names["inside"], 5) is False
    assert engine.task(names["inside"], 5, space=b"program") is True
    assert engine.shown("limit") == "2"


def test_a_program_may_use_what_was_pushed_and_it_does_not_have_itself(engine: Engine) -> None:
    names = typed_at_a_prompt("def use(): return sum(data)\n")
    engine.command(Push(), {"data": [1, 2], "sum": "not the builtin"})
    assert engine.task(names["use"], space=b"program") == 3
    engine.command(Push(), {"data": [5]})
    assert engine.again(b"\0" * 15 + b"\1", space=b"program") == 5


def test_a_program_keeps_what_it_assigns_and_two_do_not_meet(engine: Engine) -> None:
    source = "count = 0\ndef up():\n    global count\n    count += 1\n    return count\n"
    source += "def start(): \n    global ready\n    ready = 'yes'\ndef look(): return ready, id(5) == id(5)\n"
    names = typed_at_a_prompt(source)
    assert [engine.task(names["up"], space=b"one") for _ in range(2)] == [1, 2]
    assert engine.task(names["up"], space=b"two") == 1
    engine.task(names["start"], space=b"one")
    assert engine.task(names["look"], space=b"one") == ("yes", True)
    assert "count" not in engine.namespace.names


def test_functions_in_the_arguments_see_the_programs_names_too(engine: Engine) -> None:
    names = typed_at_a_prompt("limit = 7\ndef inside(x): return x < limit\ndef call(f, x): return f(x)\n")
    engine.command(Execute("limit = 2"))
    key = b"k" * 16
    data = cloudpickle.dumps(names["call"], protocol=5)
    engine.runner.define(DefineFunction(key, 0, len(data), [len(data)]), data)
    program = engine.runner.program(encode(CallTaskOperation(key, True, space=b"program")))
    kind, got = engine.runner.run(program, cloudpickle.dumps((names["inside"], 5)))
    assert (kind, pickle.loads(got)) == (DONE, True)


def test_programs_that_were_not_used_for_long_are_forgotten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipmpi.limits.PROGRAM_SPACES", 2)
    names = typed_at_a_prompt("count = 0\ndef up():\n    global count\n    count += 1\n    return count\n")
    assert [engine.task(names["up"], space=space) for space in (b"a", b"b", b"a", b"c")] == [1, 1, 2, 1]
    assert engine.task(names["up"], space=b"a") == 3
    assert engine.task(names["up"], space=b"b") == 1


def test_builtins_are_not_copied(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """gettext.install and the like put names there, and functions find them."""
    names = typed_at_a_prompt("def use(): return installed_for_all\n")
    engine.task(lambda: 1, space=b"program")
    monkeypatch.setattr(builtins, "installed_for_all", 4, raising=False)
    assert engine.task(names["use"], space=b"program") == 4
