"""The client's surface, on real namespaces in this process."""

from __future__ import annotations

import concurrent.futures
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ipmpi import client, errors, serialize
from ipmpi.client import CompositeError, EngineView, MultiEngineClient, PendingResult, ResultList
from ipmpi.protocol import messages, operations

if TYPE_CHECKING:
    from conftest import FakeSession


def test_execute_returns_what_each_engine_printed(mec: MultiEngineClient) -> None:
    result = mec.execute('print("Hello World")', targets=[0, 2])
    source = 'print("Hello World")'
    assert result == [
        {"input": {"translated": source, "raw": source}, "number": 1, "id": 0, "stdout": "Hello World\n"},
        {"input": {"translated": source, "raw": source}, "number": 1, "id": 2, "stdout": "Hello World\n"},
    ]
    assert repr(result) == (
        "<Results List>\n"
        '[0] In [1]: print("Hello World")\n[0] Out[1]: Hello World\n\n'
        '[2] In [1]: print("Hello World")\n[2] Out[1]: Hello World\n\n'
    )


def test_execute_tells_displayed_values_and_stderr(mec: MultiEngineClient) -> None:
    result = mec.execute("import sys\nn = sys.stderr.write('oh')\n2 + 3", targets=1)
    assert result[0]["stderr"] == "oh"
    assert result[0]["display"] == {"pprint": "5", "repr": "5"}


def test_execute_numbers_its_commands_and_reset_starts_again(mec: MultiEngineClient) -> None:
    assert [mec.execute("a = 1", 0)[0]["number"] for _ in range(2)] == [1, 2]
    assert mec.reset() == [None] * 4
    assert mec.execute("b = 1")[0]["number"] == 1


def test_execute_takes_text_only(mec: MultiEngineClient) -> None:
    with pytest.raises(TypeError, match=r"execute takes source text, not function; for a function use apply"):
        mec.execute(lambda: None)  # type: ignore[arg-type]


def test_failures_are_one_composite_error_even_for_one_engine(
    mec: MultiEngineClient, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CompositeError) as caught:
        mec.execute("1/0", targets=2)
    error = caught.value
    assert error.message == "one or more exceptions from call to method: execute"
    assert str(error) == f"{error.message}\n[2:execute]: ZeroDivisionError: division by zero"
    info = getattr(error.elist[0][1], "_ipython_engine_info", None)
    assert info == {"engineid": 2, "method": "execute", "args": ("1/0",)}
    with pytest.raises(ZeroDivisionError):
        error.raise_exception()
    error.print_tracebacks()
    assert capsys.readouterr().out.startswith("[2:execute]: \nTraceback")


def test_an_engine_that_is_gone_and_one_that_failed_are_both_told(
    mec: MultiEngineClient, session: FakeSession
) -> None:
    session.engines[1] = None
    with pytest.raises(CompositeError) as caught:
        mec.execute("if id == 3: raise KeyError('a')")
    assert str(caught.value).endswith(
        "method: execute\n[1:execute]: EngineLost: engine 1 has died\n[3:execute]: KeyError: 'a'"
    )


@pytest.mark.parametrize("method", ["execute", "pull", "get_properties", "has_properties", "del_properties"])
def test_an_engine_that_does_not_exist_is_refused_directly(method: str, mec: MultiEngineClient) -> None:
    with pytest.raises(errors.InvalidEngineID, match=r"^Engine with id 77 is not registered$"):
        getattr(mec, method)("a", targets=77)


def test_without_engines_nothing_runs(mec: MultiEngineClient, session: FakeSession) -> None:
    session.engines.clear()
    for call in (
        lambda: mec.execute("a = 1"),
        lambda: mec.push({"a": 1}),
        lambda: mec.scatter("a", range(3)),
        lambda: mec.map(str, range(3)),
        lambda: mec.gather("a"),
    ):
        with pytest.raises(errors.NoEnginesRegistered, match=r"There are no engines registered"):
            call()
    assert mec.get_ids() == []


def test_wrong_arguments_are_told_at_once_without_sending(mec: MultiEngineClient, session: FakeSession) -> None:
    with pytest.raises(ValueError, match=r"^block must be True or False: "):
        mec.execute("a = 1", block=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^targets must be a str, list, tuple or int: "):
        mec.execute("a = 1", targets=1.5)  # type: ignore[arg-type]
    mec.targets = "0"
    with pytest.raises(
        errors.InvalidEngineID, match=r"^targets argument is not an int, list of ints or 'all': '0'$"
    ):
        mec.execute("a = 1")
    with pytest.raises(TypeError, match=r"expected a dict"):
        mec.push([1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"3 is not a str"):
        mec.pull(["a", 3])  # type: ignore[list-item]
    assert session.sent == []


def test_pull_has_the_original_shapes(mec: MultiEngineClient) -> None:
    assert mec.push({"a": 1.03, "b": 3453}) == [None] * 4
    assert mec.pull("a") == [1.03] * 4
    assert mec.pull("b", targets=0) == [3453]
    assert mec.pull(("a", "b")) == [[1.03, 3453]] * 4
    assert mec.pull(("a",)) == [1.03] * 4
    assert mec.pull(["a", "b"], targets=[3]) == [[1.03, 3453]]


def test_zip_pull_has_the_original_shapes(mec: MultiEngineClient) -> None:
    mec.push({"a": 1, "b": 2})
    assert mec.zip_pull(("a", "b")) == [(1, 1, 1, 1), (2, 2, 2, 2)]
    assert mec.zip_pull(("a", "b"), targets=0) == [1, 2]
    assert mec.zip_pull("a") == [1] * 4
    assert mec.zip_pull(("a",), targets=[0, 1]) == [1, 1]


def test_none_is_a_value_as_any_other(mec: MultiEngineClient) -> None:
    mec["a"] = None
    assert mec["a"] == [None] * 4
    mec.push({"b": [None]})
    assert mec.pull(("a", "b"), 0) == [[None, [None]]]


def test_a_missing_name_is_a_name_error(mec: MultiEngineClient) -> None:
    with pytest.raises(CompositeError) as caught:
        mec.pull("missing")
    assert len(caught.value.elist) == 4
    with pytest.raises(NameError):
        caught.value.raise_exception(3)


def test_an_object_that_cannot_be_sent_is_named_at_once(mec: MultiEngineClient, session: FakeSession) -> None:
    with pytest.raises(errors.SerializationError, match=r"'lock'"):
        mec.push({"lock": threading.Lock()}, block=False)
    assert session.sent == []


def test_lambdas_and_closures_can_be_pushed_and_applied(mec: MultiEngineClient) -> None:
    factor = 3
    mec.push({"f": lambda x: x * factor})
    assert mec.execute("print(f(2))", 0)[0]["stdout"] == "6\n"
    assert mec.apply(lambda x, y=1: x + y, 1, y=factor) == [4] * 4
    assert mec.apply(lambda: None) == [None] * 4
    with pytest.raises(TypeError, match=r"something to call"):
        mec.apply("f")  # type: ignore[arg-type]


def test_pushed_functions_see_the_engines_names(mec: MultiEngineClient) -> None:
    def g(x: int, more: int = 5) -> int:
        return x + more + offset  # type: ignore[name-defined,no-any-return]  # noqa: F821

    mec["offset"] = 100
    assert mec.push_function({"g": g}) == [None] * 4
    assert mec.execute("print(g(1))", 0)[0]["stdout"] == "106\n"
    assert mec.pull_function("g", 0)[0].__name__ == "g"
    with pytest.raises(TypeError, match=r"^function object expected$"):
        mec.push_function({"g": 3})


def test_serialized_objects_travel_as_they_are(mec: MultiEngineClient) -> None:
    array = np.arange(6.0).reshape(2, 3)
    mec.push_serialized({"a": serialize.serialize(array, "a"), "b": serialize.serialize([1, 2], "b")})
    assert np.array_equal(mec.pull("a", 0)[0], array)
    a, b = mec.pull_serialized(("a", "b"), 0)[0]
    assert a.getTypeDescriptor() == "ndarray"
    assert a.getMetadata()["shape"] == (2, 3)
    assert serialize.unserialize(b) == [1, 2]
    assert serialize.unserialize(mec.pull_serialized("b", 0)[0]) == [1, 2]
    with pytest.raises(TypeError, match=r"expected a Serialized object"):
        mec.push_serialized({"a": 1})


def test_get_result_asks_the_targets_only(mec: MultiEngineClient) -> None:
    mec.execute("print(id)")
    mec.execute("a = 1", targets=0)
    assert [entry["id"] for entry in mec.get_result(1, targets=[1, 2])] == [1, 2]
    last = mec.get_result()
    assert isinstance(last, ResultList)
    assert [(entry["id"], entry["number"]) for entry in last] == [(0, 2), (1, 1), (2, 1), (3, 1)]
    assert last[0]["input"]["raw"] == "a = 1"
    with pytest.raises(CompositeError) as caught:
        mec.get_result(99)
    with pytest.raises(IndexError, match=r"99"):
        caught.value.raise_exception()


def test_keys_are_the_users_names(mec: MultiEngineClient) -> None:
    mec.push({"mine": 1}, targets=1)
    assert "mine" in mec.keys(1)[0]
    assert "mine" not in mec.keys(0)[0]
    assert "__builtins__" not in mec.keys(0)[0]


def test_properties_are_kept_per_engine_as_copies(mec: MultiEngineClient) -> None:
    value = [1]
    assert mec.set_properties({"a": value, "b": 2}, targets=[0, 1]) == [None, None]
    value.append(2)
    assert mec.get_properties(targets=[0, 2]) == [{"a": [1], "b": 2}, {}]
    assert mec.get_properties("a", targets=0) == [{"a": [1]}]
    assert mec.has_properties(("a", "c"), targets=[0, 2]) == [[True, False], [False, False]]
    assert mec.del_properties(["a"], targets=0) == [None]
    assert mec.get_properties(targets=0) == [{"b": 2}]
    assert mec.clear_properties(targets=0) == [None]
    assert mec.get_properties(targets=0) == [{}]


def test_a_property_that_cannot_be_sent_is_invalid(mec: MultiEngineClient) -> None:
    with pytest.raises(errors.InvalidProperty, match=r"'a'"):
        mec.set_properties({"a": (i for i in range(0))})


# --- Sequences -------------------------------------------------------------------------------------------------


def test_scatter_and_gather_are_opposites(mec: MultiEngineClient) -> None:
    assert mec.scatter("a", range(16)) == [None] * 4
    assert mec["a"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert mec.gather("a") == list(range(16))
    array = np.arange(10.0)
    mec.scatter("x", array)
    assert np.array_equal(mec.gather("x"), array)
    mec.scatter("r", list(range(10)), dist="r")
    assert mec.pull("r", 0) == [[0, 4, 8]]
    assert mec.gather("r", dist="r") == list(range(10))


def test_scatter_gives_every_engine_something(mec: MultiEngineClient) -> None:
    mec.scatter("a", [1, 2])
    assert mec["a"] == [[1], [2], [], []]
    mec.scatter("a", [1, 2], flatten=True)
    assert mec["a"] == [1, 2, [], []]
    mec.scatter("a", np.arange(3))
    assert mec.gather("a").tolist() == [0, 1, 2]


def test_scatter_and_gather_honour_targets(mec: MultiEngineClient) -> None:
    mec.scatter("a", [1, 2, 3], targets=[2, 0])
    assert mec.pull("a", targets=[2, 0]) == [[1, 2], [3]]
    assert mec.gather("a", targets=[2, 0]) == [1, 2, 3]
    for call in (lambda: mec.scatter("a", [1], targets=88), lambda: mec.gather("a", targets=[0, 88])):
        with pytest.raises(errors.InvalidEngineID, match=r"^engine with id 88 does not exist$"):
            call()


def test_gather_of_other_things_is_the_list_of_parts(mec: MultiEngineClient) -> None:
    mec.execute("s = 'engine%i' % id")
    assert mec.gather("s") == ["engine0", "engine1", "engine2", "engine3"]
    with pytest.raises(CompositeError) as info:
        mec.gather("missing")
    assert "NameError" in str(info.value)


def test_map_gives_what_the_builtin_gives(mec: MultiEngineClient) -> None:
    assert mec.map(lambda x: x**2, range(10)) == [x**2 for x in range(10)]
    assert mec.map(lambda x, y: x * y, [1, 2, 3], (4, 5, 6)) == [4, 10, 18]
    assert mec.map(str, [1, 2, 3]) == ["1", "2", "3"]
    assert mec.map(len, iter(["a", "bb"])) == [1, 2]
    assert mec.map(abs, []) == []


def test_map_takes_the_name_of_a_remote_function(mec: MultiEngineClient) -> None:
    mec.execute("def double(x): return 2 * x")
    assert mec.map("double", range(5)) == [0, 2, 4, 6, 8]
    assert mec.map("lambda x: -x", range(3)) == [0, -1, -2]


def test_map_uses_no_more_engines_than_there_are_items(mec: MultiEngineClient, session: FakeSession) -> None:
    assert mec.map(lambda x: x + 1, [1, 2]) == [2, 3]
    assert [submission.targets for submission in session.sent] == [[0], [1]]


def test_map_honours_targets_and_keeps_the_order_of_the_items(
    mec: MultiEngineClient, session: FakeSession
) -> None:
    mec.targets = [1, 3]
    assert mec.map(lambda x: -x, range(5)) == [0, -1, -2, -3, -4]
    assert [submission.targets for submission in session.sent] == [[1], [3]]
    assert mec.mapper(dist="r").map(lambda x: -x, range(5)) == [0, -1, -2, -3, -4]


def test_map_refuses_what_it_cannot_map(mec: MultiEngineClient) -> None:
    with pytest.raises(TypeError, match=r"func must be a function"):
        mec.map(3, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^sequences must be a list or tuple$"):
        mec.raw_map(str, {1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^sequences must be a list or tuple$"):
        mec.map(str)
    with pytest.raises(ValueError, match=r"^all sequences must have equal length$"):
        mec.raw_map(max, [[1, 2], [3]])
    with pytest.raises(CompositeError) as info:
        mec.map(lambda x: 1 // x, [0])
    assert re.search(r"method: map\n.*ZeroDivisionError", str(info.value))


def test_a_mapper_has_the_clients_settings(mec: MultiEngineClient) -> None:
    mapper = mec.mapper()
    assert (mapper.multiengine, mapper.dist, mapper.targets, mapper.block) == (mec, "b", "all", True)
    mec.block = False
    mapper = mec.mapper(dist="r", targets=0)
    assert (mapper.dist, mapper.targets, mapper.block) == ("r", 0, False)
    assert mapper.map(str, [1]).r == ["1"]


def test_parallel_makes_a_function_that_maps(mec: MultiEngineClient) -> None:
    @mec.parallel()
    def square(x: int) -> int:
        """Square."""
        return x * x

    assert square(range(4)) == [0, 1, 4, 9]
    assert square.__doc__ == "Square."

    @mec.parallel(targets=[0], block=False)
    def slow(x: int) -> int:
        return x

    assert slow([1, 2]).r == [1, 2]


def test_run_executes_a_local_file(mec: MultiEngineClient, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text('"""A docstring."""\na = 10\nb = 30\n')
    result = mec.run(str(script))
    assert isinstance(result, list)
    assert f"[3] In [1]: run({str(script)!r})" in repr(result)
    assert result[0]["input"]["raw"] == script.read_text()
    assert mec.pull(("a", "b"), 0) == [[10, 30]]


def test_run_gives_a_script_what_python_gives_it(
    mec: MultiEngineClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ipengine", "--furl-file", "somewhere"])
    script = tmp_path / "args.py"
    script.write_text(
        "import argparse, os, sys\n"
        "parser = argparse.ArgumentParser(); parser.add_argument('--steps', type=int, default=3)\n"
        "if __name__ == '__main__':\n"
        "    print(parser.parse_args().steps, os.path.abspath(__file__), sys.argv[0])\n"
    )
    for file in (script, str(script)):
        assert mec.run(file, 0)[0]["stdout"] == f"3 {script} {script}\n"
    assert mec.run(script, 0, args=["--steps", "5"])[0]["stdout"].startswith("5 ")
    with pytest.raises(CompositeError) as ended:
        mec.run(script, 0, args=["--steps", "none"])
    assert "SystemExit" in str(ended.value)
    assert sys.argv == ["ipengine", "--furl-file", "somewhere"]
    with pytest.raises(CompositeError) as missing:
        mec.execute("__file__", 0)
    assert "NameError" in str(missing.value)
    mec.push({"__file__": "mine"}, 0)
    mec.run(script, 0)
    assert mec.pull("__file__", 0) == ["mine"]


@pytest.mark.parametrize("wrong", [5, None, b"file.py", ["file.py"]])
def test_run_takes_paths_only(mec: MultiEngineClient, session: FakeSession, wrong: Any) -> None:
    with pytest.raises(TypeError):
        mec.run(wrong)
    for args in ("--steps 5", [5]):
        with pytest.raises(TypeError, match="args must be a sequence of strs"):
            mec.run(__file__, args=args)  # type: ignore[arg-type]
    assert session.sent == []


def test_run_finds_errors_here_before_anything_is_sent(
    mec: MultiEngineClient, session: FakeSession, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("a = = 1")
    with pytest.raises(SyntaxError):
        mec.run(str(script))
    with pytest.raises(OSError, match=r"missing.py"):
        mec.run(str(tmp_path / "missing.py"))
    assert session.sent == []


# --- Not waiting ---------------------------------------------------------------------------------------------


def test_without_block_calls_return_before_the_engines_are_done(
    mec: MultiEngineClient, session: FakeSession
) -> None:
    mec.block = False
    session.held = True
    pending = [
        mec.execute("a = 1"),
        mec.scatter("s", range(8)),
        mec.gather("s"),
        mec.map(lambda x: x + 1, range(5)),
        mec.apply(lambda: 7),
        mec.get_result(),
    ]
    assert all(isinstance(result, PendingResult) and result.client is mec for result in pending)
    assert not any(result.done() for result in pending)
    assert pending[0].get_result(default="later", block=False) == "later"
    session.release()
    mec.barrier(pending)
    assert isinstance(pending[0].r, ResultList)
    assert [result.r for result in pending[1:5]] == [[None] * 4, list(range(8)), [1, 2, 3, 4, 5], [7] * 4]
    assert pending[5].r[0]["input"]["raw"] == "a = 1"


def test_failures_of_a_pending_result_are_raised_by_it(mec: MultiEngineClient) -> None:
    pending = mec.execute("1/0", block=False)
    for _ in range(2):
        with pytest.raises(CompositeError) as info:
            _ = pending.r
        assert "ZeroDivisionError" in str(info.value)
    mec.barrier([pending])


def test_a_push_that_does_not_wait_is_not_changed_afterwards(mec: MultiEngineClient, session: FakeSession) -> None:
    session.held = True
    array = np.zeros(10_000)
    pending = [mec.push({"a": array}, block=False), mec.scatter("b", array, block=False)]
    array[:] = 1
    session.release()
    mec.barrier(pending)
    assert mec.pull("a", 0)[0].sum() == 0
    assert mec.gather("b").sum() == 0


def test_a_push_that_waits_sends_the_array_itself(mec: MultiEngineClient, session: FakeSession) -> None:
    array = np.zeros(10_000)
    mec.push({"a": array})
    assert np.shares_memory(np.frombuffer(session.sent[0].body[1], dtype=float), array)


def test_pulled_arrays_are_writable_and_independent(mec: MultiEngineClient, session: FakeSession) -> None:
    session.fold = True
    mec.push({"a": np.zeros(10_000)})
    first, second = mec.pull("a", targets=[0, 1])
    first[:] = 1
    assert second.sum() == 0


def test_flush_forgets_all_pending_results(mec: MultiEngineClient, session: FakeSession) -> None:
    session.held = True
    pending = [mec.execute("a = 1", block=False) for _ in range(3)]
    pending.append(mec[0].execute("b = 1", block=False))
    mec.flush()
    session.release()
    for result in pending:
        with pytest.raises(errors.InvalidDeferredID):
            _ = result.r
    mec.clear_pending_results()


def test_a_pending_result_can_be_had_by_its_id(mec: MultiEngineClient, session: FakeSession) -> None:
    session.held = True
    pending = mec.apply_later = mec.execute("a = 1", block=False)  # type: ignore[attr-defined]
    with pytest.raises(errors.ResultNotCompleted):
        mec.get_pending_deferred(pending.result_id, False)
    session.release()
    assert isinstance(mec.get_pending_deferred(pending.result_id, True), ResultList)
    with pytest.raises(errors.InvalidDeferredID):
        mec.get_pending_deferred(pending.result_id, True)


def test_a_barrier_takes_pending_results_only(mec: MultiEngineClient) -> None:
    with pytest.raises(errors.NotAPendingResult):
        mec.barrier([None])  # type: ignore[list-item]


@pytest.mark.skipif(sys.platform == "win32", reason="signals to threads")
def test_ctrl_c_ends_the_wait_and_not_the_work(
    mec: MultiEngineClient, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.held = True
    me = threading.get_ident()
    send = session.command

    def send_and_interrupt(submission: Any) -> Any:
        future = send(submission)
        threading.Timer(0, lambda: signal.pthread_kill(me, signal.SIGINT)).start()
        return future

    monkeypatch.setattr(session, "command", send_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        mec.execute("a = 1")
    monkeypatch.undo()
    session.release()
    assert mec["a"] == [1] * 4


def test_a_call_of_several_commands_fails_if_one_is_refused(mec: MultiEngineClient, session: FakeSession) -> None:
    session.held = True
    pending = mec.scatter("a", range(8), block=False)
    del session.engines[2]
    session.release()
    with pytest.raises(errors.InvalidEngineID, match=r"2 is not registered"):
        _ = pending.r


# --- The controller ------------------------------------------------------------------------------------------


def test_queue_status_shows_what_runs_and_what_waits(mec: MultiEngineClient, session: FakeSession) -> None:
    session.answers[messages.QueueStatus] = [
        [[0], "execute('a')", ["pull('b')"], [], 12.345], [[1], None, [], [], None],
    ]  # fmt: skip
    assert mec.queue_status(targets=[0, 1]) == [
        (0, {"queue": ["pull('b')"], "pending": "execute('a')", "seconds": 12.3}),
        (1, {"queue": [], "pending": "None"}),
    ]
    assert session.requests[-1].targets == [0, 1]


def test_commands_are_labelled_for_queue_status(mec: MultiEngineClient, session: FakeSession) -> None:
    mec.execute("a = 1")
    mec.push({"a": 1, "b": 2})
    mec.pull("a")
    mec.execute("x = 1;" * 100)
    mec.apply(len, "abc")
    labels = [submission.label for submission in session.sent]
    assert labels[:3] == ["execute('a = 1')", "push(['a', 'b'])", "pull('a')"]
    assert len(labels[3]) == 120
    assert labels[3].endswith("...)")
    assert labels[4] == "apply(len)"


def test_clear_queue_and_kill_answer_none_per_engine(mec: MultiEngineClient, session: FakeSession) -> None:
    session.answers[messages.Kill] = [0, 1, 2, 3]
    assert mec.clear_queue() == [None] * 4
    assert mec.clear_queue(targets=2, block=False).r == [None]
    assert mec.kill(controller=True, targets=[0]) == [None] * 4
    assert (session.requests[-1].targets, session.requests[-1].controller) == (None, True)


def test_interrupt_tells_which_engines_were_busy(mec: MultiEngineClient, session: FakeSession) -> None:
    session.answers[messages.Interrupt] = [[1], []]
    mec.block = False
    assert mec.interrupt([0, 1]) == [1]
    assert session.requests[-1].targets == [0, 1]


def test_interrupt_says_which_engines_did_not_react(
    mec: MultiEngineClient, session: FakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session.answers[messages.Interrupt] = [
        [1],
        [[[0, 3], "execute('comm.barrier()')"]],
    ]
    assert mec.interrupt() == [1]
    told = capsys.readouterr().err
    assert "engines 0, 3 did not react: execute('comm.barrier()') still runs" in told
    assert "A call into C or MPI is interrupted when it returns" in told, "nothing is known of them"
    assert "mec.restart() gives the whole set back" in told


def test_cluster_info_is_the_controllers_account(mec: MultiEngineClient, session: FakeSession) -> None:
    session.answers[messages.ClusterInfo] = {"engines": []}
    assert mec.cluster_info() == {"engines": []}


def test_cluster_info_puts_together_what_comes_in_several_messages(
    mec: MultiEngineClient, session: FakeSession
) -> None:
    asked: list[messages.ClusterInfo] = []

    def request(make: Callable[[int], messages.ClusterInfo]) -> concurrent.futures.Future[Any]:
        asked.append(make(1))
        after = asked[-1].after
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result({"engines": [{"id": after + 1}, {"id": after + 2}], "up": 3.0, "more": after < 3})
        return future

    session.request = request  # type: ignore[method-assign, assignment]
    assert mec.cluster_info() == {"engines": [{"id": number} for number in range(6)], "up": 3.0}
    assert [message.after for message in asked] == [-1, 1, 3]


def engines_with(*lefts: float | None) -> dict[str, Any]:
    return {"engines": [{"id": number, "time_left": left} for number, left in enumerate(lefts)]}


def test_time_left_is_that_of_the_first_job_to_end(mec: MultiEngineClient, session: FakeSession) -> None:
    session.answers[messages.ClusterInfo] = engines_with(None, 90.5, 30.5, None)
    assert mec.time_left() == 30.5
    assert mec.time_left(1) == 90.5
    assert mec[[0, 1]].time_left() == 90.5
    assert mec.time_left([0, 3]) is None


def test_time_left_of_engines_that_are_not_there(mec: MultiEngineClient, session: FakeSession) -> None:
    session.answers[messages.ClusterInfo] = engines_with(5.0)
    with pytest.raises(errors.InvalidEngineID, match="engine with id 7 does not exist"):
        mec.time_left([0, 7])
    session.answers[messages.ClusterInfo] = engines_with()
    with pytest.raises(errors.NoEnginesRegistered, match="There are no engines registered"):
        mec.time_left()


def test_before_walltime_gives_engines_a_function(mec: MultiEngineClient, session: FakeSession) -> None:
    assert mec.before_walltime(lambda: None, targets=[1, 2]) == [None, None]
    first = session.sent[-1]
    assert first.targets == [1, 2]
    assert first.label.startswith("before_walltime(")
    mec.before_walltime(lambda: None, seconds=30)
    second = session.sent[-1]
    assert isinstance(first.operation, operations.BeforeWalltime)
    assert isinstance(second.operation, operations.BeforeWalltime)
    assert (first.operation.seconds, second.operation.seconds) == (120.0, 30.0)
    assert first.operation.key != second.operation.key


def test_before_walltime_tells_wrong_arguments(mec: MultiEngineClient, session: FakeSession) -> None:
    with pytest.raises(TypeError, match=r"before_walltime takes something to call, not 'save\(\)'"):
        mec.before_walltime("save()")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seconds must be a number, not '60'"):
        mec.before_walltime(print, seconds="60")  # type: ignore[arg-type]
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="seconds must be more than 0"):
            mec.before_walltime(print, seconds=wrong)
    assert session.sent == []


def test_benchmark_reports_units(mec: MultiEngineClient) -> None:
    report = mec.benchmark(push_size=10)
    assert {name: unit for name, (_, unit) in report.items()} == {
        "single_engine_latency": "msec",
        "all_engine_latency": "msec",
        "all_engine_push": "MB/sec",
        "single_engine_push": "MB/sec",
    }
    assert all(value > 0 for value, _ in report.values())
    assert not any(name.startswith("_ipmpi") for name in mec.keys(0)[0])


# --- Which engines -------------------------------------------------------------------------------------------


def test_a_client_counts_and_lists_its_engines(mec: MultiEngineClient, session: FakeSession) -> None:
    assert mec.get_ids() == [0, 1, 2, 3]
    assert len(mec) == 4
    mec.targets = [0]
    assert len(mec) == 4
    session.engines.clear()
    assert mec


def test_the_client_is_a_dict_of_names(mec: MultiEngineClient) -> None:
    mec["a"] = 5
    assert mec["a"] == [5] * 4
    with pytest.raises(TypeError, match=r"^__setitem__ only takes strs$"):
        mec[0] = 5  # type: ignore[index]
    with pytest.raises(TypeError, match=r"^__getitem__ only takes strs"):
        mec[1.5]


def test_views_have_the_surface_for_their_engines(mec: MultiEngineClient) -> None:
    mec.execute("e = id")
    assert mec[2]["e"] == 2
    assert mec[-1]["e"] == 3
    assert mec[[2]]["e"] == [2]
    assert mec[2].with_options(block=False)["e"].r == 2
    assert mec[2].with_options(targets=[2])["e"] == [2]
    assert mec.with_options(targets=2)["e"] == [2]
    assert mec[1:3]["e"] == [1, 2]
    assert mec[[3, 0]]["e"] == [3, 0]
    view = mec[1:3]
    assert isinstance(view, EngineView)
    assert view.pull("e", targets="all") == [1, 2]
    assert view.pull("e", targets=0) == [0]
    assert view.apply(lambda: 1) == [1, 1]
    view.scatter("s", [1, 2, 3])
    assert view.gather("s") == [1, 2, 3]
    assert view.map(lambda x: x, range(3)) == [0, 1, 2]
    assert mec.map(lambda x: x, range(3), targets=[3], block=False).r == [0, 1, 2]
    assert (len(view), view.get_ids()) == (2, [1, 2])


def test_a_view_keeps_block_and_leaves_the_client_alone(mec: MultiEngineClient) -> None:
    mec.block = False
    view = mec[0]
    assert view.block is False
    view.block = True
    assert mec.block is False
    waits = mec.with_options(block=True)
    assert waits.execute("a = 1")[3]["id"] == 3
    some = mec.with_options(targets=[0, 1], block=True)
    assert some.apply(lambda: 1) == [1, 1]
    assert mec.targets == "all"


def test_going_through_a_client_gives_one_view_per_engine(mec: MultiEngineClient) -> None:
    mec.execute("e = id")
    assert [view["e"] for view in mec] == [0, 1, 2, 3]
    assert [view["e"] for view in mec[1:3]] == [1, 2]


def test_no_engines_chosen_is_an_empty_result(mec: MultiEngineClient, session: FakeSession) -> None:
    assert mec.execute("a = 1", targets=[]) == []
    assert mec[9:]["a"] == []
    assert session.sent == []


# --- The connection ------------------------------------------------------------------------------------------


def test_the_connection_ends_with_the_with_statement(session: FakeSession) -> None:
    with MultiEngineClient(session=session) as mec:
        assert isinstance(mec, client.MultiEngineClient)
    assert session.closed


def test_a_furl_for_tasks_is_told_apart(session: FakeSession) -> None:
    session.role = "tc"
    with pytest.raises(errors.ClientError, match=r"use client.TaskClient"):
        MultiEngineClient(session=session)
    assert session.closed
    session.role = "engine"
    with pytest.raises(errors.ClientError, match=r"'engine'.*ipcontroller-mec.furl"):
        MultiEngineClient(session=session)


def test_names_of_the_original_are_exported() -> None:
    for name in ("MultiEngineClient", "TaskClient", "MapTask", "StringTask", "CompositeError"):
        assert hasattr(client, name)


def test_importing_the_client_needs_no_ipython_and_no_numpy() -> None:
    heavy = ("IPython", "numpy", "mpi4py", "asyncio")
    code = f"import sys, ipmpi.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
