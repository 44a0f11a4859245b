"""Tasks in a namespace: what comes out of one item."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest

from ipmpi import limits, serialize
from ipmpi.engine.rank.outcomes import DONE, FAILED, LARGE, REFUSED, REJECTED, Outcome, overruled
from ipmpi.engine.rank.taskrunner import Program, TaskRunner
from ipmpi.engine.session.namespace import Namespace
from ipmpi.errors import TaskAborted, TaskRejectError, TaskTimeout
from ipmpi.protocol.messages import DefineFunction
from ipmpi.protocol.operations import CallTaskOperation, Failed, StringTaskOperation, encode
from ipmpi.protocol.packed import unpack_failure
from ipmpi.serialize import Buffer


class Engine:
    """A runner, as tasks see it."""

    def __init__(self) -> None:
        self.namespace = Namespace(7, mpi="the mpi")
        self.runner = TaskRunner(self.namespace)
        self._keys = 0

    def define(self, function: Callable[..., Any]) -> bytes:
        self._keys += 1
        key = self._keys.to_bytes(16, "big")
        data = cloudpickle.dumps(function, protocol=5)
        self.runner.define(DefineFunction(key, 0, len(data), [len(data)]), data)
        return key

    def program(
        self, function: Callable[..., Any], depend: Callable[..., Any] | None = None, **how: bool
    ) -> Program:
        condition = b"" if depend is None else self.define(depend)
        return self.runner.program(encode(CallTaskOperation(self.define(function), depend=condition, **how)))

    def run(self, program: Program, *args: Any, **kwargs: Any) -> Outcome:
        arguments = args if program.spread else (args, kwargs)
        return self.runner.run(program, serialize.in_one_piece(serialize.dumps(arguments)))

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return value(self.run(self.program(function), *args, **kwargs))

    def string(self, source: str, pull: list[str] | None = None, push: Any = None, **how: Any) -> Outcome:
        program = self.runner.program(encode(StringTaskOperation(source, pull or [], **how)))
        return self.runner.run(program, b"" if push is None else pickle.dumps(push, 5))


def value(outcome: Outcome) -> Any:
    kind, data = outcome
    assert kind == DONE, outcome
    return pickle.loads(data) if data else None


def failure(outcome: Outcome) -> tuple[Failed, BaseException | None]:
    kind, data = outcome
    assert kind == FAILED, outcome
    assert len(data) <= limits.TASK_PAYLOAD
    described, body = unpack_failure(data)
    return described, serialize.loads(body) if body else None


@pytest.fixture
def engine() -> Engine:
    return Engine()


def typed_at_a_prompt(source: str, **names: Any) -> dict[str, Any]:
    names["__name__"] = "__main__"
    exec(source, names)
    return names


# --- calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "result", [None, 5, "text", b"\x93", [1, (2.5, None)], {"a": {1, 2}}, np.float64(2), len, {}, (), 1j]
)
def test_a_call_gives_what_the_function_returned(engine: Engine, result: Any) -> None:
    assert engine.call(lambda x: x, result) == result


def test_arguments_by_name_and_by_position(engine: Engine) -> None:
    assert engine.call(divmod, 7, 2) == (3, 1)
    assert engine.call(dict, a=1) == {"a": 1}
    spread = engine.program(divmod, spread=True)
    assert value(engine.run(spread, 9, 4)) == (2, 1)


def test_arrays_in_arguments_and_results(engine: Engine) -> None:
    assert engine.call(np.sum, np.arange(3000)) == np.arange(3000).sum()
    kept = engine.call(np.arange, 3000)
    kept += 1  # it is writable, as one that came by apply
    assert kept[0] == 1


def test_a_large_result_is_not_copied(engine: Engine) -> None:
    program = engine.program(typed_at_a_prompt("def f(): return big")["f"])
    engine.namespace.merge({"big": np.arange(100_000)})
    kind, segments = engine.run(program)
    assert kind == LARGE
    assert np.shares_memory(np.frombuffer(segments[1], "u1"), engine.namespace.names["big"])
    assert (serialize.loads(segments) == np.arange(100_000)).all()
    kind, segments = engine.run(engine.program(lambda: "x" * 100_000))
    assert kind == LARGE
    assert serialize.loads(segments) == "x" * 100_000


def test_large_arguments_come_as_segments(engine: Engine) -> None:
    body: list[Buffer] = [bytearray(s) for s in serialize.dumps(((np.arange(100_000),), {}))]
    assert value(engine.runner.run(engine.program(np.sum), body)) == np.arange(100_000).sum()


def test_functions_see_the_namespace(engine: Engine) -> None:
    names = typed_at_a_prompt("def helper(): return a\ndef f(): return helper() * 2", a=1)
    engine.namespace.merge({"a": 21})
    assert engine.call(names["f"]) == 42
    assert engine.call(lambda g: g(), names["helper"]) == 21


def test_a_function_is_unpickled_once(engine: Engine) -> None:
    program = engine.program(typed_at_a_prompt("def f():\n    f.n = getattr(f, 'n', 0) + 1\n    return f.n")["f"])
    assert [value(engine.run(program)) for _ in range(3)] == [1, 2, 3]
    engine.namespace.clear_names()
    assert value(engine.run(program)) == 1


def test_each_function_keeps_the_helper_it_came_with(engine: Engine) -> None:
    programs = []
    for number in (1, 2):
        names = typed_at_a_prompt(f"def helper(): return {number}\ndef f(): return helper()")
        programs.append(engine.program(names["f"]))
    assert [value(engine.run(programs[n])) for n in (0, 1, 0, 0, 1)] == [1, 2, 1, 1, 2]
    engine.namespace.run("execute", b"\x92\xa7execute\xaadel helper", [])
    engine.runner.names_changed()
    assert value(engine.run(programs[0])) == 1


def test_a_function_in_pieces(engine: Engine) -> None:
    data = cloudpickle.dumps(lambda: "whole")
    key = b"k" * 16
    for start in range(0, len(data), 100):
        engine.runner.define(DefineFunction(key, start, len(data), []), data[start : start + 100])
    program = engine.runner.program(encode(CallTaskOperation(key)))
    assert value(engine.run(program)) == "whole"


def test_a_function_that_was_forgotten(engine: Engine) -> None:
    key = engine.define(len)
    operation = encode(CallTaskOperation(key))
    assert value(engine.run(engine.runner.program(operation), "abc")) == 3
    engine.runner.forget([key])
    described, error = failure(engine.run(engine.runner.program(operation), "abc"))
    assert described.text == "the function of this task did not come to this engine; submit the task again"
    assert described.type_name == "RemoteProtocolError"
    assert type(error).__name__ == "RemoteProtocolError"


def test_a_task_of_another_release(engine: Engine) -> None:
    described, _ = failure(engine.runner.run(engine.runner.program(b"\x91\xa8teleport"), b""))
    assert described.text.startswith("this engine does not understand the task (")


# --- failures -------------------------------------------------------------------------------------------------


def test_a_call_that_raises(engine: Engine) -> None:
    described, error = failure(engine.run(engine.program(lambda: 1 / 0)))
    assert (described.type_name, described.text) == ("ZeroDivisionError", "division by zero")
    assert "in <lambda>" in described.traceback
    assert "ipmpi/engine" not in described.traceback
    assert type(error) is ZeroDivisionError


def leave() -> None:
    raise SystemExit(3)


def test_leaving_python_is_a_failure(engine: Engine) -> None:
    assert failure(engine.run(engine.program(leave)))[0].type_name == "SystemExit"


def complain(size: int) -> None:
    raise ValueError("é" * size, np.arange(size))


def test_a_failure_is_never_large(engine: Engine) -> None:
    described, error = failure(engine.run(engine.program(complain), 2000))
    assert isinstance(error, ValueError)
    assert (error.args[1] == np.arange(2000)).all()
    described, error = failure(engine.run(engine.program(complain), 1_000_000))
    assert described.type_name == "ValueError"
    assert error is None


def test_a_result_that_cannot_be_sent_says_which_object(engine: Engine) -> None:
    described, _ = failure(engine.run(engine.program(lambda: {"ok": 1, "lock": threading.Lock()})))
    assert described.type_name == "SerializationError"
    assert described.text.startswith("cannot send 'lock' of the result of the task: a _thread.lock object")
    described, _ = failure(engine.string("import threading; a = threading.Lock()", ["a"]))
    assert described.text.startswith("cannot send 'a' of the results of the task: a _thread.lock object")


def test_a_module_that_is_not_on_the_engine(engine: Engine) -> None:
    described, _ = failure(
        engine.runner.run(engine.program(len, spread=True), b"\x80\x05\x8c\x02no\x8c\x01f\x93\x85.")
    )
    assert described.text.startswith("No module named 'no': it is needed here to rebuild what was sent. ")


def reject() -> None:
    raise TaskRejectError("not here")


def test_rejecting(engine: Engine) -> None:
    assert engine.run(engine.program(reject)) == (REJECTED, "not here")
    assert engine.string("from ipmpi.errors import TaskRejectError\nraise TaskRejectError('nor here')") == (
        REJECTED,
        "nor here",
    )


def test_what_becomes_of_a_task_that_was_interrupted_for_a_reason(engine: Engine) -> None:
    failed = engine.run(engine.program(lambda: 1 / 0))
    described, error = failure(overruled(failed, TaskTimeout("too long")))
    assert (described.type_name, described.text) == ("TaskTimeout", "too long")
    assert "in <lambda>" in described.traceback  # where it was
    assert isinstance(error, TaskTimeout)
    assert overruled((DONE, b"x"), TaskAborted("cancelled")) == (DONE, b"x")
    assert failure(overruled((DONE, b"x"), TaskTimeout("too long")))[0].type_name == "TaskTimeout"
    assert overruled((REJECTED, "x"), TaskTimeout("too long")) == (REJECTED, "x")


# --- conditions -----------------------------------------------------------------------------------------------


def test_a_condition_sees_a_copy_of_the_properties(engine: Engine) -> None:
    engine.namespace.properties.update({"gpu": [1]})
    spoil = typed_at_a_prompt("def spoil(p):\n    p['gpu'].append(2)\n    return p.pop('gpu') == [1, 2]")["spoil"]
    program = engine.program(lambda: "ran", depend=spoil)
    assert [value(engine.run(program)) for _ in range(2)] == ["ran", "ran"]


def test_a_condition_that_is_false_or_raises(engine: Engine) -> None:
    ran: list[int] = []
    assert engine.run(engine.program(ran.append, depend=lambda p: p.get("gpu")), 1)[0] == REFUSED
    assert engine.run(engine.program(ran.append, depend=lambda p: p["gpu"]), 1)[0] == REFUSED
    engine.namespace.merge({"a": 1})
    refused = engine.string("b = 1", depend=engine.define(lambda p: False), clear_before=True)
    assert refused[0] == REFUSED
    assert "a" in engine.namespace.names  # it did not begin


# --- string tasks, clearing -----------------------------------------------------------------------------------


def test_a_string_task_pushes_runs_and_pulls(engine: Engine) -> None:
    assert value(engine.string("b = a + 1", ["a", "b"], {"a": 1})) == {"a": 1, "b": 2}
    assert value(engine.string("c = b")) == {}
    assert engine.namespace.names["c"] == 2
    assert failure(engine.string("x = 1", ["y"]))[0].text == "name 'y' is not defined"


def test_a_failed_string_task_shows_its_source(engine: Engine) -> None:
    described, _ = failure(engine.string("x = 0\ny = 1 / x", ["y"]))
    assert described.type_name == "ZeroDivisionError"
    assert '  File "<ipmpi task>", line 2, in <module>\n    y = 1 / x\n' in described.traceback
    assert failure(engine.string("y = = 1"))[0].type_name == "SyntaxError"


def test_clear_before_and_after(engine: Engine) -> None:
    engine.namespace.merge({"b": 1})
    assert failure(engine.string("a = b", ["a"], clear_before=True))[0].type_name == "NameError"
    assert value(engine.string("c = 1", ["c"], clear_after=True)) == {"c": 1}
    assert "c" not in engine.namespace.names
    failure(engine.string("c = 1; 1/0", clear_after=True))
    assert "c" not in engine.namespace.names
    assert engine.namespace.names["mpi"] == "the mpi"


def test_functions_are_there_again_after_each_clearing(engine: Engine) -> None:
    names = typed_at_a_prompt("def helper(): return k\ndef f(): return helper()", k=5)
    plain = engine.program(names["f"])
    for before, after in ((True, False), (False, True), (True, True)):
        clearing = engine.program(names["f"], clear_before=before, clear_after=after)
        engine.namespace.merge({"mine": 1})
        assert [value(engine.run(clearing)) for _ in range(2)] == [5, 5]
        assert "mine" not in engine.namespace.names
        assert value(engine.run(plain)) == 5


# --- several ranks --------------------------------------------------------------------------------------------


def test_a_part_of_a_task_on_several_ranks(engine: Engine) -> None:
    program = engine.program(lambda comm, x, y=0: (comm, x, y), together=True)
    payload = pickle.dumps(((1,), {"y": 2}))
    assert value(engine.runner.run_together(program, "comm", payload, wanted=True)) == ("comm", 1, 2)
    lock = engine.program(lambda comm: threading.Lock(), together=True)
    nothing = pickle.dumps(((), {}))
    assert engine.runner.run_together(lock, "comm", nothing, wanted=False) == (DONE, b"")
    described, _ = failure(engine.runner.run_together(lock, "comm", nothing, wanted=True))
    assert described.type_name == "SerializationError"
    described, _ = failure(
        engine.runner.run_together(engine.program(lambda c: reject(), together=True), 0, nothing, wanted=True)
    )
    assert described.type_name == "TaskRejectError"
