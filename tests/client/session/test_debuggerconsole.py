"""Lines for debuggers: whose turn it is, what is shown, and what Ctrl-C does."""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.client.session.debuggerconsole import DebuggerConsole
from ipmpi.client.session.debuggertalk import DebuggerTalk
from ipmpi.protocol.debugging import LEFT, PROMPT, STEPS, TEXT, DebuggerLine, DebuggerSaid

Event = Callable[[], object]


class Stage:
    """One command with debuggers, and a user with a keyboard. Whatever engines do happens while the user waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[list[int], str | None]] = []
        self.later: list[Callable[[], None]] = []
        self.told: list[str] = []
        self.prompts: list[str] = []
        self.interrupted: list[list[int]] = []
        self.keys: deque[str | type[BaseException] | Exception] = deque()
        self.events: deque[Event] = deque()
        self.talk = DebuggerTalk(5, self._sent, lambda seconds, call: self.later.append(call))
        self.console = DebuggerConsole([self.talk], self, self.interrupted.append, lambda: False)
        self.reactions: dict[str, Callable[[int], object]] = {"n\n": self.steps, "c\n": self.leaves}
        self.now = 0.0
        monkeypatch.setattr("ipmpi.client.session.debuggerconsole.time.monotonic", lambda: self.now)
        monkeypatch.setattr(builtins, "input", self._input)

    def _sent(self, line: DebuggerLine) -> None:
        assert line.command == 5
        self.sent.append((line.engines, line.text))
        react = self.reactions.get(str(line.text))
        if react is not None:
            for engine in line.engines:
                react(engine)

    def _input(self, prompt: str) -> str:
        self.prompts.append(prompt)
        key = self.keys.popleft()
        if not isinstance(key, str):
            raise key
        return key

    def tell(self, text: str) -> None:
        self.told.append(text)

    def settle(self) -> None:
        pass

    def wait(self, seconds: float) -> None:
        if self.events:
            self.events.popleft()()
        else:
            assert seconds < 100, "nothing will ever happen"
            self.now += seconds

    def says(self, engine: int, text: str, state: int = TEXT) -> None:
        self.talk.said(DebuggerSaid(5, engine, state, text, "(Pdb) ", f"a.py:{10 + engine} in f"))

    def stops(self, engine: int, text: str = "") -> None:
        self.says(engine, text or f"> a.py({10 + engine})f()\n", PROMPT)

    def steps(self, engine: int) -> None:
        self.says(engine, "", STEPS)
        self.events.append(lambda: self.stops(engine, "-> next\n"))

    def leaves(self, engine: int) -> None:
        self.says(engine, "", LEFT)

    def attend(self, *keys: Any) -> None:
        self.keys.extend(keys)
        self.console.attend()
        assert not self.keys


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_lines_go_to_the_engine_until_it_goes_on(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.stops(2)
    stage.attend("n", "c")
    assert stage.sent == [([2], "n\n"), ([2], "c\n")]
    assert stage.prompts == ["[2] (Pdb) ", "[2] (Pdb) "]
    assert capsys.readouterr().out == "> a.py(12)f()\n-> next\n"


def test_others_wait_and_are_named(stage: Stage) -> None:
    for engine in (1, 2, 3):
        stage.stops(engine)
    stage.attend("n", "c", "c", "c")
    assert stage.told[0].startswith("engines 2-3 also wait in the debugger: @ lists who waits")
    assert [engines for engines, _ in stage.sent] == [[1], [1], [2], [3]]


def test_the_prompt_moves_on_if_a_step_lasts(stage: Stage) -> None:
    stage.stops(1)
    stage.stops(2)
    stage.reactions["n\n"] = lambda engine: stage.says(engine, "", STEPS)  # into a call that waits for engine 2
    stage.attend("n", "c")
    assert stage.sent == [([1], "n\n"), ([2], "c\n")]


def test_a_line_that_lasts_is_waited_for(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.stops(1)
    stage.stops(2)
    stage.events += [lambda: stage.says(1, "half of it\n"), lambda: stage.stops(1, "done\n")]
    stage.attend("p slow()", "c", "c")
    assert stage.prompts == ["[1] (Pdb) ", "[1] (Pdb) ", "[2] (Pdb) "]
    assert "half of it\ndone\n" in capsys.readouterr().out


def test_lines_for_the_console(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    for engine in (0, 1, 2):
        stage.stops(engine)
    stage.reactions["p y\n"] = lambda engine: stage.stops(engine, "40\n" if engine else "38\n")
    stage.attend("@", "@2", "p y", "@7", "@x", "@all p y", "@all c")
    shown = capsys.readouterr().out
    assert "[0] a.py:10 in f *\n[1] a.py:11 in f\n[2] a.py:12 in f\n" in shown
    assert shown.endswith("[0]\n38\n[1-2]\n40\n")
    assert "engine 7 does not wait in a debugger of this call" in stage.told
    assert stage.told[-1].startswith("@ lists who waits")
    assert [engines for engines, _ in stage.sent] == [[2], [0, 1, 2], [0, 1, 2]]


def test_control_sequences_are_escaped(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.stops(2, "\033]0;title\007\n")
    stage.attend("c")
    assert "\033" not in capsys.readouterr().out


def test_the_end_of_input_is_told(stage: Stage) -> None:
    stage.stops(2)
    stage.reactions[""] = lambda engine: stage.talk.ended([engine])
    stage.attend(EOFError)
    assert stage.sent == [([2], "")]


def test_ctrl_c_at_the_prompt_says_what_to_do_and_twice_it_interrupts(stage: Stage) -> None:
    stage.stops(2)
    with pytest.raises(KeyboardInterrupt):
        stage.attend(KeyboardInterrupt, KeyboardInterrupt)
    assert stage.told == ["c lets the engine go on, q ends its command; Ctrl-C again interrupts all engines"]
    assert stage.sent == []
    stage.talk.interrupted()
    stage.attend()


def test_ctrl_c_while_a_line_runs_interrupts_that_engine_only(stage: Stage) -> None:
    def hit() -> None:
        raise KeyboardInterrupt

    stage.stops(1)
    stage.stops(2)
    stage.events += [hit, lambda: stage.stops(1, "*** KeyboardInterrupt\n")]
    stage.attend("p slow()", KeyboardInterrupt, "c", "c")
    assert stage.interrupted == [[1]]
    assert stage.told[-2:] == [
        "interrupting engine 1",
        "c lets the engine go on, q ends its command; Ctrl-C again interrupts all engines",
    ]


@pytest.mark.parametrize("error", [OSError("no terminal"), RuntimeError("input(): lost sys.stdin")])
def test_where_nobody_can_be_asked_user_code_goes_on(stage: Stage, error: Exception) -> None:
    stage.stops(2)
    stage.stops(3)
    stage.attend(error)
    stage.stops(1)
    assert stage.sent == [([2, 3], None), ([1], None)]
    assert stage.told[-1] == f"nobody can be asked here ({error}): this call passes breakpoints over"


def test_lines_that_cannot_be_sent_are_refused_here(stage: Stage) -> None:
    stage.stops(2)
    stage.attend("x" * (limits.DEBUGGER_LINE + 1), "\udcff", "c")
    assert stage.sent == [([2], "c\n")]
    assert (
        f"a line has at most {limits.DEBUGGER_LINE} characters, and this one {limits.DEBUGGER_LINE + 1}"
        in stage.told
    )
    assert any(text.startswith("this line cannot be sent") for text in stage.told)


def test_a_debugger_that_nobody_attends_to_is_announced_once(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.stops(2)
    stage.stops(3)
    (tell,) = stage.later
    tell()
    assert "engines 2-3 stopped in the debugger (a.py:12 in f): mec.debug() or %pxdebug" in capsys.readouterr().err


def test_one_that_somebody_attends_to_is_not_announced(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.stops(2)
    stage.attend("c")
    stage.stops(2)
    for tell in stage.later:
        tell()
    assert "stopped in the debugger" not in capsys.readouterr().err


def test_the_end_of_a_command_wakes_its_caller_only_where_a_debugger_has_spoken(stage: Stage) -> None:
    heard: list[int] = []
    stage.talk.listen(lambda: heard.append(1))
    stage.talk.ended([0, 1])  # else each answer would wake a thread that has nothing to do yet
    assert heard == []
    stage.says(2, "> a.py(12)f()\n", PROMPT)
    heard.clear()
    stage.talk.ended([2])
    assert heard == [1]
    assert stage.talk.waiting() == {}
    assert stage.talk.state(2) == LEFT
