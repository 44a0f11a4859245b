"""The controller is killed at any moment: what it has accepted ends once, and runs once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import pytest

from ipmpi.client.tasks import submitter
from ipmpi.controller.farm.recovery import FarmRecovery
from ipmpi.controller.journalwriter import JournalWriter
from ipmpi.controller.namedtasks import NamedTasks
from ipmpi.controller.taskjournal import RECOVERY, TaskJournal
from ipmpi.errors import ClientError, JournalDamaged
from ipmpi.journal.rows import Change, DropGroup, DropSet, GroupRow
from ipmpi.protocol import messages as m, packed
from tests.controller.journal_stage import Ending, JournalStage, SimulatedClient, SimulatedSet

TURNS = 1500


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "time", JournalStage.clock)


def play(seed: int, *, full: bool = True) -> JournalStage:
    """Let clients submit tasks, and kill the controller now and then; check what must hold at the end."""
    stage = JournalStage(seed)
    chance = stage.random.random
    number = 0
    for _ in range(TURNS):
        if chance() < 0.15:
            client = stage.random.choice(stage.clients)
            fails = "!" if chance() < 0.1 else ""
            parents = [ref for ref, _ in client.tasks.values()]
            after = [stage.random.choice(parents)] if parents and chance() < 0.2 else []
            client.submit(f"{client.key}.{number}{fails}".encode(), after)
            number += 1
        if full and chance() < 0.01:
            stage.store.is_full = not stage.store.is_full
        if chance() < 0.01:
            stage.kill()
        stage.turn()
    stage.settle()
    check(stage)
    return stage


def check(stage: JournalStage) -> None:
    for client in stage.clients:
        for name, (_, ending) in client.tasks.items():
            assert len(ending.heard) == 1, (name, ending.heard)
            kind, text = ending.heard[0]
            if kind in ("ok", "failed"):
                assert text == name
                assert kind == ("failed" if name.endswith(b"!") else "ok")
                assert stage.runs[name] == 1, f"{name!r} ran {stage.runs[name]} times"
            else:
                assert kind in ("DependencyError", "JournalFull", "TaskAborted"), (name, kind, text)
                assert stage.runs[name] == 0, f"{name!r} was refused, and ran"


@pytest.mark.parametrize("seed", [*range(30), 1241, 1953])
def test_what_was_accepted_ends_once_and_runs_once(seed: int) -> None:
    stage = play(seed)
    assert stage.kills
    assert any(end.heard[0][0] == "ok" for client in stage.clients for _, end in client.tasks.values())


def test_tasks_are_refused_while_there_is_no_room_and_others_go_on() -> None:
    stage = JournalStage(1, clients=1)
    (client,) = stage.clients
    client.submit(b"before")
    while not client.tasks[b"before"][1].heard or client.submitter.open_tasks():
        stage.turn()
    client.submit(b"queued")
    number = client.tasks[b"queued"][0].group
    while not any(row.number == number for row in stage.store.contents.groups):
        stage.turn()
    stage.store.is_full = True
    client.submitter._open = None
    client.submit(b"refused")
    while not client.tasks[b"refused"][1].heard or not client.tasks[b"queued"][1].heard:
        stage.turn()
    assert client.tasks[b"refused"][1].heard == [("JournalFull", "there is no room for the journal")]
    assert client.tasks[b"queued"][1].heard == [("ok", b"queued")]
    stage.store.is_full = False
    client.submit(b"after")
    stage.settle()
    assert client.tasks[b"after"][1].heard == [("ok", b"after")]


def test_who_cancels_a_task_is_told_when_that_is_on_the_disk() -> None:
    """Else the task runs nevertheless, if the controller is killed before there is room."""
    stage = JournalStage(1, clients=1, sets=0)
    (client,) = stage.clients
    client.submit(b"cancelled")
    stage.deliver_all()
    answer = client.submitter.abort(client.tasks[b"cancelled"][0].group, [0], "cancel")
    client.turn()
    stage.store.is_full = True
    ((abort, _),) = client.out
    client.out.clear()
    stage.journal.named.abort(client.key, abort)
    stage.deliver_all()
    stage.flush()
    assert not client.inbox
    stage.store.is_full = False
    stage.now += 2.0
    stage.flush()
    stage.deliver_all()
    assert answer.result(0) == [0]
    stage.kill()
    stage.connect(client)
    stage.deliver_all()
    check(stage)


def leave(seed: int) -> JournalStage:
    """Clients are killed, and others resume their tasks, while the controller is killed now and then, too."""
    stage = JournalStage(seed, has_names=True)
    chance = stage.random.random
    for number in range(TURNS):
        client = stage.random.choice(stage.clients)
        if chance() < 0.15:
            parents = [ref for ref, _ in client.tasks.values()]
            after = [stage.random.choice(parents)] if parents and chance() < 0.2 else []
            client.submit(f"{client.key}.{number}{'!' if chance() < 0.1 else ''}".encode(), after)
        if chance() < 0.01:
            stage.vanish(client)
            stage.new_client()
        if stage.vanished and chance() < 0.02:
            with contextlib.suppress(ClientError):  # it had submitted nothing, or is not known to be gone
                stage.random.choice(stage.clients).follow(bundle(stage.random.choice(stage.vanished)))
        if chance() < 0.005:
            stage.kill()
        stage.turn()
    stage.settle()
    check(stage)
    for client in stage.clients:
        assert {len(ending.heard) for ending in client.followed} <= {1}
    for gone in stage.vanished:
        all_are_found(stage, gone)
    return stage


def bundle(client: SimulatedClient) -> str:
    return client.name or f"unnamed-{client.key}"


def all_are_found(stage: JournalStage, gone: SimulatedClient) -> None:
    finder = stage.new_client()
    needed = {
        name for name, (_, ending) in gone.tasks.items()
        if gone.is_accepted(name) and (gone.name or not ending.heard) and refused(ending) is None
    }  # fmt: skip
    try:
        finder.follow(bundle(gone))
    except ClientError:
        assert not needed, f"{bundle(gone)} is not there, with {needed}"
        return
    stage.settle()
    found = [ending.heard for ending in finder.followed]
    assert {len(heard) for heard in found} <= {1}
    outcomes = [text for ((kind, text),) in found if kind in ("ok", "failed")]
    assert len(set(outcomes)) == len(outcomes)
    assert {name for name in needed if stage.runs[name]} <= set(outcomes)
    assert all(stage.runs[name] == 1 for name in outcomes)
    assert len(found) >= len(needed)
    kinds = {heard[0][0] for heard in found} - {"ok", "failed", "DependencyError"}
    assert kinds <= (set() if gone.name else {"ClientError"}), kinds


def refused(ending: Ending) -> str | None:
    kinds = [kind for kind, _ in ending.heard if kind not in ("ok", "failed", "DependencyError")]
    return kinds[0] if kinds else None


@pytest.mark.parametrize("seed", [*range(20), 1027, 1062, 1158])
def test_clients_vanish_and_others_find_their_tasks(seed: int) -> None:
    stage = leave(seed)
    assert stage.kills
    assert stage.vanished


def test_nothing_is_left_in_the_journal_when_all_results_are_fetched() -> None:
    stage = play(3, full=False)
    for _ in range(300):
        stage.turn()
    stage.now += 1
    stage.flush()
    there = stage.store.contents
    assert (there.groups, there.ends, there.functions) == ([], [], [])
    assert len(there.sessions) == 2
    for client in stage.clients:
        stage.journal.client_lost(client.key, orderly=True)
    stage.journal.finish()
    assert (there.sessions, there.records) == ([], [])


def test_a_result_that_comes_again_in_the_turn_in_which_its_client_is_back_is_told_once() -> None:
    """The client has one of two results: the other one reaches it even if the first one is told of again."""
    stage = stage_with_one_of_two_results(has_names=False)
    (client,), (engines,) = stage.clients, stage.sets
    stage.connect(engines)
    stage.connect(client)
    stage.deliver_all()
    stage.settle()
    check(stage)


def submit_in_one_group(client: SimulatedClient, first: bytes, second: bytes) -> None:
    """Submit two tasks of which nobody knows that all results have come before both have."""
    client.submit(first)
    client.submitter._open = client.submitter._by_number[client.tasks[first][0].group]  # it may be closed
    client.submit(second)
    assert client.tasks[first][0].group == client.tasks[second][0].group


def stage_with_one_of_two_results(*, has_names: bool) -> JournalStage:
    """The client has the first of two results; the controller was killed before it was written."""
    stage = JournalStage(1, clients=1, sets=1, has_names=has_names)
    (client,), (engines,) = stage.clients, stage.sets
    engines.ranks = 1
    stage.deliver_all()
    submit_in_one_group(client, b"first", b"second")
    stage.deliver_all()
    engines.step()
    engines.step()
    stage.deliver_all()
    assert client.tasks[b"first"][1].heard == [("ok", b"first")]
    assert not stage.store.contents.ends, "it is recorded a little later"
    stage.kill()
    return stage


def vanish_and_kill(stage: JournalStage) -> None:
    """The client goes away, and the controller is killed again."""
    (client,) = [each for each in stage.clients if each.tasks]
    stage.now += 1
    stage.flush()
    stage.vanish(client)
    stage._lease_ends()
    for _ in range(2):
        stage.now += 1
        stage.flush()
    stage.kill()


@pytest.mark.parametrize("has_names", [True, False], ids=["named", "unnamed"])
def test_what_its_client_has_does_not_run_again_without_it(has_names: bool) -> None:
    """It was back before the engine set, and is gone when the controller is killed once more."""
    stage = stage_with_one_of_two_results(has_names=has_names)
    (client,), (engines,) = stage.clients, stage.sets
    stage.connect(client)
    stage.deliver_all()
    stage.connect(engines)
    stage.deliver_all()
    vanish_and_kill(stage)
    finder = stage.new_client()
    stage.connect(engines)
    finder.follow(bundle(client))
    stage.settle()
    assert (stage.runs[b"first"], stage.runs[b"second"]) == (1, 1)
    assert [each.heard for each in finder.followed] == [[("ok", b"first")], [("ok", b"second")]]


def only_the_set_is_back(stage: JournalStage) -> None:
    """The engine set reaches the next controller, its client never does, and whatever is to run runs."""
    (engines,) = stage.sets
    stage.connect(engines)
    stage.deliver_all()
    stage._lease_ends()
    for _ in range(4):
        stage.now += 1
        stage.flush()
        stage.deliver_all()
        engines.step()


def test_what_its_client_has_fetched_does_not_run_again_without_it_while_that_is_not_written() -> None:
    """The engine set keeps the result until the journal has the client's word."""
    stage = JournalStage(1, clients=1, sets=1)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    client.submit(b"task")
    stage.deliver_all()
    engines.step()
    engines.step()
    stage.deliver_all()
    assert client.tasks[b"task"][1].heard == [("ok", b"task")]
    assert stage.store.contents.groups, "that all is fetched is written a little later"
    stage.vanish(client)
    stage.kill()
    only_the_set_is_back(stage)
    assert stage.runs[b"task"] == 1


def test_what_its_client_has_fetched_while_the_disk_is_full_does_not_run_again_without_it() -> None:
    """The engine set keeps the result until there is room, and tells it the next controller."""
    stage = JournalStage(1, clients=1, sets=1)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    client.submit(b"task")
    stage.deliver_all()
    stage.store.is_full = True
    engines.step()
    engines.step()
    for _ in range(4):
        stage.deliver_all()
        stage.now += 1
        stage.flush()
    assert client.tasks[b"task"][1].heard == [("ok", b"task")]
    assert not client.submitter.is_busy
    stage.vanish(client)
    stage.kill()
    stage.store.is_full = False
    only_the_set_is_back(stage)
    assert stage.runs[b"task"] == 1


def test_engine_sets_keep_results_only_until_there_is_room_again() -> None:
    stage = JournalStage(1, clients=1, sets=1, has_names=False)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    client.submit(b"task")
    stage.deliver_all()
    stage.store.is_full = True
    engines.step()
    engines.step()
    stage.deliver_all()
    stage.now += 1
    stage.flush()
    stage.deliver_all()
    assert engines.unrecorded._results
    stage.store.is_full = False
    stage.now += 2
    stage.flush()
    stage.deliver_all()
    assert not engines.unrecorded._results
    assert not stage.store.contents.groups


def test_who_has_submitted_hears_of_it_although_there_is_no_room_for_what_others_have_fetched() -> None:
    """The group is on the disk; else its client keeps the arguments until there is room again."""
    stage = JournalStage(1, clients=1, sets=1, has_names=False)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    client.submit(b"first")
    for _ in range(3):
        stage.deliver_all()
        engines.step()
    stage.deliver_all()
    assert client.tasks[b"first"][1].heard
    client.submit(b"second")
    stage.deliver_all()
    assert len(stage.store.contents.groups) == 2, "what was fetched is written a little later"
    assert not client.is_accepted(b"second"), "that is told with something else, mostly"
    stage.store.is_full = True
    stage.now += 0.03
    stage.flush()
    stage.deliver_all()
    assert client.is_accepted(b"second")


@pytest.mark.parametrize("has_used", [False, True], ids=["failures", "used-retries"])
def test_a_disk_that_is_full_is_tried_once_a_second_however_much_happens(has_used: bool) -> None:
    """Each attempt costs as much as there is to be written."""
    stage = JournalStage(1, clients=1, sets=1, has_names=False)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    for number in range(40):
        client.submit(b"%d%s" % (number, b"" if has_used else b"!"))
        client.submitter._open = None
    stage.deliver_all()
    stage.store.is_full = True
    if has_used:
        stage.journal.write(DropSet(99))
        stage.journal.memory.is_unwritten = True
    tries: list[float] = []
    right = stage.store.commit
    stage.store.commit = lambda changes: (tries.append(stage.now), right(changes))[1]  # type: ignore[method-assign]
    while stage.now < 3.0 or engines.waiting or engines.running:
        engines.step()
        stage.deliver_all()
        stage.now += 0.02
    heard = [bool(ending.heard) for _, ending in client.tasks.values()]
    assert heard == [has_used] * 40, "failures are told when they are written"
    assert len(tries) <= 1 + stage.now
    stage.store.is_full = False
    stage.now += 1.0
    stage.flush()
    stage.deliver_all()
    kind = "ok" if has_used else "failed"
    assert all(ending.heard == [(kind, name)] for name, (_, ending) in client.tasks.items())


def test_groups_that_follow_each_other_are_a_commit_each_and_the_rest_is_written_with_some() -> None:
    """What was fetched is not written with each group, and not in a commit of its own."""
    stage = JournalStage(1, clients=1, sets=1, has_names=False)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    commits: list[Sequence[Change]] = []
    right = stage.store.commit
    stage.store.commit = lambda changes: (commits.append(changes), right(changes))[1]  # type: ignore[method-assign]
    for number in range(40):
        client.submit(b"task %d" % number)
        stage.now += 0.001
        for _ in range(3):
            stage.deliver_all()
            engines.step()
    stage.deliver_all()
    assert len(commits) <= 41
    kinds = [{type(each) for each in changes} for changes in commits]
    assert sum(kind == {GroupRow} for kind in kinds) >= 30
    assert 3 <= sum(DropGroup in kind for kind in kinds) <= 5


def test_what_its_client_has_does_not_run_again_without_it_and_the_engine_set() -> None:
    stage = stage_with_one_of_two_results(has_names=True)
    (client,), (engines,) = stage.clients, stage.sets
    stage.connect(client)
    stage.deliver_all()
    stage.sets.remove(engines)
    stage.now += RECOVERY + 1
    stage.flush()
    vanish_and_kill(stage)
    finder = stage.new_client()
    stage.sets.append(SimulatedSet(stage, 1))
    stage.connect(stage.sets[0])
    finder.follow(bundle(client))
    stage.settle()
    assert (stage.runs[b"first"], stage.runs[b"second"]) == (1, 1)
    ((first, text),), second = (each.heard for each in finder.followed)
    assert first == "ClientError"
    assert "the controller was killed before it had written it" in text
    assert second == [("ok", b"second")]


@pytest.mark.parametrize("is_back", [True, False], ids=["set-back", "set-lost"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_follows_hears_of_what_only_the_client_has_when_the_set_is_back(is_back: bool, when: str) -> None:
    """The follower is there ``when`` the client has come back, and hears no more than once of each task."""
    stage = stage_with_one_of_two_results(has_names=True)
    (client,), (engines,) = stage.clients, stage.sets
    finder = stage.new_client()
    if when == "before":
        finder.follow(bundle(client))
        stage.deliver_all()
    stage.connect(client)
    stage.deliver_all()
    if when == "after":
        finder.follow(bundle(client))
        stage.deliver_all()
    first = finder.followed[0]
    assert not first.heard, "the set may have it"
    if is_back:
        stage.connect(engines)
    else:
        stage.sets.remove(engines)
        stage.now += RECOVERY + 1
        stage.flush()
        stage.sets.append(SimulatedSet(stage, 1))
        stage.connect(stage.sets[0])
    stage.settle()
    assert [kind for kind, _ in first.heard] == ["ok" if is_back else "ClientError"]
    check(stage)


def test_a_follower_is_told_what_comes_again_in_the_turn_in_which_the_client_is_back() -> None:
    stage = stage_with_one_of_two_results(has_names=True)
    (client,), (engines,) = stage.clients, stage.sets
    finder = stage.new_client()
    finder.follow(bundle(client))
    stage.deliver_all()
    stage.connect(engines)
    stage.connect(client)
    stage.deliver_all()
    stage.settle()
    assert [each.heard for each in finder.followed] == [[("ok", b"first")], [("ok", b"second")]]
    check(stage)


def test_tasks_that_depend_on_what_only_the_client_has_run() -> None:
    """The set has said that it has the first task, and tells its result after another one was submitted."""
    stage = stage_with_one_of_two_results(has_names=False)
    (client,), (engines,) = stage.clients, stage.sets
    stage.connect(engines)
    for _ in range(2):  # Register, TasksHeld
        stage._from_set(engines, *engines.out.popleft())
    stage.connect(client)
    client.submit(b"third", [client.tasks[b"first"][0]])
    client.turn()
    while client.out:
        stage._from_client(client, *client.out.popleft())
    stage.flush()
    stage.settle()
    assert client.tasks[b"third"][1].heard == [("ok", b"third")]
    check(stage)


def test_a_large_result_that_its_client_has_had_is_not_computed_again_without_it() -> None:
    """It is in no journal; its group has another task, so that its client has not said that it has all results."""
    stage = JournalStage(1, clients=1, sets=1)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    submit_in_one_group(client, b"large", b"second")
    stage.deliver_all()
    serial = next(iter(engines.waiting))[0]
    engines.waiting.pop((serial, 0))
    stage.runs[b"large"] += 1
    stage.journal.farm.result(engines.key, m.LargeTaskResult(serial, 0, 0, 0.1, [1 << 20]), (), 5)
    stage.flush()
    stage.journal.farm.result_passed_on(engines.key, 5, True)
    stage.flush()
    vanish_and_kill(stage)
    stage.connect(engines)
    stage.settle()
    for _ in range(300):
        stage.turn()
    assert (stage.runs[b"large"], stage.runs[b"second"]) == (1, 1)


def test_a_task_that_was_refused_and_is_in_the_journal_nevertheless_does_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sync that fails may have been done: nobody knows, until the controller is started again."""
    stage = JournalStage(1, clients=1)
    (client,) = stage.clients
    stage.deliver_all()
    write = stage.store.commit

    def fails(changes: Sequence[Change]) -> None:
        write(changes)
        raise JournalDamaged("the disk has failed")

    with monkeypatch.context() as patch:
        patch.setattr(stage.store, "commit", fails)
        client.submit(b"refused")
        stage.deliver_all()
    assert client.tasks[b"refused"][1].heard == [("JournalDamaged", "the disk has failed")]
    assert stage.store.contents.groups
    stage.kill()
    for each in (*stage.sets, client):
        stage.connect(each)
    client.submit(b"next")
    stage.settle()
    assert client.tasks[b"next"][1].heard == [("ok", b"next")]
    assert not stage.runs[b"refused"]


def test_a_session_that_ends_is_not_the_return_of_its_set() -> None:
    """The answer to a Hello was lost. The set comes again, in another session, and the first one ends."""
    stage = JournalStage(1, clients=1)
    (client,), (away, other) = stage.clients, stage.sets
    client.submit(b"task")
    stage.deliver_all()
    if not away.waiting:
        away, other = other, away
    away.step()
    stage.deliver_all()
    assert away.running
    stage.kill()
    stage.connect(other)
    stage.connect(client)
    unanswered = stage.begin_set(bytes(16), away.token)
    stage.deliver_all()
    stage.journal.set_lost(unanswered)
    stage.deliver_all()
    assert not other.waiting, "the task was given to a second set"
    stage.connect(away)
    stage.settle()
    check(stage)


def test_no_group_gets_the_number_of_one_that_a_set_has_and_the_journal_has_no_more() -> None:
    """Else a client is told the result of a task of another one, and its own never runs."""
    stage = JournalStage(1, clients=2, sets=1, has_names=False)
    (client, other), (engines,) = stage.clients, stage.sets
    stage.deliver_all()
    client.submit(b"first")
    for _ in range(3):
        stage.deliver_all()
        engines.step()
    other.submit(b"of another")
    stage.deliver_all()
    engines.step()
    stage.deliver_all()
    assert engines.running
    engines.is_connected = False  # so it does not hear that nobody wants this any more
    stage.clients.remove(other)
    stage.journal.client_lost(other.key, orderly=True)
    for _ in range(2):
        stage.now += 1.0
        stage.flush()
    stage.kill()
    stage.connect(client)
    client.submit(b"new")
    stage.deliver_all()
    stage.connect(engines)
    for _ in range(4):
        stage.deliver_all()
        engines.step()
    stage.deliver_all()
    assert client.tasks[b"new"][1].heard == [("ok", b"new")]
    assert stage.runs[b"new"] == 1


@pytest.mark.parametrize("number", [-1, -(2**63), 2**63, 2**64 - 1])
def test_a_number_that_the_journal_cannot_have_is_refused_and_others_go_on(number: int) -> None:
    """Else nothing could be written any more, of nobody."""
    stage = JournalStage(1, has_names=False)
    client, other = stage.clients
    stage.deliver_all()
    bad = m.SubmitTasks(number, m.TaskOptions(b"op", ""), packed.pack([1]), [1])
    with pytest.raises(ClientError, match=f"from 0 to {2**63 - 1}, not {number}"):
        stage.journal.submit(client.key, bad, [b"x"], 0)
    other.submit(b"task")
    for _ in range(5):
        stage.deliver_all()
        for engines in stage.sets:
            engines.step()
    assert other.tasks[b"task"][1].heard == [("ok", b"task")]


def test_the_number_of_a_group_that_is_kept_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what was kept under it stays in the journal for ever."""
    monkeypatch.setattr("ipmpi.controller.farm.tasktable.RECORDS", 2)
    stage = JournalStage(1, clients=1, sets=1, has_names=False)
    (client,), (engines,) = stage.clients, stage.sets
    stage.deliver_all()

    def submit(number: int) -> None:
        options = m.TaskOptions(b"op", "", name="kept")
        stage.journal.submit(client.key, m.SubmitTasks(number, options, packed.pack([1]), [1]), [b"x"], 0)
        for _ in range(3):
            stage.flush()
            stage.deliver_all()
            engines.step()

    for number in range(1, 6):
        submit(number)
    with pytest.raises(ClientError, match="the number 1 was used for another group"):
        submit(1)
    assert len(stage.store.contents.groups) == 5


def test_a_group_is_accepted_when_another_client_comes_in_the_same_turn() -> None:
    stage = JournalStage(1, clients=1)
    (client,) = stage.clients
    stage.deliver_all()
    client.submit(b"task")
    client.turn()
    while client.out:
        stage._from_client(client, *client.out.popleft())
    stage.new_client()
    stage.flush()
    stage.deliver_all()
    assert client.is_accepted(b"task")


def given_before_they_are_written() -> Callable[[TaskJournal, float], None]:
    """Return what gives tasks to engines in the turn in which they came, and writes them in the next one."""
    right = TaskJournal._write_submissions
    given: set[int] = set()

    def wrong(self: TaskJournal, now: float) -> None:
        new = self._submitted.keys() - given
        given.update(new)
        if not new:
            right(self, now)

    return wrong


PLANTED = {
    "tasks that are given before they are written": (
        TaskJournal,
        "_write_submissions",
        given_before_they_are_written(),
    ),
    "tasks that end with their client": (NamedTasks, "leave", lambda self, client, orderly: []),
    "followers that are told nothing": (NamedTasks, "pass_on", lambda self, effects: list(effects)),
    "results that are dropped when they were fetched": (NamedTasks, "fetched", lambda self, client, number: False),
    "names that are not written": (TaskJournal, "write", lambda self, change: None),
    "ends that are told before they are known": (TaskJournal, "ends", lambda self, group: []),
    "an early acknowledgement": (JournalWriter, "write", lambda self, changes: True),
    "a set that is told too early": (TaskJournal, "_tell_sets", None),
    "tasks that wait for nobody": (FarmRecovery, "ready", lambda self, group: self._queue(group)),
    "ends that are not written": (TaskJournal, "_note_ends", lambda self, effects: []),
    "a client that is not answered": (TaskJournal, "_answer", lambda self, client, number, lacks: None),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_bug_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = PLANTED[what]
    if wrong is None:
        right = getattr(where, name)

        def wrong(self: TaskJournal) -> None:
            ends, self._ends = self._ends, {}
            right(self)
            self._ends = ends

    monkeypatch.setattr(where, name, wrong)

    def violations() -> None:
        for seed in range(30):
            play(seed)
            leave(seed)

    with pytest.raises((AssertionError, KeyError, IndexError)):
        violations()
