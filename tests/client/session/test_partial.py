"""A call of which some engines have failed, and others do not answer, says so."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ipmpi.client.session import callwait
from ipmpi.client.session.calls import Calls, combined
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.partial import CommandFuture, Partial, SoFar, seconds_until_told
from ipmpi.client.session.progress import StatusLine
from ipmpi.client.session.results import PendingResult
from ipmpi.errors import ClientError
from ipmpi.protocol import operations as o

MPI = o.Failed("NameError", "name 'MPI' is not defined", "Traceback\nNameError: name 'MPI' is not defined\n")
LOST = ("EngineLost", "engine 9 is gone")


def good(engine: int) -> EngineReply:
    return EngineReply(engine, True, o.Nothing(), [])


def bad(engine: int, outcome: o.Failed = MPI) -> EngineReply:
    return EngineReply(engine, False, outcome, [])


class Call:
    """A call, and a thread that waits for it."""

    def __init__(self, order: list[int], after: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order = order
        self.so_far = SoFar(order)
        self.future = CommandFuture([self.so_far])
        self.partial = Partial(self.future, "execute", after)
        self.told: list[str] = []
        self.heard = threading.Event()
        monkeypatch.setattr(StatusLine, "tell", lambda _, text: self._hear(text.removeprefix("ipmpi: ")))
        self.thread = threading.Thread(target=callwait.wait_and_tell, args=(self.future, self.partial))
        self.thread.start()

    def _hear(self, text: str) -> None:
        self.told.append(text)
        self.heard.set()

    def answers(self, *replies: EngineReply) -> None:
        self.so_far.add(replies, self.order)

    def ends(self) -> None:
        self.future.set_result([])
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Call]:
    return lambda order, after=0.0: Call(order, after, monkeypatch)


def test_who_still_runs_is_said_where_a_wait_has_an_end() -> None:
    so_far = SoFar([0, 1, 2, 3])
    partial = Partial(CommandFuture([so_far]), "execute", None)
    so_far.add([good(1), bad(0)], [0, 1, 2, 3])
    assert partial.still_running == ": [2-3] still running (0 s)"
    so_far.add([good(2), good(3)], [0, 1, 2, 3])
    assert partial.still_running == ""


def test_one_line_for_all_who_failed_alike(call: Callable[..., Call]) -> None:
    waiting = call([0, 1, 2, 3])
    waiting.answers(bad(1), bad(2), bad(3))
    assert waiting.heard.wait(5)
    waiting.ends()
    assert waiting.told == [
        "[1-3] NameError: name 'MPI' is not defined · [0] still running (0 s). "
        "Ctrl-C interrupts running code, and mec.restart() ends waits inside MPI"
    ]


def test_nothing_is_said_while_nothing_has_failed_or_when_all_have_answered(call: Callable[..., Call]) -> None:
    waiting = call([0, 1])
    waiting.answers(good(0))
    waiting.ends()
    other = call([0, 1], 60.0)
    other.answers(bad(0))
    other.ends()
    assert waiting.told == other.told == []


def test_it_can_be_switched_off(call: Callable[..., Call]) -> None:
    waiting = call([0, 1], None)
    waiting.answers(bad(0))
    waiting.ends()
    assert waiting.told == []


def test_the_line_is_short_for_a_thousand_engines_with_many_failures() -> None:
    order = list(range(1000))
    so_far = SoFar(order)
    replies = [bad(n, o.Failed("ValueError", f"{n % 40} " + 1000 * "x" + "\nmore", "")) for n in order[1:]]
    so_far.add([*replies, EngineReply(999, False, o.Nothing(), [], LOST)], order)
    line = Partial(CommandFuture([so_far]), "execute", 0.0).line()
    assert "\n" not in line
    assert "other failures" in line
    assert "[0] still running" in line
    assert len(line) < 6000


def test_what_the_controller_says_of_a_lost_engine() -> None:
    so_far = SoFar([8, 9])
    so_far.add([EngineReply(9, False, o.Nothing(), [], LOST)], [8, 9])
    assert "[9] EngineLost: engine 9 is gone · [8]" in Partial(CommandFuture([so_far]), "m", 0.0).line()


def test_a_pending_result_has_it_as_data() -> None:
    so_far = SoFar(None)
    future = CommandFuture([so_far])
    pending = PendingResult(None, future, lambda replies: replies, "execute")
    assert (pending.done_ids, pending.failures) == ([], {})
    so_far.add([good(2), bad(1)], [0, 1, 2])
    assert pending.done_ids == [1, 2]
    (error,) = pending.failures.values()
    assert isinstance(error, NameError)
    assert list(pending.failures) == [1]
    assert not pending.done()
    so_far.add([good(0)], [0, 1, 2])
    future.set_result([good(0), bad(1), good(2)])
    assert pending.done_ids == [0, 1, 2]


def test_several_commands_of_one_call() -> None:
    first, second = SoFar([0]), SoFar([1])
    whole = combined([CommandFuture([first]), CommandFuture([second])])
    partial = Partial(whole, "scatter", 0.0)
    second.add([bad(1)], [1])
    assert partial.done_ids == [1]
    assert "[0] still running" in partial.line()


def test_what_the_controller_answers_has_no_part() -> None:
    plain: concurrent.futures.Future[Any] = concurrent.futures.Future()
    partial = Partial(plain, "queue_status", 2.0)
    assert (partial.done_ids, partial.failures, partial.has_commands) == ([], {}, False)


def test_the_setting_of_a_client(mec: Any) -> None:
    assert mec.partial_after == 2.0
    mec.partial_after = 5
    assert mec.partial_after == 5.0
    mec.partial_after = None
    assert mec.partial_after is None
    assert isinstance(mec._calls, Calls)


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), 1e300])
def test_impossible_seconds(wrong: float) -> None:
    with pytest.raises(ClientError, match="partial_after must be 0 seconds or more"):
        seconds_until_told(wrong)


@pytest.mark.parametrize("wrong", ["2", True, [2]])
def test_no_seconds(wrong: Any) -> None:
    with pytest.raises(TypeError, match="partial_after must be a number of seconds"):
        seconds_until_told(wrong)
