"""Debuggers in user code: what they show, what lines do, and what is left when they end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.engine.session import debugging
from ipmpi.engine.session.importhooks import AfterImport
from ipmpi.engine.session.namespace import Namespace
from ipmpi.protocol import operations as o
from ipmpi.protocol.debugging import LEFT, STEPS, TEXT

CODE = """
def f(x):
    y = 2 * x
    breakpoint()
    z = y + 1
    return z
result = f(20)
"""


AFTER = sys.version_info < (3, 13)
"""Whether a debugger stops after the line with ``breakpoint()``; from Python 3.13 on it stops at it."""
STOP = 5 if AFTER else 4


class User:
    """Types lines, and sees what comes."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.lines: list[str | BaseException | None] = []
        self.asked: list[tuple[str, str, str]] = []
        self.told: list[tuple[int, str]] = []
        namespace.debugging.connect(lambda state, text: self.told.append((state, text)), self._ask)

    def _ask(self, text: str, prompt: str, place: str) -> str | None:
        self.asked.append((text, prompt, place))
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line if line is None else line + "\n"

    def run(self, operation: o.Operation | str, *lines: str | BaseException | None) -> Any:
        """The outcome of an operation, with these lines for its debuggers."""
        self.lines, self.asked, self.told = list(lines), [], []
        if isinstance(operation, str):
            operation = o.Execute(operation)
        answer = self.namespace.run("execute", o.encode(operation), [])
        return o.decode_outcome(answer.outcome)

    @property
    def seen(self) -> str:
        """All text that debuggers have written before their prompts."""
        return "".join(text for text, _, _ in self.asked)

    def value(self, name: str) -> Any:
        return self.namespace.names[name]


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """An engine without IPython: its shell would be that of the tests' process."""
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setattr(sys, "breakpointhook", debugging.breakpoint_hook)
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    trace = sys.gettrace()
    yield User(Namespace(3))
    assert sys.gettrace() is trace


def test_a_breakpoint_asks_for_lines_and_shows_where_it_is(user: User) -> None:
    assert isinstance(user.run(CODE, "p y", "y = 1", "c"), o.Executed)
    assert user.value("result") == 2
    (first, prompt, place), (second, _, _), _ = user.asked
    assert f"({STOP})f()" in first
    assert ("-> z = y + 1" if AFTER else "-> breakpoint()") in first
    assert prompt == "(Pdb) "
    assert place == f"<ipmpi 1>:{STOP} in f"
    assert second == "40\n"
    assert user.told == [(LEFT, "")]


def test_what_is_printed_at_the_prompt_keeps_its_place(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    user.run(CODE, "print('one'); print('two', file=__import__('sys').stderr)", "p print('three')", "c")
    assert [text for text, _, _ in user.asked[1:]] == ["one\ntwo\n", "three\nNone\n"]
    assert capsys.readouterr() == ("", "")


def test_frames_of_ipmpi_are_not_seen(user: User) -> None:
    user.run(CODE, "w", "u", "u", "d", "c")
    assert "ipmpi/" not in user.seen
    assert "Oldest frame" in user.seen


def test_steps_end_with_the_code_and_not_in_ipmpi(user: User) -> None:
    assert isinstance(user.run(CODE, "n", "n", "n", "n", "n", "n"), o.Executed)
    assert "ipmpi/" not in user.seen
    assert "->41" in user.seen.replace(" ", "") or "Return" in user.seen
    assert user.told[0] == (STEPS, "")
    assert isinstance(user.run("after = 1"), o.Executed)
    assert not user.asked


def test_breakpoints_that_a_user_sets_end_with_the_command(user: User) -> None:
    loop = "breakpoint()\nfor i in range(3):\n    x = i\n"
    user.run(loop, "b 3", "c", "p i", "c", "c", "c")
    assert "Breakpoint" in user.seen
    assert [text for text, _, _ in user.asked if text == "0\n"]
    user.run("for i in range(3):\n    x = i\n    x = 1\n")
    assert not user.asked


def test_quit_ends_the_command(user: User) -> None:
    outcome = user.run(CODE, "q")
    assert outcome.type_name == "BdbQuit"
    assert "result" not in user.namespace.names


def test_an_interrupt_at_the_prompt_ends_the_command(user: User) -> None:
    outcome = user.run(CODE, KeyboardInterrupt())
    assert outcome.type_name == "KeyboardInterrupt"
    assert f'File "<ipmpi 1>", line {STOP}, in f' in outcome.traceback


def test_an_interrupt_of_a_line_comes_back_to_the_prompt(user: User) -> None:
    line = "p __import__('signal').raise_signal(2)"
    if threading.current_thread() is threading.main_thread():
        assert isinstance(user.run(CODE, line, "c"), o.Executed)
        assert "KeyboardInterrupt" in user.seen


def test_where_nobody_is_there_user_code_goes_on(user: User) -> None:
    assert isinstance(user.run(f"{CODE}result = f(30)", None), o.Executed)
    assert user.value("result") == 61
    assert len(user.asked) == 1
    user.run(CODE, "c")
    assert len(user.asked) == 1  # the next command asks again


def test_where_nobody_is_there_any_more_breakpoints_are_gone(user: User) -> None:
    user.run("breakpoint()\nfor i in range(30):\n    x = i\n", "b 3", "c", None)
    assert len(user.asked) == 3
    assert user.value("x") == 29


def test_code_can_read_what_the_user_types(user: User) -> None:
    user.run(CODE, "y = int(input('how many? '))", "6", "c")
    assert user.asked[1][:2] == ("", "how many? ")
    assert user.value("result") == 7


def test_pdb_set_trace_does_the_same(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    import pdb

    monkeypatch.setattr(pdb, "set_trace", pdb.set_trace)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    AfterImport({"pdb": debugging.adapt_set_trace}).install()
    user.run("import pdb\npdb.set_trace()\na = 1\nb = 2", "n", "c")
    first = 3 if AFTER else 2
    assert [place for _, _, place in user.asked] == [f"<ipmpi 1>:{n} in <module>" for n in (first, first + 1)]


def test_no_debugger_where_the_environment_says_so(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    assert isinstance(user.run(CODE), o.Executed)


def test_in_a_thread_it_is_passed_over_and_said(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    user.run("import threading\nt = threading.Thread(target=breakpoint)\nt.start()\nt.join()\nok = 1")
    assert user.value("ok") == 1
    assert "is passed over: a debugger opens in commands of a client only" in capsys.readouterr().err
    assert not user.asked


def test_long_texts_are_cut_in_the_middle(user: User) -> None:
    user.run(CODE, "p 'a' * 10**6 + 'end'", "p 1", "c")
    long = user.asked[1][0]
    assert len(long) < limits.DEBUGGER_TEXT + 100
    assert long.startswith("'aaa")
    assert long.endswith("end'\n")
    assert "characters left out here" in long
    assert user.asked[2][0] == "1\n"


def test_what_a_line_writes_slowly_comes_at_once(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1000))
    monkeypatch.setattr("ipmpi.engine.session.debuggerterminal.time.monotonic", lambda: float(next(times)))
    user.run(CODE, "for i in range(3): print(i)", "c")
    told = "".join(text for state, text in user.told if state == TEXT)
    assert "0\n" in told
    assert "1\n" in told


def test_post_mortem_has_the_frames_of_the_last_exception(user: User) -> None:
    assert user.run("def g(n):\n    m = n + 5\n    return 1 / n\ng(0)").type_name == "ZeroDivisionError"
    user.run("a = 1")
    assert isinstance(user.run(o.PostMortem(), "p m", "u", "w", "q"), o.Nothing)
    assert user.asked[0][2] == "<ipmpi 1>:3 in g"
    assert user.asked[1][0] == "5\n"
    assert "ipmpi/" not in user.seen
    # It can be looked at once more, and an interrupt of that is none of user code.
    assert user.run(o.PostMortem(), KeyboardInterrupt()).type_name == "KeyboardInterrupt"
    assert isinstance(user.run(o.PostMortem(), "p m", "c"), o.Nothing)
    assert user.asked[1][0] == "5\n"


def test_post_mortem_of_a_call(user: User) -> None:
    from ipmpi import serialize

    def half(value: Any) -> Any:
        twice = value * 2
        return twice / 0

    body = serialize.dumps((half, (4,), {}))
    answer = user.namespace.run("apply", o.encode(o.Apply()), body)
    assert not answer.ok
    user.run(o.PostMortem(), "p twice", "q")
    assert user.asked[1][0] == "8\n"


def test_without_an_exception_it_is_said(user: User) -> None:
    outcome = user.run(o.PostMortem())
    assert outcome.type_name == "LookupError"
    assert "no command has raised in user code on this engine" in outcome.text
    user.run("1/0")
    user.run(o.Reset())
    assert user.run(o.PostMortem()).type_name == "LookupError"
