"""Ending commands, step by step: what is asked for, what is told, and how the call ends."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from ipmpi.client.session import escalation
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.escalation import (
    ANSWERED_WITHIN,
    FIRST_LOOK,
    LONGEST_PAUSE,
    SECOND_LOOK,
    Escalation,
    timed_out,
)
from ipmpi.client.session.partial import CommandFuture, SoFar, WaitSettings
from ipmpi.client.session.standstill import RESTART
from ipmpi.errors import ClientError
from ipmpi.protocol import inquiries, messages as m, operations as o
from ipmpi.protocol.inquiries import RUNNING, RankStack, StackFrame

STEP = StackFrame("step", "/home/me/heat.py", 41)
BARRIER = RankStack(RUNNING, frames=[StackFrame("PMPI_Barrier", "libmpi.so", 0), STEP])
COMPUTES = RankStack(RUNNING, frames=[STEP])


class Timer:
    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Stage:
    """A session whose answers and time the test gives, with a call of four engines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, order: Sequence[int] | None = (0, 1, 2, 3)) -> None:
        self.told: list[str] = []
        monkeypatch.setattr(escalation, "say", self.told.append)
        self.asked: list[tuple[Any, concurrent.futures.Future[Any]]] = []
        self.timers: list[tuple[float, Timer]] = []
        self.so_far = SoFar(order)
        self.future = CommandFuture([self.so_far], numbers=[7])
        self.settings = WaitSettings(engines=lambda: range(4))
        self.ended: dict[int, tuple[str, str]] = {}
        self.escalation = Escalation(cast(Any, self), self.future, "execute('step()')", self.settings)

    # --- what a session has --------------------------------------------------------------------------------

    def request(self, make: Callable[[int], m.AnyMessage]) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.asked.append((make(len(self.asked) + 1), future))
        return future

    def post(self, call: Callable[[], object]) -> None:
        call()

    def post_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        self.timers.append((seconds, Timer(call)))
        return self.timers[-1][1]

    def give_up(self, number: int, engines: Sequence[int], error: str, text: str) -> None:
        assert number == 7
        self.ended.update(dict.fromkeys(engines, (error, text)))
        self.answers(*engines, ok=False)

    # --- what the test does --------------------------------------------------------------------------------

    def answers(self, *engines: int, ok: bool = True) -> None:
        self.so_far.add([EngineReply(engine, ok, o.Nothing(), []) for engine in engines], [0, 1, 2, 3])
        if len(self.so_far.done) == 4:
            self.future.set_result([])

    def passes(self) -> float:
        """Let the next timer end; return its seconds."""
        seconds, timer = self.timers.pop(0)
        assert not timer.is_cancelled
        timer.call()
        return seconds

    def replies(self, kind: type, value: object) -> Any:
        """Answer what was asked last; return the question."""
        message, future = self.asked[-1]
        assert isinstance(message, kind)
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)
        return message

    def sees(self, stacks: dict[int, RankStack]) -> None:
        """Answer where engines are."""
        answers = [[[engine], inquiries.encode(stack)] for engine, stack in stacks.items()]
        message = self.replies(m.AskAgents, [answers, []])
        assert inquiries.decode_question(message.question) == inquiries.ReadStacks(native=True)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads run when they are started."""

    class Thread:
        def __init__(self, target: Callable[[], object], **_: object) -> None:
            self.start = target

    monkeypatch.setattr(escalation.threading, "Thread", Thread)


# --- timeouts ----------------------------------------------------------------------------------------------------


def test_a_call_that_ends_in_time_costs_nothing_more(stage: Stage) -> None:
    stage.escalation.after(30)
    ((seconds, timer),) = stage.timers
    assert seconds == 30
    stage.answers(0, 1, 2, 3)
    assert timer.is_cancelled
    assert not stage.asked


def test_engines_that_react_have_ended(stage: Stage) -> None:
    stage.answers(3)
    stage.escalation.after(30)
    assert stage.passes() == 30
    assert stage.told == ["execute('step()') has not ended within 30 s: interrupting engines 0-2"]
    assert stage.replies(m.Interrupt, [[0, 1, 2], []]) == m.Interrupt(1, None, [7])
    assert len(stage.asked) == 1
    assert not stage.ended, "their answers come by themselves"


def test_engines_that_do_not_react_are_left(stage: Stage) -> None:
    stage.escalation.after(30)
    stage.passes()
    stage.answers(0, 1, ok=False)
    stage.replies(m.Interrupt, [[0, 1], [[[2, 3], "x"]]])
    stage.sees({2: BARRIER, 3: COMPUTES})
    error, text = stage.ended[2]
    assert stage.ended == {2: (error, text), 3: (error, text)}
    assert error == "CommandTimeout"
    assert text == (
        "it has not ended within 30 s, nor after an interrupt: execute('step()') still runs. [2] waits for other "
        "ranks in MPI_Barrier at heat.py:41 in step: they would end it, an interrupt cannot; [3] is in Python at "
        f"heat.py:41 in step, which has caught the interrupt. {RESTART}"
    )
    assert stage.future.done()


def test_the_set_is_restarted_if_the_user_wants_that(stage: Stage) -> None:
    stage.settings.on_timeout = "restart"
    stage.escalation.after(30)
    stage.passes()
    stage.answers(0, 1, ok=False)
    stage.replies(m.Interrupt, [[0, 1], [[[2, 3], "x"]]])
    stage.sees({2: BARRIER, 3: BARRIER})
    assert stage.told[-1] == (
        "engines 2-3 did not react: [2-3] wait for other ranks in MPI_Barrier at heat.py:41 in step: they would "
        "end it, an interrupt cannot. Restarting the set"
    )
    assert stage.replies(m.Restart, [0, 1, 2, 3]) == m.Restart(3, [2, 3])
    assert not stage.ended, "the controller tells that they are gone"


def test_a_set_that_cannot_be_restarted_is_left(stage: Stage) -> None:
    stage.settings.on_timeout = "restart"
    stage.escalation.after(30)
    stage.passes()
    stage.answers(0, 1, ok=False)
    stage.replies(m.Interrupt, [[0, 1], [[[2, 3], "x"]]])
    stage.sees({})
    stage.replies(m.Restart, ClientError("this set was started by hand"))
    assert stage.told[-1] == "they are not restarted: this set was started by hand"
    assert sorted(stage.ended) == [2, 3]


@pytest.mark.usefixtures("at_once")
def test_engines_that_wait_are_freed_if_the_user_wants_that(stage: Stage) -> None:
    """Their answers come by themselves; those that could not be freed are left."""
    asked: list[Sequence[int]] = []

    def free(engines: Sequence[int]) -> str:
        asked.append(engines)
        stage.answers(2, ok=False)
        return "engine 0 revoked MPI.COMM_WORLD; engine 3 did not end"

    stage.settings.on_timeout, stage.settings.free = "free", free
    stage.escalation.after(30)
    stage.passes()
    stage.answers(0, 1, ok=False)
    stage.replies(m.Interrupt, [[0, 1], [[[2, 3], "x"]]])
    stage.sees({2: BARRIER, 3: BARRIER})
    assert asked == [[2, 3]]
    assert stage.told[-2].endswith("at heat.py:41 in step: they would end it, an interrupt cannot. Freeing them")
    assert stage.told[-1] == "engine 0 revoked MPI.COMM_WORLD; engine 3 did not end"
    assert not stage.ended, "answers may be on their way"
    assert stage.passes() == ANSWERED_WITHIN
    assert list(stage.ended) == [3]
    assert "engine 3 did not end" in stage.ended[3][1]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("freed", [True, False])
def test_those_that_wait_for_failed_ones_are_freed_if_the_user_wants_that(stage: Stage, freed: bool) -> None:
    def free(engines: Sequence[int]) -> str:
        assert engines == [0]
        if not freed:
            raise ClientError("this is MPICH")
        stage.answers(0, ok=False)
        return "engine 1 revoked it"

    stage.settings.on_failure, stage.settings.free = "free", free
    stage.escalation.watch_failures()
    stage.answers(1, 2, 3, ok=False)
    for _ in range(2):
        stage.passes()
        stage.sees({0: BARRIER})
    told = "engine 1 revoked it" if freed else "they were not freed: this is MPICH"
    assert stage.told == ["engines 1-3 failed, and the others wait in MPI: freeing engine 0", told]
    stage.passes()
    assert list(stage.ended) == ([] if freed else [0])


def test_engines_are_named_before_any_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, order=None)
    stage.escalation.after(1)
    stage.passes()
    assert stage.told == ["execute('step()') has not ended within 1 s: interrupting engines 0-3"]


def test_a_lost_session_ends_it_all(stage: Stage) -> None:
    stage.escalation.after(1)
    stage.passes()
    stage.replies(m.Interrupt, ClientError("the session is over"))
    assert len(stage.asked) == 1


def test_interrupts_by_a_timeout_are_timeouts() -> None:
    hit = o.Failed("builtins.KeyboardInterrupt", "", "Traceback ...\nKeyboardInterrupt\n")
    other = EngineReply(2, False, o.Failed("NameError", "x", "..."), [])
    found = timed_out(
        [
            EngineReply(0, True, o.Nothing(), []), EngineReply(1, False, hit, [b"pickled"]), other,
            EngineReply(3, False, o.Nothing(), [], ("KeyboardInterrupt", "f() had not begun")),
        ],
        30,
    )  # fmt: skip
    assert found[0].ok
    assert found[1].outcome == o.Failed("CommandTimeout", "it was interrupted after 30 s", hit.traceback)
    assert not found[1].body
    assert found[2] == other
    assert found[3].undone == ("CommandTimeout", "f() had not begun within 30 s")


# --- cancelling ------------------------------------------------------------------------------------------


def test_cancelling_names_those_that_go_on(stage: Stage) -> None:
    stage.escalation.cancel()
    stage.answers(0, 1, 2, ok=False)
    stage.replies(m.Interrupt, [[0, 1, 2], [[[3], "x"]]])
    stage.sees({3: BARRIER})
    assert stage.told == [
        "engine 3 did not react: execute('step()') still runs. [3] waits for other ranks in MPI_Barrier at "
        f"heat.py:41 in step: they would end it, an interrupt cannot. {RESTART}"
    ]
    assert not stage.ended, "its result can still come"


# --- failures --------------------------------------------------------------------------------------------


def test_those_that_wait_for_a_failed_rank_are_not_waited_for(stage: Stage) -> None:
    stage.escalation.watch_failures()
    stage.answers(1, 2, ok=False)
    assert stage.passes() == FIRST_LOOK
    stage.sees({0: BARRIER, 3: BARRIER})
    assert not stage.ended, "a collective may take a second"
    assert stage.passes() == SECOND_LOOK
    stage.sees({0: BARRIER, 3: BARRIER})
    error, text = stage.ended[0]
    assert stage.ended == {0: (error, text), 3: (error, text)}
    assert error == "PeerError"
    assert text.startswith(
        "engines 1-2 failed, and nothing ends this rank's wait: [0, 3] wait for other ranks in MPI_Barrier at "
        "heat.py:41 in step: "
    )
    assert FIRST_LOOK + SECOND_LOOK < 4, "with two questions, the prompt is back in less than 5 s"


def test_those_that_compute_are_waited_for(stage: Stage) -> None:
    stage.escalation.watch_failures()
    stage.answers(1, 2, ok=False)
    pauses = []
    for _ in range(8):
        pauses.append(stage.passes())
        stage.sees({0: BARRIER, 3: COMPUTES})
    assert not stage.ended
    assert pauses == sorted(pauses), "each look halts them for a moment, so looks become rare"
    assert pauses[-1] == LONGEST_PAUSE


def test_those_that_move_on_are_waited_for(stage: Stage) -> None:
    elsewhere = RankStack(RUNNING, frames=[StackFrame("PMPI_Bcast", "libmpi.so", 0), STEP])
    stage.escalation.watch_failures()
    stage.answers(1, 2, 3, ok=False)
    for stack in (BARRIER, elsewhere, BARRIER):
        stage.passes()
        stage.sees({0: stack})
    assert not stage.ended
    stage.passes()
    stage.sees({0: BARRIER})
    assert list(stage.ended) == [0]


def test_a_user_may_want_to_wait(stage: Stage) -> None:
    stage.settings.on_failure = "wait"
    stage.escalation.watch_failures()
    stage.answers(1, ok=False)
    stage.passes()
    assert not stage.asked


def test_nothing_is_asked_if_all_have_ended_meanwhile(stage: Stage) -> None:
    stage.escalation.watch_failures()
    stage.answers(1, ok=False)
    stage.answers(2, ok=False)
    stage.answers(0, 3)
    assert len(stage.timers) == 1
    stage.passes()
    assert not stage.asked
