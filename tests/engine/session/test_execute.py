"""Execute, its output, its history and its failures."""

from __future__ import annotations

import inspect
import linecache
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmpi import limits, serialize
from ipmpi.engine.session import console
from ipmpi.engine.session.failures import failed
from ipmpi.engine.session.statements import Sources
from ipmpi.protocol.operations import Apply, Execute, Executed, Failed, GetResult, Pull, decode_outcome, encode
from tests.printing import PrintingNamespace, Ran


@pytest.fixture
def namespace() -> Iterator[PrintingNamespace]:
    made = PrintingNamespace()
    yield made
    made.close()


def outcome(namespace: PrintingNamespace, source: str, filename: str = "<ipmpi>") -> Executed | Failed:
    answer = namespace.run("execute", encode(Execute(source, filename)), [])
    result = decode_outcome(answer.outcome)
    assert isinstance(result, (Executed, Failed))
    assert answer.ok is isinstance(result, Executed)
    return result


def execute(namespace: PrintingNamespace, source: str) -> Ran:
    result = outcome(namespace, source)
    assert isinstance(result, Executed), result
    return namespace.ran(result)


def fail(namespace: PrintingNamespace, source: str, filename: str = "<ipmpi>") -> Failed:
    result = outcome(namespace, source, filename)
    assert isinstance(result, Failed), result
    return result


# --- Statements ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "stdout", "display"),
    [
        ("a=5", "", None),
        ("a=5; b=10; c=a+b; c", "", "15"),
        ("for i in range(2):\n    print(i)", "0\n1\n", None),
        ("for i in range(3):\n    i", "", "2"),
        ("if True:\n  a = 1\na", "", "1"),
        ("def f():\n    return 3\n\nf()\n\n   \n", "", "3"),
        ("5;", "", "5"),
        ("5\nNone", "", "5"),
        ("print('x')", "x\n", None),
        ("'first'\na = 1", "", "'first'"),
        ("", "", None),
        ("# only a comment", "", None),
    ],
)
def test_statements(namespace: PrintingNamespace, source: str, stdout: str, display: str | None) -> None:
    assert execute(namespace, source) == Ran(1, stdout, "", display, display)


def test_nothing_runs_after_the_first_exception(namespace: PrintingNamespace) -> None:
    failure = fail(namespace, "zz = 1\nprint('before')\nzz\n1/0\nzz = 2")
    assert namespace.names["zz"] == 1
    assert failure.type_name == "ZeroDivisionError"
    assert namespace.ran(failure.executed) == Ran(1, "before\n", "", "1", "1")


def test_a_leading_string_is_a_statement_like_others(namespace: PrintingNamespace) -> None:
    assert execute(namespace, '"""Count words."""\n').display_repr == "'Count words.'"


def test_future_features_stay_on(namespace: PrintingNamespace) -> None:
    execute(namespace, "from __future__ import annotations")
    assert execute(namespace, "def f(x: missing): pass\nf.__annotations__").display_repr == "{'x': 'missing'}"


def test_a_syntax_error_shows_where_and_runs_nothing(namespace: PrintingNamespace) -> None:
    failure = fail(namespace, "a = 1\nb = = 2")
    assert failure.type_name == "SyntaxError"
    assert failure.traceback.startswith('  File "<ipmpi 1>", line 2\n    b = = 2\n        ^\n')
    assert "a" not in namespace.names
    assert fail(namespace, "return 1").type_name == "SyntaxError"
    assert fail(namespace, "a\0").type_name in ("ValueError", "SyntaxError")
    assert not isinstance(outcome(namespace, "(" * 1000 + ")" * 1000), Executed)


# --- Display and history -------------------------------------------------------------------------------------


def test_long_values_are_laid_out(namespace: PrintingNamespace) -> None:
    result = execute(namespace, "{'b' * 30: 'x' * 30, 'a' * 30: 'y' * 30}")
    assert result.display_repr is not None
    assert result.display_pprint is not None
    assert "\n" not in result.display_repr
    assert result.display_pprint.count("\n") == 1
    assert result.display_pprint.index("bbb") < result.display_pprint.index("aaa")


def test_history_is_kept_as_in_a_session(namespace: PrintingNamespace) -> None:
    execute(namespace, "10")
    execute(namespace, "20\n30")
    fail(namespace, "1/0")
    names = namespace.names
    assert (names["_"], names["__"], names["___"]) == (30, 20, 10)
    assert names["Out"] == names["_oh"] == {1: 10, 2: 30}
    assert names["In"] == names["_ih"] == ["", "10", "20\n30", "1/0"]
    assert execute(namespace, "_ + Out[1]").display_repr == "40"


def test_a_repr_that_raises_is_the_users_error(namespace: PrintingNamespace) -> None:
    failure = fail(namespace, "class C:\n    def __repr__(self): return 1/0\nprint('x')\nC()")
    assert failure.type_name == "ZeroDivisionError"
    assert "in __repr__" in failure.traceback
    assert namespace.ran(failure.executed) == Ran(1, "x\n")


def test_displayhook_and_streams_are_restored(namespace: PrintingNamespace) -> None:
    before = sys.displayhook, sys.stdout, sys.stderr
    execute(namespace, "import sys; sys.stdout = None; sys.displayhook = None")
    fail(namespace, "sys.stderr = 5; 1/0")
    assert (sys.displayhook, sys.stdout, sys.stderr) == before
    assert execute(namespace, "print(1); 2") == Ran(3, "1\n", "", "2", "2")


# --- Numbers and get_result ------------------------------------------------------------------------------------


def result(namespace: PrintingNamespace, number: int | None = None) -> Ran | Failed:
    found = decode_outcome(namespace.run("get_result", encode(GetResult(number)), []).outcome)
    assert isinstance(found, (Executed, Failed))
    return namespace.ran(found) if isinstance(found, Executed) else found


def test_failed_commands_are_counted(namespace: PrintingNamespace) -> None:
    assert execute(namespace, "1").number == 1
    assert namespace.ran(fail(namespace, "1/0").executed) == Ran(2)
    assert namespace.ran(fail(namespace, "a = = 1").executed) == Ran(3)
    assert execute(namespace, "1").number == 4


def test_get_result(namespace: PrintingNamespace) -> None:
    nothing_yet = result(namespace)
    assert isinstance(nothing_yet, Failed)
    assert nothing_yet.type_name == "IndexError"
    assert nothing_yet.text == "no command has succeeded on this engine yet; run one with execute"
    execute(namespace, "print(5); 6")
    fail(namespace, "print(1); 1/0")
    expected = Ran(1, "5\n", "", "6", "6", "print(5); 6")
    assert result(namespace) == result(namespace, 1) == expected
    assert result(namespace, 2) == Ran(2, "1\n", source="print(1); 1/0")
    missing = result(namespace, 99)
    assert isinstance(missing, Failed)
    assert (missing.type_name, missing.text) == ("IndexError", "index 99 out of range")


def test_old_results_make_room(namespace: PrintingNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "KEPT_RESULTS", 3000)
    for _ in range(4):
        execute(namespace, repr("x" * 1000))
    assert isinstance(result(namespace, 1), Failed)
    assert isinstance(result(namespace, 4), Ran)


def test_results_are_kept_for_the_last_commands_only(
    namespace: PrintingNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "KEPT_HISTORY", 3)
    for _ in range(5):
        execute(namespace, "1")
    gone = result(namespace, 2)
    assert isinstance(gone, Failed)
    assert gone.text.startswith("the result of command 2 is no longer kept: an engine keeps those of the last 3 ")
    assert [result(namespace, number).number for number in (3, 4, 5)] == [3, 4, 5]  # type: ignore[union-attr]


# --- Output ----------------------------------------------------------------------------------------------------


def test_both_streams_are_captured_apart(namespace: PrintingNamespace, capfd: pytest.CaptureFixture[str]) -> None:
    source = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.stdout.buffer.write('é'.encode())"
    answer = execute(namespace, source)
    assert (answer.stdout, answer.stderr) == ("out\né", "err\n")
    assert capfd.readouterr() == ("", "")


def test_output_of_other_threads_is_captured(namespace: PrintingNamespace) -> None:
    source = (
        "import threading\n"
        "threads = [threading.Thread(target=lambda n=n: [print(n) for _ in range(100)]) for n in range(4)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
    )
    assert sorted(execute(namespace, source).stdout.replace("\n", "")) == sorted("0123" * 100)


def test_a_thread_that_goes_on_writes_to_the_next_command_or_to_the_real_stream(
    namespace: PrintingNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    execute(namespace, "import sys; stream = sys.stdout")
    print("between", file=namespace.names["stream"], flush=True)
    assert capfd.readouterr().out == "between\n"
    assert execute(namespace, "print('within', file=stream)").stdout == "within\n"
    assert namespace.first_note() == b"between\n", "the agent has a copy"


def test_a_logging_handler_of_an_earlier_command_is_captured(namespace: PrintingNamespace) -> None:
    try:
        execute(
            namespace,
            "import logging; log = logging.getLogger('ipmpi-test')\nlog.addHandler(logging.StreamHandler())",
        )
        assert execute(namespace, "log.warning('careful')").stderr == "careful\n"
    finally:
        logging.getLogger("ipmpi-test").handlers.clear()


def test_user_code_may_close_or_ask_the_stream(namespace: PrintingNamespace) -> None:
    execute(namespace, "import sys; sys.stdout.close(); print('still')")
    answer = execute(namespace, "sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.writable(), sys.stdout.name")
    assert answer.display_repr == "(False, 'utf-8', True, '<stdout>')"
    assert execute(namespace, "import io; isinstance(sys.stdout, io.TextIOBase)").display_repr == "True"
    assert fail(namespace, "sys.stdout.write(b'x')").text == "write() argument must be str, not bytes"


def test_user_code_may_ask_for_line_buffering(namespace: PrintingNamespace) -> None:
    source = "import sys; sys.stdout.reconfigure(line_buffering=True); print('still', file=sys.stdout)"
    assert execute(namespace, source).stdout == "still\n"


def test_a_pipe_that_user_code_made_non_blocking_loses_nothing(namespace: PrintingNamespace) -> None:
    os.set_blocking(namespace.pipes.stdout._pipe, False)
    answer = execute(namespace, "print('x' * 500_000)")
    assert answer.stdout == "x" * 500_000 + "\n"


def test_the_descriptor_is_the_real_one(namespace: PrintingNamespace, capfd: pytest.CaptureFixture[str]) -> None:
    answer = execute(
        namespace, "import subprocess, sys; subprocess.run(['echo', 'hi'], stdout=sys.stdout).returncode"
    )
    assert answer.display_repr == "0"
    assert capfd.readouterr().out == "hi\n"


def test_long_output_keeps_both_ends(namespace: PrintingNamespace) -> None:
    answer = execute(namespace, "print('begin'); [print('x' * 1000) for _ in range(3000)]; print('end')")
    assert answer.stdout.startswith("begin\n")
    assert answer.stdout.endswith("end\n")
    assert "bytes left out here] ..." in answer.stdout
    assert len(answer.stdout) < limits.RESULT_TEXT + 200


def test_one_huge_write_keeps_both_ends(namespace: PrintingNamespace) -> None:
    answer = execute(namespace, "print('begin' + 'x' * 5_000_000 + 'end')")
    assert answer.stdout.startswith("beginx")
    assert answer.stdout.endswith("xend\n")
    assert len(answer.stdout) < limits.RESULT_TEXT + 200


def test_text_that_is_no_utf8_is_escaped(namespace: PrintingNamespace) -> None:
    assert execute(namespace, "print('\\udc80')").stdout == "\\udc80\n"
    assert fail(namespace, "raise ValueError('\\udc80')").text == "\\udc80"


# --- Failures --------------------------------------------------------------------------------------------------


def test_a_command_that_is_sent_again_shows_its_own_number_in_tracebacks(namespace: PrintingNamespace) -> None:
    for source, function in (("1 / 0", "<module>"), ("def f():\n    return [1 / x for x in (0,)]\nf()", "f")):
        for _ in range(3):
            failed = fail(namespace, source)
            number = namespace.console._number
            lines = [line.split(", in ")[0] for line in failed.traceback.splitlines() if ", in " in line]
            wanted = [1] if function == "<module>" else [3, 2, 2] if sys.version_info < (3, 12) else [3, 2]
            assert lines == [f'  File "<ipmpi {number}>", line {line}' for line in wanted], failed.traceback
            if function == "f":
                assert inspect.getsource(namespace.names["f"]) == source.rpartition("\n")[0] + "\n"
                assert namespace.names["f"].__code__.co_filename == f"<ipmpi {number}>"


def test_a_command_that_is_sent_again_after_a_future_import_is_compiled_anew(namespace: PrintingNamespace) -> None:
    source = "def g(a: no_such_name): pass"
    assert "NameError" in fail(namespace, source).traceback
    assert execute(namespace, "from __future__ import annotations").stderr == ""
    execute(namespace, source)


def test_tracebacks_show_user_frames_and_their_lines(namespace: PrintingNamespace) -> None:
    execute(namespace, "def f(x):\n    return 1 / x\n")
    text = fail(namespace, "y = 0\nf(y)").traceback
    assert text.startswith(
        'Traceback (most recent call last):\n  File "<ipmpi 2>", line 2, in <module>\n    f(y)\n'
    )
    assert '  File "<ipmpi 1>", line 2, in f\n    return 1 / x\n' in text
    assert "namespace.py" not in text
    assert "console.py" not in text


def test_causes_are_shown(namespace: PrintingNamespace) -> None:
    source = "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e"
    text = fail(namespace, source).traceback
    assert "direct cause of the following exception" in text
    assert text.endswith("KeyError: 'k'\n")
    assert ".py" not in text


def test_frames_of_an_applied_function(namespace: PrintingNamespace) -> None:
    def outer() -> None:
        inner()

    def inner() -> None:
        raise ValueError("deep")

    body = serialize.dumps((outer, (), {}))
    answer = decode_outcome(namespace.run("apply", encode(Apply()), body).outcome)
    assert isinstance(answer, Failed)
    assert answer.traceback.count("  File ") == 2
    assert answer.traceback.endswith("ValueError: deep\n")


def test_a_given_filename_is_used(namespace: PrintingNamespace) -> None:
    text = fail(namespace, "a = 1\n1/0", filename="/home/me/script.py").traceback
    assert '  File "/home/me/script.py", line 2, in <module>\n    1/0\n' in text


def test_source_of_what_was_typed_can_be_inspected(namespace: PrintingNamespace) -> None:
    execute(namespace, "def f():\n    return 1\n")
    assert inspect.getsource(namespace.names["f"]) == "def f():\n    return 1\n"


def test_only_the_last_sources_are_kept() -> None:
    sources = Sources(kept=2)
    for number in range(4):
        sources.add(f"<test {number}>", "pass")
    assert [f"<test {n}>" in linecache.cache for n in range(4)] == [False, False, True, True]
    sources.clear()
    assert "<test 3>" not in linecache.cache


@pytest.mark.parametrize(
    ("source", "type_name", "text"),
    [
        ("1/0", "ZeroDivisionError", "division by zero"),
        ("missing", "NameError", "name 'missing' is not defined"),
        ("[][1]", "IndexError", "list index out of range"),
        ("{}['a']", "KeyError", "'a'"),
        ("assert False", "AssertionError", ""),
        ("import no_such_module", "ModuleNotFoundError", "No module named 'no_such_module'"),
        ("raise Exception('x')", "Exception", "x"),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("import sys; sys.exit()", "SystemExit", ""),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise GeneratorExit", "GeneratorExit", ""),
    ],
)
def test_failures(namespace: PrintingNamespace, source: str, type_name: str, text: str) -> None:
    failure = fail(namespace, source)
    assert (failure.type_name, failure.text) == (type_name, text)
    assert execute(namespace, "1").display_repr == "1"


def test_a_real_interrupt_ends_the_command_only(namespace: PrintingNamespace) -> None:
    assert threading.current_thread() is threading.main_thread()
    failure = fail(namespace, f"import signal\nprint('on')\nwhile True: signal.raise_signal({int(signal.SIGINT)})")
    assert failure.type_name == "KeyboardInterrupt"
    assert namespace.ran(failure.executed) == Ran(1, "on\n")


def body_of(namespace: PrintingNamespace, source: str) -> list[Any]:
    answer = namespace.run("execute", encode(Execute(source)), [])
    assert not answer.ok
    return answer.body


def test_the_exception_itself_travels(namespace: PrintingNamespace) -> None:
    error: Any = serialize.loads(body_of(namespace, "e = OSError(2, 'gone', 'file'); e.extra = 5; raise e"))
    assert (type(error), error.extra) == (FileNotFoundError, 5)
    error = serialize.loads(body_of(namespace, "class Mine(Exception): pass\nraise Mine(1, 2)"))
    assert type(error).__name__ == "Mine"
    assert error.args == (1, 2)


@pytest.mark.parametrize(
    "source",
    [
        "class E(Exception):\n    def __init__(self, a, b): super().__init__('one')\n"
        "    def __reduce__(self): return (E, self.args)\nraise E(1, 2)",
        "import threading\nraise ValueError(threading.Lock())",
        "class E(Exception):\n    def __reduce__(self): raise SystemExit\nraise E",
        "class E(Exception):\n    def __reduce__(self): return (str, ('not an exception',))\nraise E",
    ],
)
def test_an_exception_that_does_not_survive_travels_as_text_only(
    namespace: PrintingNamespace, source: str
) -> None:
    assert body_of(namespace, source) == []


@pytest.mark.parametrize(
    "method", ["__str__", "__repr__", "__getattribute__", "__reduce_ex__", "__eq__", "__bool__"]
)
@pytest.mark.parametrize("raised", ["ValueError('broken')", "SystemExit", "KeyboardInterrupt", "RecursionError"])
def test_broken_exceptions_are_reported_all_the_same(
    namespace: PrintingNamespace, method: str, raised: str
) -> None:
    source = f"class Broken(Exception):\n    def {method}(self, *args): raise {raised}\nraise Broken(1)"
    failure = fail(namespace, source)
    assert failure.type_name == "Broken"
    assert "Broken" in failure.traceback


def test_str_that_raises_is_said() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert failed(Broken())[0].text == "<str() of this Broken raised ValueError>"


def test_a_deep_recursion_is_reported_shortly(namespace: PrintingNamespace) -> None:
    failure = fail(namespace, "def f(): f()\nf()")
    assert failure.type_name == "RecursionError"
    assert "more times]" in failure.traceback


def test_long_error_texts_are_cut(namespace: PrintingNamespace) -> None:
    failure = fail(namespace, "raise ValueError('x' * 10_000_000)")
    assert len(failure.text) + len(failure.traceback) < 2 * limits.RESULT_TEXT
    assert "characters left out here" in failure.text


def test_user_code_that_removes_everything_hurts_only_itself(namespace: PrintingNamespace) -> None:
    execute(namespace, "globals().clear()")
    assert execute(namespace, "len([1])").display_repr == "1"
    assert decode_outcome(namespace.run("pull", encode(Pull(["a"])), []).outcome).type_name == "NameError"  # type: ignore[union-attr]


# --- What must not grow, or get lost -------------------------------------------------------------------------


def test_history_keeps_the_last_thousand(namespace: PrintingNamespace) -> None:
    for number in range(1, 1006):
        execute(namespace, str(number))
    assert len(namespace.names["Out"]) == 1000
    assert min(namespace.names["Out"]) == 6
    assert namespace.names["Out"][1005] == 1005
    assert execute(namespace, "In[1005], In[7], In[5], len(In)").display_repr == "('1005', '7', '', 1007)"


def test_values_that_are_let_go_are_freed(namespace: PrintingNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "KEPT_HISTORY", 3)
    execute(namespace, "import weakref\nclass A: pass\na = A(); gone = weakref.ref(a)")
    execute(namespace, "a")
    execute(namespace, "del a")
    for _ in range(4):
        execute(namespace, "1")
    assert execute(namespace, "gone() is None").display_repr == "True"


WARNS = """
from ipmpi.protocol.operations import Execute, encode
from tests.printing import PrintingNamespace
namespace = PrintingNamespace()
def printed(source):
    assert namespace.run("execute", encode(Execute(source)), []).ok
    return namespace.stderr
printed("import warnings\\ndef f(): warnings.warn('the same', UserWarning)")
for _ in range(2):
    assert printed("f(); f()").count("UserWarning: the same") == 1
printed("warnings.simplefilter('ignore')")
assert printed("f()") == "", "filters of the user stay"
"""


def test_a_warning_is_shown_once_in_each_command(root: Path) -> None:
    # In a process of its own: pytest makes something else of warnings.
    environ = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": ""}
    subprocess.run([sys.executable, "-c", WARNS], env=environ, timeout=60, check=True)


def test_a_very_large_exception_does_not_travel(namespace: PrintingNamespace) -> None:
    answer = namespace.run("execute", encode(Execute("raise ValueError('begin' + 'x' * 30_000_000 + 'end')")), [])
    failure = decode_outcome(answer.outcome)
    assert isinstance(failure, Failed)
    assert not answer.body
    assert len(answer.outcome) < limits.MESSAGE
    assert failure.text.startswith("begin")
    assert failure.text.endswith("end")
    assert "characters left out here" in failure.traceback


def test_what_a_thread_prints_after_its_command_is_written_at_once(
    namespace: PrintingNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    execute(namespace, "import threading\ngo = threading.Event()")
    execute(namespace, "late = threading.Thread(target=lambda: (go.wait(), print('late')))\nlate.start()")
    namespace.names["go"].set()
    namespace.names["late"].join()
    assert capfd.readouterr().out == "late\n"
