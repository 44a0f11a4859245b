"""Tasks whose large arguments were with a client that is gone, when the controller is killed."""

from __future__ import annotations

import itertools

import pytest

from ipmpi.client.tasks import submitter
from ipmpi.client.tasks.taskgroup import TaskRef
from ipmpi.controller.taskjournal import RECOVERY
from ipmpi.protocol import messages as m
from tests.controller.journal_stage import JournalStage, SimulatedClient, SimulatedSet

STREAM = 44
SIZE = 100_000


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "time", JournalStage.clock)


def submit(stage: JournalStage, client: SimulatedClient, number: int, after: list[tuple[int, int]]) -> None:
    """Submit a task with a large argument, which stays with the client until an engine waits for it."""
    options = m.TaskOptions(b"op", f"f{number}", after=after)
    stage.journal.submit(client.key, m.SubmitTasks(number, options, b"", [SIZE]), [], STREAM + number)
    stage.flush()


def begin(stage: JournalStage, engines: SimulatedSet, name: bytes) -> int:
    """The set has got a task and its argument, and runs it; return the serial of its group."""
    given = next(message for message, _ in engines.inbox if isinstance(message, m.GiveTasks))
    engines.inbox.clear()
    stage.journal.farm.bodies.want(engines.key, m.WantTaskBody(given.group, 0, [0]))
    stage.flush()
    engines.inbox.clear()
    engines.running[given.group, 0] = name
    stage.runs[name] += 1
    return given.group


def with_a_running_task() -> tuple[JournalStage, SimulatedClient, SimulatedSet]:
    stage = JournalStage(1, clients=1, sets=1)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    submit(stage, client, 1, [])
    begin(stage, engines, b"large")
    return stage, client, engines


def leave_and_kill(stage: JournalStage, client: SimulatedClient, *, gone_first: bool = True) -> None:
    """The client is killed, and so is the controller; one of them first."""
    stage.vanish(client)
    if not gone_first:
        stage.kill()
    stage._lease_ends()
    for _ in range(2):
        stage.now += 1
        stage.flush()
    if gone_first:
        stage.kill()


def found(stage: JournalStage, client: SimulatedClient) -> list[tuple[str, str]]:
    """Return what another client hears of the tasks."""
    finder = stage.new_client()
    finder.follow(f"unnamed-{client.key}")
    stage.settle()
    for _ in range(300):
        stage.turn()
    assert all(len(each.heard) == 1 for each in finder.followed)
    return [each.heard[0] for each in finder.followed]


@pytest.mark.parametrize("gone_first", [True, False], ids=["gone-before", "gone-before-its-set-is-back"])
def test_a_task_that_runs_goes_on(gone_first: bool) -> None:
    """The argument is where the task runs: that its client is gone does not matter."""
    stage, client, engines = with_a_running_task()
    leave_and_kill(stage, client, gone_first=gone_first)
    stage.connect(engines)
    assert found(stage, client) == [("ok", b"large")]
    assert stage.runs[b"large"] == 1


def test_a_task_that_has_run_is_not_lost() -> None:
    """Its result is with the engine set until it is in the journal."""
    stage, client, engines = with_a_running_task()
    stage.vanish(client)
    stage._lease_ends()
    for _ in range(2):
        stage.now += 1
        stage.flush()
    stage.store.is_full = True
    engines.step()
    stage.deliver_all()
    stage.kill()
    stage.store.is_full = False
    stage.connect(engines)
    assert found(stage, client) == [("ok", b"large")]
    assert stage.runs[b"large"] == 1


def test_what_waits_for_a_task_that_runs_goes_on() -> None:
    stage, client, engines = with_a_running_task()
    client._numbers = itertools.count(2)
    client.submit(b"next", [TaskRef(1, 0)])
    stage.deliver_all()
    leave_and_kill(stage, client)
    stage.connect(engines)
    assert found(stage, client) == [("ok", b"large"), ("ok", b"next")]


def test_a_task_whose_engine_set_is_gone_as_well_is_lost() -> None:
    """It ends as soon as nobody can have it, without any engine that would wait for its argument."""
    stage, client, _ = with_a_running_task()
    leave_and_kill(stage, client)
    stage.sets.clear()
    for _ in range(3):
        stage.now += RECOVERY / 2
        stage.flush()
    ((kind, text),) = found(stage, client)
    assert kind == "ConnectionError"
    assert text.startswith(
        "f1 was not run: its arguments, of 100000 bytes, were still with the client, which is gone"
    )


def test_what_has_to_run_again_after_a_task_that_cannot_is_lost_with_it() -> None:
    """Two losses that are documented: a large result on its way, and a large argument whose client is gone.

    Of the first task, the client had the large result when the controller was killed, which no journal knows. That
    of the second one, which ran after it, was on its way. So both would run again.
    """
    stage, client, engines = with_a_running_task()
    serial = next(iter(engines.running))[0]
    pass_on(stage, engines, serial, 1, complete=True)
    client._numbers = itertools.count(2)
    client.submit(b"second", [TaskRef(1, 0)])
    stage.deliver_all()
    (serial, _), name = engines.waiting.popitem()
    stage.runs[name] += 1
    pass_on(stage, engines, serial, 2, complete=False)
    stage.kill()
    stage.vanish(client)
    stage._lease_ends()
    stage.connect(engines)
    assert [kind for kind, _ in found(stage, client)] == ["ConnectionError", "DependencyError"]
    assert stage.runs[b"second"] == 1


def pass_on(stage: JournalStage, engines: SimulatedSet, serial: int, stream: int, *, complete: bool) -> None:
    """A task has ended with a large result, which the controller passes on; not ``complete``: it is on its way."""
    engines.running.pop((serial, 0), None)
    stage.journal.farm.result(engines.key, m.LargeTaskResult(serial, 0, 0, 0.1, [1 << 20]), (), stream)
    stage.flush()
    if complete:
        stage.journal.farm.result_passed_on(engines.key, stream, True)
        stage.flush()
