"""The controller is killed: reservations, used retries and rejections are as they were."""

from __future__ import annotations

import pytest

from ipmpi.client.tasks import submitter
from ipmpi.client.tasks.taskgroup import SubmitTerms
from ipmpi.controller.taskjournal import RECOVERY, TaskJournal
from ipmpi.errors import JournalDamaged
from ipmpi.journal.rows import ReservedRow, UsedRow
from ipmpi.protocol import messages as m, packed
from tests.controller.journal_stage import Ending, JournalStage, SimulatedClient, SimulatedSet


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "time", JournalStage.clock)


@pytest.fixture
def stage() -> JournalStage:
    """Two clients, and two sets of two ranks: engines 0 and 1, 2 and 3."""
    stage = JournalStage(1)
    for each in stage.sets:
        each.out.clear()
        each.ranks = 2
    for each in stage.sets:
        each.welcomed(False)
    stage.deliver_all()
    return stage


def write(stage: JournalStage) -> None:
    stage.flush()
    stage.now += 0.05
    stage.flush()


def killed(stage: JournalStage, *back: SimulatedClient | SimulatedSet) -> None:
    stage.kill()
    for each in back:
        stage.connect(each)
    stage.deliver_all()


def reserve(stage: JournalStage, client: SimulatedClient, engines: list[int]) -> None:
    assert stage.journal.reserve(client.key, m.Reserve(client.number(), engines)) == engines


def release(stage: JournalStage, client: SimulatedClient, engines: list[int]) -> None:
    assert stage.journal.release(client.key, m.Release(client.number(), engines)) == engines


def reserved(stage: JournalStage) -> list[set[int]]:
    known = stage.farm._sets.by_key
    return [set(known[each.key].reserved) if each.key in known else set() for each in stage.sets]


# --- reservations ----------------------------------------------------------------------------------------------


def test_reservations_last_until_they_are_released(stage: JournalStage) -> None:
    alice, bob = stage.clients
    reserve(stage, alice, [1, 2])
    reserve(stage, bob, [2])
    killed(stage, *stage.sets, alice, bob)
    assert reserved(stage) == [{1}, {0}]
    release(stage, alice, [1, 2])
    assert reserved(stage) == [set(), {0}]
    write(stage)
    killed(stage, *stage.sets, alice, bob)
    assert reserved(stage) == [set(), {0}]
    release(stage, bob, [2])
    assert reserved(stage) == [set(), set()]


def test_they_are_on_the_disk_before_the_client_is_told(stage: JournalStage) -> None:
    reserve(stage, stage.clients[0], [0])
    assert [row.client for row in stage.store.contents.reserved] == [stage.clients[0].key]


def test_an_engine_that_was_reserved_twice_is_released_twice(stage: JournalStage) -> None:
    (alice, _) = stage.clients
    reserve(stage, alice, [0])
    reserve(stage, alice, [0])
    killed(stage, *stage.sets, alice)
    release(stage, alice, [0])
    assert reserved(stage) == [{0}, set()]
    release(stage, alice, [0])
    assert reserved(stage) == [set(), set()]


def test_requests_that_were_not_answered_are_made_again(stage: JournalStage) -> None:
    """With the same number, as a client does; they count once."""
    (alice, _) = stage.clients
    request = m.Reserve(77, [0, 3])
    stage.journal.reserve(alice.key, request)
    killed(stage, *stage.sets, alice)
    assert stage.journal.reserve(alice.key, request) == [0, 3]
    reserve(stage, alice, [0])
    end = m.Release(78, [0, 3])
    stage.journal.release(alice.key, end)
    assert reserved(stage) == [{0}, set()]
    killed(stage, *stage.sets, alice)
    assert stage.journal.release(alice.key, end) == [0, 3]
    assert reserved(stage) == [{0}, set()]
    release(stage, alice, [0])
    assert reserved(stage) == [set(), set()]


def test_a_controller_that_is_killed_again_before_sets_are_back(stage: JournalStage) -> None:
    alice, _ = stage.clients
    first, second = stage.sets
    reserve(stage, alice, [0, 3])
    killed(stage, first, alice)
    write(stage)
    killed(stage, second)  # the first had another key when the journal was written
    write(stage)
    killed(stage, alice, first, second)
    assert reserved(stage) == [{0}, {1}]


def test_a_set_whose_return_was_not_answered_comes_again(stage: JournalStage) -> None:
    alice, _ = stage.clients
    first, second = stage.sets
    reserve(stage, alice, [0])
    stage.kill()
    unanswered = stage.begin_set(bytes(16), first.token)
    write(stage)
    stage.journal.set_lost(unanswered)
    for each in (first, second, alice):
        stage.connect(each)
    stage.deliver_all()
    assert reserved(stage) == [{0}, set()]


def test_clients_that_do_not_come_back_have_reserved_nothing(stage: JournalStage) -> None:
    alice, bob = stage.clients
    reserve(stage, alice, [0, 2])
    reserve(stage, bob, [0])
    killed(stage, stage.sets[0], bob)
    assert reserved(stage)[0] == {0}
    stage.journal.client_lost(alice.key, orderly=False)
    stage.connect(stage.sets[1])
    stage.deliver_all()
    assert reserved(stage) == [{0}, set()]
    stage.journal.client_lost(bob.key, orderly=False)
    assert reserved(stage) == [set(), set()]
    write(stage)
    assert stage.store.contents.reserved == []


def test_engines_that_do_not_come_back_are_not_reserved_any_more(stage: JournalStage) -> None:
    alice, _ = stage.clients
    first, second = stage.sets
    reserve(stage, alice, [0, 3])
    killed(stage, first, alice)
    stage.now += 1.1 * RECOVERY
    write(stage)
    killed(stage, first, second, alice)
    assert reserved(stage) == [{0}, set()]


def test_an_engine_that_was_lost_is_not_reserved_when_its_rank_is_there_again(stage: JournalStage) -> None:
    alice, _ = stage.clients
    reserve(stage, alice, [0, 1])
    stage.farm.ranks_lost(stage.sets[0].key, [0])
    write(stage)
    killed(stage, *stage.sets, alice)
    assert reserved(stage) == [{1}, set()]


# --- what tasks have used --------------------------------------------------------------------------------------


def submit(stage: JournalStage, client: SimulatedClient, name: bytes, retries: int) -> Ending:
    options = m.TaskOptions(b"op", "", retries=retries)
    ending = Ending()
    client.tasks[name] = (client.submitter.submit_one(SubmitTerms(options), name, ending), ending)
    stage.deliver_all()
    return ending


def run(stage: JournalStage) -> None:
    """A set starts what it has, and ends it."""
    for _ in range(2):
        for each in stage.sets:
            each.step()
        stage.deliver_all()


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("kills", [1, 2])
def test_retries_that_were_used_count(stage: JournalStage, kills: int, is_told: bool) -> None:
    """``is_told``: whether the set knows that the failure is recorded; else it tells of it again."""
    alice, _ = stage.clients
    ending = submit(stage, alice, b"fails!", retries=2)
    for number in range(1, 3):
        run(stage)
        assert stage.runs[b"fails!"] == number
        write(stage)
        if is_told:
            stage.deliver_all()
        if number <= kills:
            killed(stage, *stage.sets, alice)
            write(stage)
    run(stage)
    assert stage.runs[b"fails!"] == 3
    assert ending.heard == [] or ending.heard == [("failed", b"fails!")]
    write(stage)
    stage.deliver_all()
    assert ending.heard == [("failed", b"fails!")]
    assert stage.store.contents.used == []


def test_a_failure_that_is_not_written_is_told_again_by_its_set(stage: JournalStage) -> None:
    """Its set is told that a failure is recorded only when it is."""
    alice, _ = stage.clients
    submit(stage, alice, b"fails!", retries=1)
    stage.store.is_full = True
    (its,) = [each for each in stage.sets if each.waiting]
    its.step()
    its.step()
    stage.deliver_all()
    assert [used.serial for used in stage.store.contents.used] == []
    stage.store.is_full = False
    killed(stage, *stage.sets, alice)
    write(stage)
    run(stage)
    run(stage)
    assert stage.runs[b"fails!"] == 2


def test_all_failures_that_sets_tell_again_were_counted(stage: JournalStage) -> None:
    """Sets that do not know that failures are recorded tell both of them again: they count once each."""
    alice, _ = stage.clients
    ending = submit(stage, alice, b"fails!", retries=2)
    for number in (1, 2):
        stage.now += 0.01  # each run takes another time, which tells failures apart
        (its,) = [each for each in stage.sets if each.waiting]
        its.step()
        its.step()
        while its.out:
            stage._from_set(its, *its.out.popleft())
        stage.flush()
        assert stage.runs[b"fails!"] == number
        if number == 1:  # it is given to the other set
            stage.farm._sets.by_key[its.key].window = 0
            stage.farm._sets.update(stage.farm._sets.by_key[its.key])
        for each in stage.sets:
            inbox, kept = list(each.inbox), each.inbox
            kept.clear()
            kept.extend(packet for packet in inbox if not isinstance(packet[0], m.ResultsRecorded))
            while kept:
                each.hear(*kept.popleft())
    killed(stage, *stage.sets, alice)
    write(stage)
    run(stage)
    run(stage)
    assert stage.runs[b"fails!"] == 3
    write(stage)
    stage.deliver_all()
    assert ending.heard == [("failed", b"fails!")]


def only_one(stage: JournalStage) -> SimulatedSet:
    """Return the set that gets all tasks; the other one gets none until it has come back."""
    its, other = stage.sets
    stage.farm._sets.by_key[other.key].window = 0
    stage.farm._sets.update(stage.farm._sets.by_key[other.key])
    return its


@pytest.mark.parametrize("at_last", ["it fails", "it succeeds"])
def test_each_end_that_a_set_tells_again_of_one_task_is_heard(stage: JournalStage, at_last: str) -> None:
    """While the disk is full it fails, runs again, and ends. It has ended, also for the next controller."""
    alice, _ = stage.clients
    its = only_one(stage)
    ending = submit(stage, alice, b"fails!", retries=1)
    stage.store.is_full = True
    for number in (1, 2):
        stage.now += 0.01  # each run takes another time, which tells failures apart
        its.step()
        if number == 2 and at_last == "it succeeds":
            its.running = dict.fromkeys(its.running, b"works")
        its.step()
        while its.out:
            stage._from_set(its, *its.out.popleft())
        stage.flush()
        while its.inbox:
            its.hear(*its.inbox.popleft())
    assert stage.runs[b"fails!"] == 2
    killed(stage, *stage.sets, alice)
    stage.store.is_full = False
    stage.now += 2.0  # what could not be written is tried again
    write(stage)
    stage.deliver_all()
    run(stage)
    write(stage)
    stage.deliver_all()
    assert stage.runs[b"fails!"] == 2
    assert ending.heard == [("failed", b"fails!") if at_last == "it fails" else ("ok", b"works")]


def test_a_task_that_runs_again_goes_on_although_its_failure_is_told_again(stage: JournalStage) -> None:
    """Its set has not heard that the failure is recorded, and tells it again with the result of another task."""
    alice, _ = stage.clients
    its = only_one(stage)
    ending = Ending()
    options = m.TaskOptions(b"op", "", retries=1)
    ref = alice.submitter.submit_one(SubmitTerms(options), b"fails!", ending)
    other = Ending()
    assert alice.submitter.submit_one(SubmitTerms(options), b"works", other).group == ref.group
    stage.deliver_all()
    for _ in range(3):
        its.step()
    while its.out:
        stage._from_set(its, *its.out.popleft())
    stage.flush()
    while its.inbox:
        message, body = its.inbox.popleft()
        if not isinstance(message, m.ResultsRecorded):
            its.hear(message, body)
    its.step()
    assert stage.runs[b"fails!"] == 2
    killed(stage, *stage.sets, alice)
    write(stage)
    run(stage)
    write(stage)
    stage.deliver_all()
    assert (stage.runs[b"fails!"], stage.runs[b"works"]) == (2, 1)
    assert (ending.heard, other.heard) == ([("failed", b"fails!")], [("ok", b"works")])


def reject(stage: JournalStage, *, why: str = "the node is too small") -> int:
    """The set that has the task rejects it, on its first rank; return which set this is."""
    for number, each in enumerate(stage.sets):
        for serial, index in list(each.waiting):
            del each.waiting[serial, index]
            rank = min(allowed) if (allowed := each.allowed.get((serial, index))) else 0
            each._say(m.TasksReturned(serial, packed.pack([index]), rank, "rejected", why))
            stage.deliver_all()
            return number
    raise AssertionError("no set has the task")


def allowed(stage: JournalStage) -> list[list[int]]:
    return [list(ranks) for each in stage.sets for task, ranks in each.allowed.items() if task in each.waiting]


def test_engines_that_rejected_a_task_are_not_asked_again(stage: JournalStage) -> None:
    alice, _ = stage.clients
    ending = submit(stage, alice, b"picky", retries=0)
    for left in (3, 2, 1):
        reject(stage)
        write(stage)
        group = next(iter(stage.farm._table.groups.values()))
        assert group.rejected is not None
        assert len(group.rejected[0]) == 4 - left
        killed(stage, *stage.sets, alice)
        group = next(iter(stage.farm._table.groups.values()))
        assert group.rejected is not None
        assert len(group.rejected[0]) == 4 - left, "known again"
    reject(stage)
    write(stage)
    stage.deliver_all()
    text = " was rejected by all engines on which it could run: the node is too small"
    assert ending.heard == [("TaskRejectError", text)]


# --- the journal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [ReservedRow(1, b"\xc1"), UsedRow(1, b"nonsense"), ReservedRow(1, b"\x92\x01\x02")]
)
def test_what_cannot_be_understood_is_damage(stage: JournalStage, row: ReservedRow | UsedRow) -> None:
    stage.store.commit([row])
    with pytest.raises(JournalDamaged, match="reservations or retries that this release does not understand"):
        stage.kill()


def test_a_journal_that_forgets_what_was_used_is_noticed(
    stage: JournalStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of retries sees a planted bug."""
    right = TaskJournal._commit

    def wrong(self: TaskJournal) -> bool:
        changes = self._changes
        changes._others = [each for each in changes._others if not isinstance(each, UsedRow)]
        return right(self)

    monkeypatch.setattr(TaskJournal, "_commit", wrong)
    with pytest.raises(AssertionError):
        test_retries_that_were_used_count(stage, 1, True)
