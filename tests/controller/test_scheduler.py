"""The task farm: order, retries, lost engines, aborts, seen through the router that drives it."""

from __future__ import annotations

from typing import Any

import pytest

from ipmpi import errors
from ipmpi.controller.effects import Decline, Forward, Send
from ipmpi.controller.router import Router
from ipmpi.controller.scheduler import POISON, Scheduler
from ipmpi.controller.work import TaskWork
from ipmpi.protocol import messages as m

TC, MEC, SET = 1, 2, 10
BIG = 500_000


class Farm:
    """A router with engines, what it says to whom, and answers for it."""

    def __init__(self, engines: int) -> None:
        self.router = Router()
        self.given: dict[int, m.Dispatch] = {}
        self.heard: list[Any] = []
        self.labels: list[int] = []
        self.register(SET, engines)

    def register(self, key: int, engines: int) -> None:
        infos = [m.EngineInfo(rank, rank, "h", 1) for rank in range(engines)]
        if infos:
            self.router.register(key, m.Register(infos, "", ""))
        self.flush()

    def submit(self, *numbers: int, retries: int = 0, stream: int = 0) -> None:
        for number in numbers:
            message = m.SubmitTask(number, f"t{number}", str(number).encode(), [BIG] if stream else [], retries)
            self.router.submit_task(TC, message, [], stream, 5.0)
        self.flush()

    def flush(self) -> None:
        for effect in self.router.flush():
            pairs = effect.sinks if isinstance(effect, Forward) else ()
            pairs = ((effect.to, effect.message),) if isinstance(effect, Send) else pairs
            for _, message in pairs:
                if isinstance(message, m.Dispatch):
                    for rank in message.ranks:
                        self.given[rank] = message
                    if message.method == "task":
                        self.labels.append(int(message.operation))
                elif not isinstance(message, m.Registered):
                    self.heard.append(message)
            if isinstance(effect, Decline):
                self.heard.append(effect)

    def answer(self, rank: int, *, ok: bool = True, stream: int = 0) -> None:
        message = m.Result(self.given.pop(rank).id, [rank], ok, b"out", [BIG] if stream else [])
        self.router.result(SET, message, [], stream, 7.0)
        self.flush()

    def status(self) -> tuple[list[int], list[int], int, int]:
        status = self.router.scheduler.status()
        return status["scheduled"], status["pending"], status["succeeded"], status["failed"]


def test_first_in_first_out_on_idle_engines() -> None:
    farm = Farm(2)
    farm.submit(1, 2, 3, 4)
    assert farm.labels == [1, 2]
    assert farm.status() == ([3, 4], [1, 2], 0, 0)
    farm.answer(1)
    farm.answer(0)
    assert farm.labels == [1, 2, 3, 4]
    assert farm.heard == [m.TaskDone(n, e, True, b"out", 5.0, 7.0) for n, e in ((2, 1), (1, 0))]
    assert farm.status() == ([], [3, 4], 2, 0)


def test_tasks_wait_for_engines() -> None:
    farm = Farm(0)
    farm.submit(1)
    assert farm.status() == ([1], [], 0, 0)
    farm.register(SET, 1)
    assert farm.labels == [1]


def test_commands_come_before_tasks() -> None:
    farm = Farm(1)
    farm.submit(1, 2)
    farm.router.command(MEC, m.Command(1, [0], "execute", "c", b""), [], 0)
    farm.flush()
    farm.answer(0)
    assert farm.given[0].method == "execute"
    farm.answer(0)
    assert farm.labels == [1, 2]


def test_busy_engines_get_no_task() -> None:
    farm = Farm(2)
    farm.router.command(MEC, m.Command(1, [0, 1], "execute", "c", b""), [], 0)
    farm.submit(1)
    assert farm.labels == []
    farm.answer(1)
    assert farm.labels == [1]


def test_failed_tasks_are_retried_at_the_tail() -> None:
    farm = Farm(1)
    farm.submit(1, retries=1)
    farm.submit(2, 3)
    farm.answer(0, ok=False)
    farm.answer(0)
    farm.answer(0)
    assert farm.labels == [1, 2, 3, 1]
    farm.answer(0, ok=False)
    assert [(done.id, done.ok) for done in farm.heard] == [(2, True), (3, True), (1, False)]
    assert farm.status() == ([], [], 2, 1)


def test_lost_engine_costs_no_retry_and_puts_its_task_first() -> None:
    farm = Farm(2)
    farm.submit(1, 2, 3)
    farm.router.ranks_lost(SET, [0], "killed")
    farm.flush()
    assert farm.status()[0] == [1, 3]
    farm.answer(1)
    assert farm.labels == [1, 2, 1]
    farm.answer(1)
    assert [done.id for done in farm.heard] == [2, 1]


def test_a_task_that_takes_engines_down_is_given_up() -> None:
    farm = Farm(POISON + 1)
    farm.submit(1, retries=10)
    for _ in range(POISON):
        (rank,) = farm.given
        farm.given.clear()
        farm.router.ranks_lost(SET, [rank], "killed")
        farm.flush()
    (undone,) = farm.heard
    assert (undone.id, undone.error) == (1, "EngineLost")
    assert undone.text.startswith("task 1 (t1) was given up: 3 engines were lost while it ran; engine 2 (rank 2")
    assert farm.status() == ([], [], 0, 1)
    assert farm.router._works == {}


# --- abort -----------------------------------------------------------------------------------------------


def test_abort_while_waiting() -> None:
    farm = Farm(1)
    farm.submit(1, 2)
    assert farm.router.abort_task(TC, 2) == "aborted"
    farm.flush()
    assert farm.heard == [m.TaskUndone(2, "TaskAborted", "task 2 was aborted (aborted)")]
    farm.answer(0)
    assert farm.labels == [1]
    assert farm.status() == ([], [], 1, 1)
    assert farm.router._works == {}


@pytest.mark.parametrize("ok", [True, False])
def test_abort_while_running(ok: bool) -> None:
    farm = Farm(1)
    farm.submit(1, retries=3)
    assert farm.router.abort_task(TC, 1) == "running"
    farm.submit(2)
    assert farm.labels == [1]
    farm.answer(0, ok=ok)
    assert farm.labels == [1, 2], "its engine is busy until it answers"
    assert [type(item) for item in farm.heard] == [m.TaskUndone]
    assert farm.status() == ([], [2], 0, 1), "counted once"


def test_abort_when_done_or_unknown() -> None:
    farm = Farm(1)
    farm.submit(1)
    farm.answer(0)
    assert farm.router.abort_task(TC, 1) == "unknown"
    assert farm.router.abort_task(MEC, 1) == "unknown"
    assert farm.status() == ([], [], 1, 0)


def test_abort_while_running_and_its_engine_is_lost() -> None:
    farm = Farm(1)
    farm.submit(1)
    farm.router.abort_task(TC, 1)
    farm.router.ranks_lost(SET, [0], "killed")
    farm.flush()
    assert [item.error for item in farm.heard] == ["TaskAborted"]
    assert farm.status() == ([], [], 0, 1)
    assert farm.router._works == {}


def test_abort_while_its_engine_waits_for_the_body_again() -> None:
    farm = Farm(1)
    farm.submit(1, stream=5, retries=1)
    farm.answer(0, ok=False)
    assert farm.heard == [m.SendBodyAgain(1)]
    assert farm.router.abort_task(TC, 1) == "running"
    farm.submit(2)
    assert farm.labels == [1, 2], "the engine does not wait for a body that will not come"
    farm.router.body_again(TC, m.BodyAgain(1, [BIG]), 6)
    farm.flush()
    assert farm.heard[-1] == Decline(TC, 6)


def test_number_of_an_aborted_task_may_be_used_again() -> None:
    farm = Farm(1)
    farm.submit(1)
    farm.router.abort_task(TC, 1)
    farm.submit(1)
    farm.answer(0)
    assert farm.labels == [1, 1]
    farm.answer(0)
    assert [type(item) for item in farm.heard] == [m.TaskUndone, m.TaskDone]


def test_number_that_is_in_use() -> None:
    farm = Farm(0)
    farm.submit(1)
    with pytest.raises(errors.ClientError, match="task 1 is under way"):
        farm.submit(1)
    assert farm.status()[0] == [1]


# --- bodies ----------------------------------------------------------------------------------------------


def test_engine_is_busy_until_the_streamed_result_has_passed() -> None:
    farm = Farm(1)
    farm.submit(1, 2)
    farm.answer(0, stream=8)
    assert farm.labels == [1]
    assert farm.status() == ([2], [], 1, 0)
    farm.router.forward_ended(SET, 8)
    farm.flush()
    assert farm.labels == [1, 2]


def test_engine_lost_while_the_streamed_result_passes_is_not_asked_twice() -> None:
    farm = Farm(2)
    farm.submit(1)
    farm.answer(0, stream=8)
    farm.router.ranks_lost(SET, [0], "killed")
    farm.router.forward_ended(SET, 8)
    farm.submit(2)
    assert farm.labels == [1, 2]
    farm.answer(1)
    assert [type(item) for item in farm.heard] == [m.TaskDone, m.TaskDone]
    assert farm.router._works == {}


def test_lost_client() -> None:
    farm = Farm(2)
    farm.submit(1, 2, 3)
    farm.submit(4, stream=5)
    farm.router.client_lost(TC)
    farm.answer(0)
    farm.answer(1, ok=False)
    assert farm.labels == [1, 2]
    assert farm.heard == [Decline(TC, 5)]
    assert farm.status() == ([], [], 0, 4)
    assert farm.router._works == {}
    assert farm.router.scheduler._by_name == {}


def test_lost_client_whose_body_was_asked_for_again() -> None:
    farm = Farm(1)
    farm.submit(1, stream=5, retries=1)
    farm.answer(0, ok=False)
    farm.router.client_lost(TC)
    farm.router.submit_task(MEC, m.SubmitTask(9, "t", b"9"), [], 0, 0.0)
    farm.flush()
    assert farm.labels == [1, 9]


def test_scheduler_alone_skips_aborted_tasks() -> None:
    scheduler = Scheduler()
    for number in (1, 2):
        scheduler.submit(TaskWork(number, TC, number, "task", "t", b"", []))
    assert len(scheduler) == 2
    scheduler.abort(TC, 1)
    task = scheduler.next()
    assert task is not None
    assert task.id == 2
    assert scheduler.next() is None
