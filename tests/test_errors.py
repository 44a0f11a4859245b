from __future__ import annotations

import ast
import builtins
import concurrent.futures
import contextlib
import copy
import errno
import importlib.util
import inspect
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from ipmpi import errors
from ipmpi.errors import CompositeError, KernelError, RemoteExit

PACKAGE = Path(errors.__file__).parent
CLASSES = {
    name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, KernelError)
}
BASES = {"KernelError", "ProtocolError"}
"""Classes that are there to be caught, and not raised themselves."""

CAUGHT_BY: dict[str, tuple[type[BaseException], ...]] = {
    "ConnectionError": (builtins.ConnectionError, OSError),
    "ResultNotCompleted": (TimeoutError, concurrent.futures.TimeoutError),
    "TaskTimeout": (TimeoutError, concurrent.futures.TimeoutError),
    "TaskAborted": (concurrent.futures.CancelledError,),
    "QueueCleared": (concurrent.futures.CancelledError,),
    "FurlError": (ValueError,),
    "NotAPendingResult": (TypeError,),
    "AbortedPendingDeferredError": (errors.InvalidDeferredID,),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in CAUGHT_BY for kind in CAUGHT_BY[name]])
def test_the_standard_librarys_except_catches(name: str, kind: type[BaseException]) -> None:
    with pytest.raises(kind, match=r"^why$"):
        raise CLASSES[name]("why")
    assert str(pickle.loads(pickle.dumps(CLASSES[name]("why")))) == "why"


def test_names_of_the_standard_library_mean_the_same_here() -> None:
    pythons = {**vars(concurrent.futures), **vars(builtins)}
    for name, kind in CLASSES.items():
        if name in pythons:
            assert issubclass(kind, pythons[name])


def test_every_class_is_raised_somewhere() -> None:
    """By name in a call, or in a string: what the controller says travels by name."""
    used: set[object] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                used |= {getattr(node.func, "attr", None), getattr(node.func, "id", None)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
    assert CLASSES.keys() - BASES <= used


# --- one from several engines ------------------------------------------------------------------------------------


def of_engine(error: BaseException, engine: int) -> tuple[type[BaseException], BaseException, None]:
    error._ipython_engine_info = {"engineid": engine, "method": "execute", "args": ()}  # type: ignore[attr-defined]
    return type(error), error, None


def composite() -> CompositeError:
    failures = [ValueError("a"), SystemExit(3), KeyError("k")]
    return CompositeError("the call failed", [of_engine(error, number) for number, error in enumerate(failures)])


def test_its_text_and_attributes_are_the_originals() -> None:
    error = composite()
    assert error.message == "the call failed"
    assert [kind for kind, _, _ in error.elist] == [ValueError, SystemExit, KeyError]
    assert str(error) == (
        "the call failed\n[0:execute]: ValueError: a\n[1:execute]: SystemExit: 3\n[2:execute]: KeyError: 'k'"
    )
    assert repr(error).startswith(
        "CompositeError('the call failed', [(<class 'ValueError'>, ValueError('a'), None)"
    )
    with pytest.raises(SystemExit):
        error.raise_exception(1)


def test_an_exception_without_a_text_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError("no words")

    error = CompositeError("the call failed", [of_engine(Mute(), 0), of_engine(ValueError("seen"), 1)])
    assert "[0:execute]: Mute: <str() of this Mute raised LookupError>\n[1:execute]: ValueError: seen" in str(
        error
    )
    error.print_tracebacks()
    assert "ValueError: seen" in capsys.readouterr().out
    assert "ValueError: seen" in str(pickle.loads(pickle.dumps(CompositeError("m", error.elist[1:]))))


def test_those_inside_of_another_are_flattened() -> None:
    error = CompositeError("outer", [of_engine(composite(), 0), of_engine(ValueError("b"), 4)])
    assert [str(value) for _, value, _ in error.elist] == ["a", "3", "'k'", "b"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has no exception groups")
class TestAsAGroup:
    def test_its_members_may_all_be_raised(self) -> None:
        error = composite()
        assert isinstance(error, builtins.ExceptionGroup)
        assert isinstance(error, KernelError)
        kinds = [type(each) for each in error.exceptions]
        assert kinds == [ValueError, RemoteExit, KeyError]
        assert isinstance(error.exceptions[1].__cause__, SystemExit)

    def test_parts_of_it_know_their_engines(self) -> None:
        error = composite()
        error.add_note("a note")
        some = error.subgroup((ValueError, RemoteExit))
        assert isinstance(some, CompositeError)
        assert str(some) == "the call failed\n[0:execute]: ValueError: a\n[1:execute]: SystemExit: 3"
        assert some.__notes__ == ["a note"]
        match, rest = error.split(KeyError)
        assert (str(match), len(rest.elist)) == ("the call failed\n[2:execute]: KeyError: 'k'", 2)
        with pytest.raises(ValueError, match=r"^a$"):
            some.raise_exception(0)
        assert error.subgroup(ZeroDivisionError) is None

    def test_except_star_takes_what_it_names_and_leaves_the_rest(self) -> None:
        taken: list[CompositeError] = []
        program = (
            "try:\n    raise error\nexcept* ValueError as group:\n    taken.append(group)\n"
            "except* RemoteExit as group:\n    taken.append(group)\n"
        )
        with pytest.raises(CompositeError) as info:
            exec(program, {"error": composite(), "RemoteExit": RemoteExit, "taken": taken})
        assert [str(each).partition("\n")[2] for each in taken] == [
            "[0:execute]: ValueError: a",
            "[1:execute]: SystemExit: 3",
        ]
        assert str(info.value) == "the call failed\n[2:execute]: KeyError: 'k'"
        assert [kind for kind, _, _ in info.value.elist] == [KeyError]

    def test_a_group_that_user_code_raised_stays_one(self) -> None:
        inner = builtins.ExceptionGroup("of the user", [KeyError("k"), ValueError("v")])
        error = CompositeError("the call failed", [of_engine(inner, 0), of_engine(KeyError("q"), 1)])
        match, rest = error.split(ValueError)
        assert isinstance(match, CompositeError)
        assert [str(each) for each in match.exceptions[0].exceptions] == ["v"]
        assert isinstance(rest, CompositeError)
        assert len(rest.elist) == 2
        with contextlib.suppress(CompositeError):
            exec("try:\n    raise error\nexcept* ValueError:\n    pass", {"error": error})

    @pytest.mark.parametrize("through", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
    def test_pickle_and_copy_keep_it(self, through: Any) -> None:
        error = composite()
        error.add_note("a note")
        for each in (error, error.subgroup((ValueError, RemoteExit))):
            other = through(each)
            assert type(other) is CompositeError
            assert str(other) == str(each)
            assert other.__notes__ == ["a note"]
            assert [type(member) for member in other.exceptions] == [type(member) for member in each.exceptions]
            assert other.elist[0][1]._ipython_engine_info["engineid"] == 0


def load_as_python_3_10(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as that Python would load it: two classes TimeoutError, and no groups."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    if concurrent.futures.TimeoutError is TimeoutError:
        monkeypatch.setattr(concurrent.futures, "TimeoutError", type("TimeoutError", (Exception,), {}))
    spec = importlib.util.spec_from_file_location("errors_of_3_10", errors.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "errors_of_3_10", module)
    spec.loader.exec_module(module)
    return module


def test_python_3_10_has_no_groups_and_the_rest_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    new = composite()
    old = load_as_python_3_10(monkeypatch)
    for name in ("ResultNotCompleted", "TaskTimeout"):
        assert issubclass(getattr(old, name), TimeoutError)
        assert issubclass(getattr(old, name), concurrent.futures.TimeoutError)
    error = old.CompositeError("the call failed", new.elist)
    assert error.message == "the call failed"
    assert str(error) == str(new)
    assert not hasattr(error, "exceptions")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.message) == (old.CompositeError, str(new), new.message)
    assert len(old.CompositeError("outer", [(old.CompositeError, error, None)]).elist) == 3


# --- what must not be raised here --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_ends_programs_is_wrapped(error: BaseException) -> None:
    raised = errors.raisable(error, "the task")
    assert isinstance(raised, RemoteExit)
    assert raised.__cause__ is raised.value is error
    assert str(raised).startswith(f"the task raised {type(error).__name__}")
    again = pickle.loads(pickle.dumps(raised))
    assert (str(again), type(again.value)) == (str(raised), type(error))


@pytest.mark.parametrize("error", [StopIteration(5), StopAsyncIteration()])
def test_what_ends_iterators_is_a_runtime_error(error: Exception) -> None:
    raised = errors.raisable(error, "the task")
    assert type(raised) is RuntimeError
    assert raised.__cause__ is error
    assert str(raised).startswith(f"the task raised {type(error).__name__}")


def test_other_exceptions_are_raised_as_they_are() -> None:
    error = ValueError("a")
    assert errors.raisable(error, "the task") is error


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_a_process_without_memory_is_no_bug(error: Exception) -> None:
    said = str(errors.internal_error(error, "while this rank was dealt with"))
    assert f"process {os.getpid()} on {os.uname().nodename} has no memory left while this rank" in said
    assert "ulimit -v" in said
    assert "report" not in said
    assert "please report this" in str(errors.internal_error(ZeroDivisionError()))


def test_a_process_that_may_open_no_further_file_is_no_bug() -> None:
    said = str(errors.internal_error(OSError(errno.EMFILE, "Too many open files"), "while a rank was dealt with"))
    who = f"process {os.getpid()} on {os.uname().nodename}"
    assert said == (
        f"a call while a rank was dealt with has failed: {who} has too many open files "
        "([Errno 24] Too many open files): start it with a larger `ulimit -n`"
    )
    of_all = str(errors.internal_error(OSError(errno.ENFILE, "Too many open files in system")))
    assert f"the machine of {who} has too many open files" in of_all
    assert "ulimit" not in of_all, "that would not help"
    assert "please report this" in str(errors.internal_error(OSError(errno.EIO, "Input/output error")))


# --- many that are alike -----------------------------------------------------------------------------------------


TRACEBACK = (
    'Traceback (most recent call last):\n  File "<ipmpi 1>", line 1, in <module>\n    1/0\nZeroDivisionError: x\n'
)


def many(text: str = "rank {} of 64", ranks: int = 64) -> CompositeError:
    entries = [of_engine(ZeroDivisionError(text.format(rank)), rank) for rank in range(ranks)]
    for _, value, _ in entries:
        value._ipython_traceback_text = TRACEBACK  # type: ignore[attr-defined]
    error = CompositeError("the call failed", entries)
    error.finished = [64, 65]
    return error


def test_many_failures_are_folded_in_its_text() -> None:
    assert str(many()) == (
        "the call failed\n[0-63:execute]: ZeroDivisionError: rank 0 .. 63 of 64\n[64-65] finished"
    )
    assert str(many(ranks=4)).count("\n") == 4
    assert str(pickle.loads(pickle.dumps(many()))) == str(many())


def test_the_original_is_the_cause_where_all_are_alike() -> None:
    error = many()
    assert error.__cause__ is error.elist[0][1]
    assert many(ranks=2).__cause__ is not None
    assert composite().__cause__ is None


def test_it_renders_some_or_all() -> None:
    error = many()
    assert error.render().splitlines()[1:] == [
        "[0-63] Traceback (most recent call last):",
        '         File "<ipmpi 1>", line 1, in <module>',
        "           1/0",
        "       ZeroDivisionError: rank 0 .. 63 of 64",
        "[64-65] finished",
        "error.render(all=True) gives the whole tracebacks, error.render(0) that of rank 0",
    ]
    assert error.render(17).splitlines()[1] == "[17] Traceback (most recent call last):"
    assert error.render([17, 18]).splitlines()[1] == "[17-18] Traceback (most recent call last):"
    assert error.render(all=True).splitlines()[1].startswith("[0-63] Traceback")
    with pytest.raises(IndexError, match=r"\[64\] did not fail in this call; those that did are \[0-63\]"):
        error.render([3, 64])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has no exception groups")
def test_members_stand_for_all_that_are_alike() -> None:
    entries = [*many().elist, of_engine(KeyError("k"), 64)]
    error = CompositeError("the call failed", entries)
    assert [type(each) for each in error.exceptions] == [ZeroDivisionError, KeyError]
    match, rest = error.split(ZeroDivisionError)
    assert (len(match.elist), len(rest.elist)) == (64, 1)
    taken: list[CompositeError] = []
    with pytest.raises(CompositeError) as info:
        exec(
            "try:\n    raise error\nexcept* ZeroDivisionError as g:\n    taken.append(g)",
            {"error": error, "taken": taken},
        )
    assert str(taken[0]).startswith("the call failed\n[0-63:execute]: ZeroDivisionError: rank 0 .. 63 of 64")
    assert [value.args for _, value, _ in info.value.elist] == [("k",)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has no exception groups")
def test_groups_of_user_code_keep_all_their_parts_for_except_star() -> None:
    def group() -> BaseException:
        return builtins.ExceptionGroup("of the user", [KeyError("k"), ValueError("v")])

    error = CompositeError("the call failed", [of_engine(group(), rank) for rank in range(8)])
    match, rest = error.split(ValueError)
    assert (len(match.elist), len(rest.elist)) == (8, 8)


def test_a_traceback_of_many_can_be_read() -> None:
    shown = traceback.format_exception(many())
    assert len("".join(shown).splitlines()) <= 15
    lines = many()._render_traceback_()
    assert len(lines) <= 15
    assert lines[0] == "CompositeError: the call failed"
    assert lines[-1] == "%pxtb shows the whole tracebacks, %pxtb 0 that of rank 0"
