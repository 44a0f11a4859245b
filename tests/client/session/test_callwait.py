"""What a waiting user sees, and what Ctrl-C does."""

from __future__ import annotations

import concurrent.futures
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.client.engines.multiengine import MultiEngineClient
from ipmpi.client.session.callwait import CallWait, StderrScreen, status
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.notices import say
from ipmpi.client.session.partial import CommandFuture, Partial, SoFar, WaitSettings
from ipmpi.client.session.progress import StatusLine
from ipmpi.errors import ClientError, CompositeError, ConnectionError, WaitInterrupted
from ipmpi.protocol import operations as o

HIT = o.Failed("KeyboardInterrupt", "", "KeyboardInterrupt\n")
Step = Callable[[], object]


class ScriptedScreen:
    """Each wait does the next step of a script; then they only let time pass."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[str | None] = []
        self.script: list[Step] = []

    def status(self, text: str | None) -> None:
        self.shown.append(text)

    def tell(self, text: str) -> None:
        self.lines.append(text)

    def wait(self, seconds: float) -> None:
        assert seconds >= 0
        if self.script:
            self.script.pop(0)()

    def wake(self) -> None:
        """Nothing waits."""


class Call:
    """A call of engines 0 to 3, of which the test says when they answer."""

    def __init__(self, interrupt: Callable[[list[int]], object] | None = None) -> None:
        self.so_far = SoFar([0, 1, 2, 3])
        self.future = CommandFuture([self.so_far], numbers=[7])
        self.interrupted: list[list[int]] = []
        self.settings = WaitSettings(interrupt or self.interrupted.append)
        self.partial = Partial(self.future, "execute", 2.0, self.settings, "execute('step()')")
        self.screen = ScriptedScreen()

    def answers(self, *engines: int, ok: bool = True) -> None:
        outcome = o.Nothing() if ok else HIT
        self.so_far.add([EngineReply(engine, ok, outcome, []) for engine in engines], [0, 1, 2, 3])
        if len(self.so_far.done) == 4:
            self.future.set_result([])

    def waits(self, *script: Step) -> None:
        self.screen.script = list(script)
        CallWait(self.future, self.partial, self.screen, "mec.detached.r waits again").run()


def ctrl_c() -> None:
    raise KeyboardInterrupt


def nothing() -> None:
    """Time passes."""


def test_the_first_ctrl_c_interrupts_this_call_and_waits_for_its_engines() -> None:
    call = Call()
    with pytest.raises(WaitInterrupted) as info:
        call.waits(
            lambda: call.answers(2),
            ctrl_c,
            lambda: call.answers(0, 1, ok=False),
            lambda: call.answers(3, ok=False),
        )
    assert call.interrupted == [[7]]
    assert call.screen.lines == ["interrupting [0-1, 3]. Ctrl-C again leaves the command running"]
    assert str(info.value) == "[0-1, 3] KeyboardInterrupt · [2] had finished"
    assert not info.value.detached
    assert isinstance(info.value.error, CompositeError)
    assert [vars(value)["_ipython_engine_info"]["engineid"] for _, value, _ in info.value.error.elist] == [0, 1, 3]


def test_ctrl_c_is_not_lost_if_all_engines_finish_anyway() -> None:
    call = Call()
    with pytest.raises(KeyboardInterrupt, match=r"^\[0-3\] had finished$") as info:
        call.waits(ctrl_c, lambda: call.answers(0, 1, 2, 3))
    assert isinstance(info.value, WaitInterrupted)
    assert info.value.error is None


def test_engines_that_do_not_react_are_named_with_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTERRUPT_REACTS", 0.0)
    call = Call()
    call.settings.why = lambda engines: f"{engines} is stopped"
    with pytest.raises(WaitInterrupted):
        call.waits(ctrl_c, lambda: call.answers(0, 1, 2, ok=False), lambda: call.answers(3, ok=False))
    assert len(call.screen.lines) == 2
    assert "did not react: execute('step()') still runs" in call.screen.lines[1]
    assert "[0, 1, 2, 3] is stopped" in call.screen.lines[1]
    assert "mec.restart() gives the whole set back" in call.screen.lines[1]


def test_the_second_ctrl_c_leaves_the_call_running() -> None:
    call = Call()
    with pytest.raises(WaitInterrupted) as info:
        call.waits(ctrl_c, lambda: call.answers(0, ok=False), ctrl_c)
    assert info.value.detached
    assert str(info.value) == (
        "the wait has ended; execute('step()') goes on on [1-3]. mec.detached.r waits again"
    )
    assert not call.future.done()


def test_in_the_other_mode_the_first_ctrl_c_leaves_it_running() -> None:
    call = Call()
    call.settings.on_interrupt = "detach"
    with pytest.raises(WaitInterrupted) as info:
        call.waits(ctrl_c)
    assert info.value.detached
    assert call.interrupted == []


def test_a_session_that_is_over_cannot_interrupt() -> None:
    def refuse(numbers: list[int]) -> None:
        raise ConnectionError("the link is lost")

    with pytest.raises(WaitInterrupted, match="could not be interrupted: the link is lost"):
        Call(refuse).waits(ctrl_c)


def test_a_request_to_the_controller_just_ends() -> None:
    plain: concurrent.futures.Future[Any] = concurrent.futures.Future()
    screen = ScriptedScreen()
    screen.script = [ctrl_c]
    with pytest.raises(KeyboardInterrupt) as info:
        CallWait(plain, Partial(plain, "queue_status", None), screen, "").run()
    assert type(info.value) is KeyboardInterrupt
    assert screen.lines == []


def test_the_status_line_comes_late_and_goes_when_the_call_is_done() -> None:
    call = Call()
    call.waits(nothing, lambda: setattr(call.settings, "progress_after", 0.0), nothing, lambda: call.answers(1, 2),
               nothing, lambda: call.answers(0, 3))  # fmt: skip
    assert call.screen.shown[0] == "0/4 done · [0-3] running 0 s"
    assert "2/4 done · [0, 3] running 0 s" in call.screen.shown
    assert call.screen.shown[-1] is None


def test_no_status_line_if_it_is_not_wanted() -> None:
    call = Call()
    call.settings.progress_after = None
    call.waits(nothing, lambda: call.answers(0, 1, 2, 3))
    assert call.screen.shown == [None]


def test_the_status_names_the_engines_and_the_time() -> None:
    so_far = SoFar(None)
    settings = WaitSettings(engines=lambda: range(64))
    partial = Partial(CommandFuture([so_far]), "execute", None, settings)
    assert status(partial, partial.begun + 3) == "0/64 done · [0-63] running 3 s"
    so_far.add([EngineReply(e, True, o.Nothing(), []) for e in set(range(64)) - {3, 17, 40}], range(64))
    assert status(partial, partial.begun + 12) == "61/64 done · [3, 17, 40] running 12 s"


def test_the_status_of_many_engines_is_short() -> None:
    so_far = SoFar(range(0, 1000, 2))
    partial = Partial(CommandFuture([so_far]), "execute", None)
    shown = status(partial, partial.begun)
    assert len(shown) < 110
    assert re.match(r"0/500 done · \[0, 2, 4, .*, \.\.\.\] running 0 s$", shown)


def test_the_status_line_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    StatusLine().show("1/2 done")
    assert capsys.readouterr().err == ""


def test_the_status_line_is_replaced_in_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipmpi.client.session.progress._somebody_looks", lambda: True)
    line = StatusLine()
    line.show("1/2 done")
    line.show("2/2 done")
    line.tell("said")
    line.show(None)
    blank = "\r\033[K"
    assert capsys.readouterr().err == f"1/2 done{blank}2/2 done{blank}said\n"


def test_notices_are_shown_by_the_wait_which_has_a_line_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed by the session's thread, one would be appended to the status line."""
    call = Call()
    call.waits(lambda: say("n3 is gone"), nothing, lambda: say("all is lost"), lambda: call.answers(0, 1, 2, 3))
    assert call.screen.lines == ["n3 is gone", "all is lost"]
    assert capsys.readouterr().err == ""


def test_notices_after_the_last_turn_of_a_wait_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    call = Call()
    call.waits(lambda: (say("late"), call.answers(0, 1, 2, 3)))
    assert call.screen.lines == []
    assert capsys.readouterr().err == "ipmpi: late\n"
    say("after it")
    assert capsys.readouterr().err == "ipmpi: after it\n"


def test_what_ctrl_c_does_can_be_chosen(mec: MultiEngineClient) -> None:
    assert mec.on_interrupt == "ranks"
    mec.on_interrupt = "detach"
    with pytest.raises(ClientError, match=r"'ranks'.*'detach'.*not 'kill'"):
        mec.on_interrupt = "kill"  # type: ignore[assignment]
    assert mec.on_interrupt == "detach"


def test_when_the_status_line_is_shown_can_be_chosen(mec: MultiEngineClient) -> None:
    assert mec.progress_after == 2.0
    mec.progress_after = None
    assert mec.progress_after is None
    with pytest.raises(ClientError, match="progress_after must be 0 seconds or more"):
        mec.progress_after = -1


def test_what_happens_before_a_wait_ends_it_and_twice_is_once() -> None:
    screen = StderrScreen()
    screen.wake()
    screen.wake()
    begin = time.monotonic()
    screen.wait(60)
    assert time.monotonic() - begin < 30
    begin = time.monotonic()
    screen.wait(0.05)
    assert time.monotonic() - begin >= 0.05
    threading.Timer(0.05, screen.wake).start()
    screen.wait(60)
    assert time.monotonic() - begin < 30
