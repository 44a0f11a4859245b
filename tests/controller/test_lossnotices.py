"""What clients and the log are told of lost engines (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Send
from ipmpi.controller.lossnotices import Losses
from ipmpi.protocol import messages as m

CLIENT, SET, OTHER = 1, 7, 8
REASON = "its process ended"


class Tasks:
    """Says which clients have tasks."""

    def __init__(self, clients: Sequence[int]) -> None:
        self.those = list(clients)

    def clients(self) -> list[int]:
        return self.those


class Stage:
    """A set of three engines, one of a single one, and a client with tasks."""

    def __init__(self, *clients: int) -> None:
        self.router = Router(1)
        self.log: list[str] = []
        self.looks = 0
        self.tasks: Any = Tasks(clients)
        self.losses = Losses(self.router, self.tasks, self.log.append, self._look)
        self.router.register(SET, m.Register([m.EngineInfo(r, r, "h", 100 + r) for r in range(3)], "", ""))
        self.router.register(OTHER, m.Register([m.EngineInfo(0, 3, "g", 200)], "", ""))

    def _look(self) -> None:
        self.looks += 1

    def told(self, now: float) -> list[tuple[int, str]]:
        sent = [effect for effect in self.losses.flush(now) if isinstance(effect, Send)]
        return [(effect.to, effect.message.text) for effect in sent if isinstance(effect.message, m.Notice)]


def test_a_client_with_tasks_hears_of_a_lost_engine_and_why() -> None:
    stage = Stage(CLIENT)
    stage.losses.ranks_lost(SET, [1], REASON, 10.0, expected=False)
    due = stage.losses.next_deadline()
    assert due is not None
    assert stage.told(due) == [
        (
            CLIENT,
            f"engine 1 (rank 1, pid 101 on h) is lost: {REASON}. Tasks that were there are run again on others",
        )
    ]
    assert stage.log == [f"unregistered engine with id: 1 ({REASON})"]
    assert stage.losses.next_deadline() is None
    assert stage.told(due + 60) == []


def test_losses_of_one_moment_are_one_line() -> None:
    stage = Stage(CLIENT)
    stage.losses.set_lost(SET, "the connection was closed", 10.0, silent=True, expected=False)
    stage.losses.set_lost(OTHER, "the connection was closed", 10.2, silent=True, expected=False)
    assert stage.told(10.2) == []
    ((_, text),) = stage.told(11.0)
    assert text == (
        "engines 0-3 are lost; the last was engine 3 (rank 0, pid 200 on g): the connection was closed, without a "
        "word: a crash, MPI_Abort, or out of memory. Tasks that were there are run again on others"
    )


def test_a_set_that_ends_without_a_word_is_said_to_have_done_so() -> None:
    stage = Stage()
    stage.losses.set_lost(SET, "the connection was closed", 10.0, silent=True, expected=False)
    assert len(stage.log) == 3
    assert (
        "reached through the node agent on h, ended without a word (the connection was closed): " in stage.log[2]
    )
    stage.losses.set_lost(OTHER, "it said goodbye: got SIGTERM", 10.0, silent=False, expected=True)
    assert stage.log[3] == "unregistered engine with id: 3 (it said goodbye: got SIGTERM)"


def test_whoever_has_no_tasks_is_not_disturbed_nor_is_anybody_by_an_end_that_was_asked_for() -> None:
    idle, busy = Stage(), Stage(CLIENT)
    idle.losses.ranks_lost(SET, [1], REASON, 10.0, expected=False)
    busy.losses.ranks_lost(SET, [1, 9], REASON, 10.0, expected=True)
    busy.losses.set_lost(SET, REASON, 10.0, silent=True, expected=True)
    busy.losses.set_lost(99, REASON, 10.0, silent=True, expected=False)
    assert idle.told(60.0) == busy.told(60.0) == []


def test_what_ipcluster_knows_is_told_at_once() -> None:
    stage = Stage(CLIENT)
    stage.losses.explained("All engines have ended: mpiexec ended (exit code 3).", 10.0)
    assert stage.looks == 1
    assert stage.told(10.0) == [(CLIENT, "All engines have ended: mpiexec ended (exit code 3).")]
