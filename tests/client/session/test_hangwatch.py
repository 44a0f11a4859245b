"""When engines are asked where they are, and that a notice comes once."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from ipmpi import errors
from ipmpi.client.session import hangwatch
from ipmpi.client.session.debuggertalk import DebuggerTalk
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.hangwatch import HangWatch
from ipmpi.client.session.partial import CommandFuture, SoFar, WaitSettings
from ipmpi.protocol import inquiries, messages as m
from ipmpi.protocol.debugging import PROMPT, DebuggerSaid
from ipmpi.protocol.inquiries import RUNNING, RankStack, StackFrame
from ipmpi.protocol.mpicalls import MpiCall
from ipmpi.protocol.operations import Nothing


class Session:
    """A session whose thread is this one, and whose time passes in :meth:`until`."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.engines = [0, 1]
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.asked: list[tuple[float, m.AskAgents]] = []
        self.answer: Any = [[], []]
        self.answers: list[Any] = []
        """The next answers, before ``answer`` is given again."""

    def request(self, make: Callable[[int], m.AnyMessage]) -> Future[Any]:
        message = make(1)
        assert isinstance(message, m.AskAgents)
        self.asked.append((self.now, message))
        future: Future[Any] = Future()
        answer = self.answers.pop(0) if self.answers else self.answer
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    def post(self, call: Callable[[], object]) -> None:
        call()

    def post_later(self, seconds: float, call: Callable[[], object]) -> None:
        self.timers.append((self.now + seconds, call))

    def until(self, when: float) -> None:
        """Let time pass."""
        while (due := [timer for timer in self.timers if timer[0] <= when]) != []:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = when

    def times(self) -> list[float]:
        return [when for when, _ in self.asked]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    session = Session()
    monkeypatch.setattr(time, "monotonic", lambda: session.now)
    monkeypatch.setattr(hangwatch, "say", lambda text: None)
    return session


@pytest.fixture
def settings() -> WaitSettings:
    return WaitSettings()


@pytest.fixture
def watch(session: Session, settings: WaitSettings) -> HangWatch:
    return HangWatch(session, settings)


def command(order: list[int] | None = None) -> CommandFuture:
    return CommandFuture([SoFar([0, 1] if order is None else order)], [], [1])


def places(*calls: str) -> Any:
    """An answer in which each engine is in a call of this name."""
    made = [MpiCall("comm", 1, name, None, "", None, None, None, "a.py", 5, "f", 60.0, True) for name in calls]
    frames = [StackFrame("f", "a.py", 5)]
    stacks = [RankStack(RUNNING, 0, -1, "execute", 60, frames, "", [call]) for call in made]
    return [[[[engine], inquiries.encode(stack)] for engine, stack in enumerate(stacks)], []]


def test_engines_are_asked_halfway_and_at_the_end(session: Session, watch: HangWatch) -> None:
    watch.watch(command(), "execute('step()')")
    session.until(129)
    assert session.times() == []
    session.until(161)
    assert session.times() == [130, 160]
    assert session.asked[0][1].targets == [0, 1]
    session.until(221)
    assert session.times() == [130, 160, 190, 220], "as long as it runs, and nothing was said"
    assert session.notices == []


def test_a_notice_comes_once_for_a_command(session: Session, watch: HangWatch) -> None:
    first = command()
    watch.watch(first, "execute('step()')")
    session.answer = places("Bcast", "Allreduce")
    session.until(131)
    (notice,) = session.notices
    assert notice == (
        "execute('step()'): no progress for 60 s: rank 0 is in Bcast #1 (a.py:5); "
        "rank 1 is in Allreduce #1 (a.py:5). mec.where() shows more"
    )
    session.until(1000)
    assert len(session.asked) == len(session.notices) == 1
    assert session.timers == []
    first.set_result([])
    watch.watch(command(), "execute('more()')")
    session.until(1031)
    assert len(session.notices) == 2


def test_a_timer_keeps_nothing_of_a_command_that_has_ended(session: Session, watch: HangWatch) -> None:
    future = command()
    left = weakref.ref(future)
    watch.watch(future, "push")
    future.set_result([])
    del future
    gc.collect()
    assert len(session.timers) == 1
    assert left() is None


def test_short_commands_ask_nobody_and_set_one_timer(session: Session, watch: HangWatch) -> None:
    for _ in range(1000):
        future = command()
        watch.watch(future, "push")
        future.set_result([])
    assert len(session.timers) == 1
    session.until(200)
    assert (session.timers, session.asked) == ([], [])
    watch.watch(command(), "push")
    session.until(231)
    assert session.times() == [230]


def test_only_those_that_have_not_answered_are_asked(session: Session, watch: HangWatch) -> None:
    future = command()
    watch.watch(future, "push")
    future.so_far[0].add([EngineReply(0, False, Nothing(), [], ("EngineLost", "it has died"))], [0, 1])
    session.answer = places("Bcast")
    session.answer[0][0][0] = [1]
    session.until(131)
    assert session.asked[0][1].targets == [1]
    assert "rank 1 is in Bcast #1 (a.py:5); rank 0 has raised EngineLost: it has died" in session.notices[0]


def test_functions_of_c_are_asked_for_of_one_engine_if_others_have_raised(
    session: Session, watch: HangWatch
) -> None:
    future = command([0, 1, 2])
    watch.watch(future, "execute('lmp.run()')")
    failed = EngineReply(2, False, Nothing(), [], ("NameError", "name 'x' is not defined"))
    inside = RankStack(RUNNING, 0, -1, "execute", 60, [StackFrame("run", "lammps.py", 5, "lib.command(x)")])
    native = RankStack(RUNNING, 0, -1, "execute", 60, [StackFrame("MPI_Wait", "libmpi.so", 0), *inside.frames])
    session.answer = [[[[0, 1], inquiries.encode(inside)]], []]
    session.until(161)
    assert len(session.asked) == 2, "nobody has raised, and they may compute"
    future.so_far[0].add([failed], [0, 1, 2])
    session.answers = [session.answer, [[[[0], inquiries.encode(native)]], []]]
    session.until(191)
    asked = [(message.targets, inquiries.decode_question(message.question)) for _, message in session.asked[2:]]
    assert [targets for targets, _ in asked] == [[0, 1], [0]]
    assert [isinstance(q, inquiries.ReadStacks) and q.native for _, q in asked] == [False, True]
    assert session.notices == [
        "execute('lmp.run()'): no progress seen for 30 s: ranks [0-1] are in Wait (lammps.py:5); "
        "rank 2 has raised NameError: name 'x' is not defined. mec.where() shows more"
    ]


def test_engines_whose_c_code_computes_are_left_alone(session: Session, watch: HangWatch) -> None:
    future = command([0, 2])
    watch.watch(future, "push")
    future.so_far[0].add([EngineReply(2, False, Nothing(), [], ("NameError", "x"))], [0, 2])
    inside = RankStack(RUNNING, 0, -1, "execute", 60, [StackFrame("run", "lammps.py", 5, "lib.command(x)")])
    native = RankStack(RUNNING, 0, -1, "execute", 60, [StackFrame("compute", "liblammps.so", 0), *inside.frames])
    once = [[[[0], inquiries.encode(inside)]], []]
    session.answers = [once, once, [[[[0], inquiries.encode(native)]], []]]
    session.until(161)
    assert len(session.asked) == 3
    assert session.notices == []


def test_a_command_for_all_asks_about_all(session: Session, watch: HangWatch) -> None:
    watch.watch(CommandFuture([SoFar(None)], [], [1]), "push")
    session.until(131)
    assert session.asked[0][1].targets == [0, 1]


def test_a_shorter_time_holds_at_once_and_none_is_never(
    session: Session, watch: HangWatch, settings: WaitSettings
) -> None:
    watch.watch(command(), "push")
    settings.hang_after = 2.0
    watch.settings_changed()
    session.until(102.5)
    assert session.times() == [101, 102]
    settings.hang_after = None
    watch.settings_changed()
    watch.watch(command(), "push")
    session.until(1000)
    assert session.times() == [101, 102]
    settings.hang_after = 0.0
    watch.watch(command(), "push")
    session.until(1002)
    assert len(session.asked) < 8, "not all the time"


def test_a_command_that_waits_for_another_is_not_judged_and_one_elsewhere_is(
    session: Session, watch: HangWatch
) -> None:
    first = command([0])
    watch.watch(first, "first")
    watch.watch(command([0, 1]), "queued")
    watch.watch(command([1]), "queued behind that")
    watch.watch(command([2]), "elsewhere")
    session.until(131)
    assert [message.targets for _, message in session.asked] == [[0], [2]]
    first.so_far[0].add([EngineReply(0, True, Nothing(), [], None)], [0])
    first.set_result([])
    session.until(161)
    assert [message.targets for _, message in session.asked][2:] == [[0, 1], [2]]


def test_a_question_that_fails_is_asked_again(session: Session, watch: HangWatch) -> None:
    watch.watch(command(), "push")
    session.answer = errors.InvalidEngineID("Engine with id 1 is not registered")
    session.until(131)
    session.answer = [[[[0], b"\xff"]], []]
    session.until(161)
    session.answer = places("Bcast", "Reduce")
    session.until(191)
    assert len(session.notices) == 1


def test_what_is_no_command_is_not_watched(session: Session, watch: HangWatch) -> None:
    watch.watch(Future(), "queue_status")
    assert session.timers == []


def test_a_long_command_is_named_in_short(session: Session, watch: HangWatch) -> None:
    watch.watch(command(), f"execute({'x = 1; ' * 20!r})")
    session.answer = places("Bcast", "Reduce")
    session.until(131)
    assert session.notices[0].partition(": no progress")[0] == f"execute('{'x = 1; ' * 20}"[:44] + "...)"


def test_who_waits_for_a_rank_in_a_debugger_does_not_hang(session: Session, watch: HangWatch) -> None:
    future = command()
    talk = DebuggerTalk(1, lambda line: None, lambda seconds, call: None)
    future.talks.append(talk)
    watch.watch(future, "execute('step()')")
    session.answer = places("Bcast", "Allreduce")
    talk.said(DebuggerSaid(1, 0, PROMPT, "", "(Pdb) ", "a.py:5 in f"))
    session.until(500)
    assert (session.asked, session.notices) == ([], [])
    talk.answer([0], "c\n")
    session.until(700)
    assert len(session.notices) == 1
