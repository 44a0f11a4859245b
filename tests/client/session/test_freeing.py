"""Who is asked to revoke, how long the others are waited for, and what is told then."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ipmpi import serialize
from ipmpi.client.session import freeing
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.freeing import FREED_WITHIN, Freed, free
from ipmpi.client.session.standstill import RESTART
from ipmpi.client.session.submission import Submission
from ipmpi.errors import ClientError
from ipmpi.protocol import inquiries, messages as m, operations as o
from ipmpi.protocol.inquiries import RUNNING, RankStack, StackFrame

STEP = StackFrame("step", "/home/me/heat.py", 41)
BARRIER = RankStack(RUNNING, frames=[StackFrame("PMPI_Barrier", "libmpi.so", 0), STEP])
COMPUTES = RankStack(RUNNING, frames=[STEP])


class Controller:
    """Engines 0-2 and 3-4 are sets. ``busy`` ones are where ``stacks`` says; revoking frees the ``reached``."""

    def __init__(self, busy: Sequence[int], reached: Sequence[int] = range(5), trouble: str = "") -> None:
        self.busy = set(busy)
        self.reached = reached
        self.stacks = dict.fromkeys(range(5), BARRIER)
        self.trouble = trouble
        self.refusal: o.Failed | None = None
        self.revoked: int | None = None
        self.ran: list[tuple[str, list[int]]] = []

    def request(self, make: Callable[[int], m.AnyMessage]) -> concurrent.futures.Future[Any]:
        message = make(1)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        if isinstance(message, m.QueueStatus):
            future.set_result([[[engine], "x" if engine in self.busy else None, []] for engine in range(5)])
        elif isinstance(message, m.ClusterInfo):  # one by one, as if there were very many
            engine = message.after + 1
            rows = [{"id": engine, "set": engine // 3}] if engine < 5 else []
            future.set_result({"engines": rows, "more": engine < 4})
        else:
            assert isinstance(message, m.AskAgents)
            assert message.targets is not None
            answers = [[[engine], inquiries.encode(self.stacks[engine])] for engine in message.targets]
            future.set_result([answers, []])
        return future

    def command(self, submission: Submission) -> concurrent.futures.Future[list[EngineReply]]:
        operation, engines = submission.operation, submission.targets or []
        assert isinstance(operation, o.EndWaits)
        self.ran.append((operation.step, engines))
        outcome: Any = self.refusal or o.Value()
        body: list[Any] = []
        if operation.step == "revoke" and self.refusal is None:
            self.busy -= set(self.reached)
            self.revoked, outcome = engines[0], o.Nothing()
        future: concurrent.futures.Future[list[EngineReply]] = concurrent.futures.Future()
        replies = []
        for engine in engines:
            if operation.step != "revoke":
                told = self.trouble if operation.step == "replace" else engine == self.revoked
                body = list(serialize.dumps(told))
            replies.append(EngineReply(engine, self.refusal is None, outcome, body))
        future.set_result(replies)
        return future


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time: sleeping passes it."""
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(freeing.time, "sleep", sleep)
    monkeypatch.setattr(freeing.time, "monotonic", lambda: now[0])
    return now


def test_an_idle_engine_of_the_set_revokes_and_then_all_get_a_new_communicator() -> None:
    controller = Controller([0, 2, 3])
    freed = free(controller, [0])
    assert controller.ran == [("revoke", [1]), ("replace", [0, 1, 2])]
    assert freed == Freed([0, 2], freed.seconds, [1], [])
    assert str(freed) == (
        "engine 1 revoked MPI.COMM_WORLD; which has freed engines 0, 2 in 0.02 s; in Python it stands for a new "
        "communicator; that of C libraries is of no use any more"
    )


def test_each_set_frees_its_own() -> None:
    controller = Controller([0, 3])
    assert free(controller, None)._replace(seconds=0) == Freed([0, 3], 0, [1, 4], [])
    assert [engines for _, engines in controller.ran] == [[1], [0, 1, 2], [4], [3, 4]]


def test_where_nobody_is_busy_nobody_waits() -> None:
    controller = Controller([])
    assert str(free(controller, None)) == "no engine waits in MPI"
    assert controller.ran == [("ask", [0, 1, 2]), ("ask", [3, 4])]


def test_those_that_it_does_not_reach_are_told_and_nothing_is_replaced(clock: list[float]) -> None:
    """That takes all ranks: the others would wait for them."""
    controller = Controller([0, 1], reached=[0])
    freed = free(controller, [1])
    assert clock[0] >= 100 + FREED_WITHIN
    assert (freed.engines, freed.still, controller.ran) == ([0], [1], [("revoke", [2])])
    assert str(freed).endswith(
        "engine 1 did not end: [1] waits for other ranks in MPI_Barrier at heat.py:41 in step: they would end it, "
        f"an interrupt cannot; mec.free() replaces it when they have ended, and {RESTART}"
    )
    controller.busy.clear()
    freed = free(controller, [0])
    assert controller.ran[1:] == [("ask", [0, 1, 2]), ("replace", [0, 1, 2])]
    assert str(freed).startswith("engine 2 revoked MPI.COMM_WORLD; in Python it stands for a new communicator")


def test_no_new_communicator() -> None:
    freed = free(Controller([0], trouble="MPI makes no communicators any more: mec.restart()"), None)
    assert str(freed).endswith("; it was not replaced: MPI makes no communicators any more: mec.restart()")


def test_where_all_are_stuck_nobody_can() -> None:
    controller = Controller([0, 1, 2])
    with pytest.raises(ClientError) as caught:
        free(controller, None)
    assert str(caught.value) == (
        "engines 0-2 cannot be freed: only an engine that is idle can revoke the communicator in which they wait, "
        f"and all of engines 0-2 are busy. {RESTART}"
    )
    assert not controller.ran


def test_engines_that_compute_are_left_alone() -> None:
    controller = Controller([0])
    controller.stacks[0] = COMPUTES
    assert str(free(controller, None)) == "no engine waits in MPI"
    controller.stacks[0] = RankStack(RUNNING, note="unreadable")
    assert free(controller, None).engines == [0], "a user has asked for it, and it may wait"


def test_an_mpi_that_cannot_says_so() -> None:
    controller = Controller([0])
    controller.refusal = o.Failed("ipmpi.errors.ClientError", "this is MPICH", "", "")
    with pytest.raises(ClientError, match="this is MPICH"):
        free(controller, None)
