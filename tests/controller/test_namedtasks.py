"""Who sees tasks of clients that are gone, and for how long they are kept."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller import bundles
from ipmpi.controller.bundle import BundleGroup
from ipmpi.controller.effects import Send
from ipmpi.controller.farm.farm import Farm
from ipmpi.controller.namedtasks import RESUMED, Keep
from ipmpi.controller.nojournal import NoJournal
from ipmpi.controller.registry import Registry
from ipmpi.controller.restoring import restore
from ipmpi.controller.taskjournal import TaskJournal
from ipmpi.errors import ClientError
from ipmpi.protocol import messages as m, packed
from tests.journal.memory_store import MemoryStore

ALICE, BOB, MALLORY, SET = 1, 2, 3, 9
DAY = 86_400.0


class World:
    """A controller, with or without a journal; one set that runs what it is told to."""

    def __init__(self, journalled: bool, keep: float = 7 * DAY, size: int = 1000) -> None:
        self.wall = 1.7e9
        self.now = 0.0
        self.keep = Keep(keep, size, lambda: self.wall)
        self.store = MemoryStore()
        self.journalled = journalled
        self.heard: dict[int, list[Any]] = {}
        self.given: list[m.GiveTasks] = []
        self.start()
        for key, role in ((ALICE, "tc"), (BOB, "tc"), (MALLORY, "other")):
            self.begin(key, role)
        self.say(ALICE, m.TaskOrigin("laptop", "alice", True))

    def start(self) -> None:
        self.registry = Registry()
        self.farm = Farm(self.registry, 100)
        if not self.journalled:
            self.journal: NoJournal = NoJournal(self.farm, self.keep)
        else:
            self.journal = TaskJournal(self.farm, self.store, lambda line: None, self.keep)
            sessions = SimpleNamespace(
                knows=lambda role: True, restore=lambda *session: None, continue_after=lambda key: None
            )
            comeback = SimpleNamespace(expect=lambda *_: None)  # there are no commands here
            history = SimpleNamespace(clients=(), may_come=lambda *_: None)
            service = SimpleNamespace(sessions=sessions, journal=self.journal, comeback=comeback, history=history)
            restore(self.store.load(), service, 0.0, print)  # type: ignore[arg-type]
        self.begin(SET, "engine")
        self.registry.register(SET, m.Register([m.EngineInfo(0, 0, "host", 100)], "", ""))
        self.farm.registered(SET)
        self.journal.held(SET, m.TasksHeld([], True))
        self.farm.want_tasks(SET, 100)
        self.flush()

    def begin(self, key: int, role: str, holder: str = "", only: frozenset[int] | None = None) -> None:
        former = bytes([key]) if self.heard else b""
        self.journal.began(
            SimpleNamespace(key=key, token=bytes([key]), role=role, former=former, holder=holder, only=only)
        )
        if role != "engine":
            self.farm.limit_to(key, only)

    def say(self, client: int, message: Any) -> None:
        self.journal.told(client, message)
        self.flush()

    def submit(self, client: int, number: int, payloads: list[bytes], name: str = "", **options: Any) -> None:
        message = m.SubmitTasks(
            number, m.TaskOptions(b"op", "f", name=name, **options), packed.pack(map(len, payloads)),
            [sum(map(len, payloads))],
        )  # fmt: skip
        self.journal.submit(client, message, [b"".join(payloads)], 0)
        self.flush()

    def run(self, *, failing: bool = False) -> None:
        """Let the set end all that it has."""
        given, self.given = self.given, []
        for each in given:
            count = packed.count(each.indices)
            failed = packed.pack(range(count)) if failing else b""
            results = m.TaskResults(
                each.group, 0, each.indices, failed, packed.pack([4] * count), 0.1, [4 * count]
            )
            self.journal.results(SET, results, [b"done" * count])
        self.flush()

    def flush(self) -> None:
        self.now += 2.0
        for effect in self.journal.flush(self.now):
            if isinstance(effect, Send):
                if isinstance(effect.message, m.GiveTasks):
                    self.given.append(effect.message)
                self.heard.setdefault(effect.to, []).append(effect.message)

    def names(self, client: int = BOB) -> list[str]:
        return [row[0] for row in self.history(client)]

    def history(self, client: int) -> list[list[Any]]:
        """Return all rows, without their numbers."""
        answer = self.journal.named.history(client, m.TaskHistory(1))
        assert not answer["more"]
        return [row[1:] for row in answer["names"]]

    def follow(self, client: int, name: str) -> list[int]:
        groups = self.journal.named.resume(client, m.ResumeTasks(1, name, 0))["groups"]
        self.heard.pop(client, None)
        self.say(client, m.FollowTasks(7, [group[0] for group in groups]))
        return [-group[0] for group in groups]


@pytest.fixture(params=[False, True], ids=["memory", "journal"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_others_with_the_same_furl_see_them_and_nobody_else(world: World) -> None:
    world.submit(ALICE, 5, [b"a", b"b"], "sweep")
    assert world.history(BOB) == [["sweep", 1.7e9, "laptop", "alice", 2, 0, 0, 2, True]]
    assert world.history(MALLORY) == []
    with pytest.raises(ClientError, match=r"there are no tasks named 'sweep'; .* There are: none"):
        world.journal.named.resume(MALLORY, m.ResumeTasks(1, "sweep", 0))
    with pytest.raises(ClientError, match="were forgotten, or expired"):
        world.journal.named.follow(MALLORY, m.FollowTasks(1, [100]))
    with pytest.raises(ClientError, match="were forgotten, or expired"):
        world.journal.named.abort(MALLORY, m.AbortTasks(1, -100, b"", "drop"))
    with pytest.raises(ClientError, match=r"submitted by alice@laptop on .*: resume\(\) gives them"):
        world.submit(BOB, 1, [b"c"], "sweep")
    world.submit(MALLORY, 1, [b"c"], "sweep")
    with pytest.raises(ClientError, match="at most 120 characters, all of them printable"):
        world.submit(BOB, 2, [b"c"], "a\nb")


def test_a_follower_hears_each_end_once(world: World) -> None:
    world.submit(ALICE, 5, [b"a", b"b"], "sweep")
    world.submit(ALICE, 6, [b"c"], "sweep")
    first = world.given.pop(0)
    second, world.given = world.given, [first]
    world.run()
    world.journal.client_lost(ALICE, orderly=False)
    numbers = world.follow(BOB, "sweep")
    done = [each for each in world.heard[BOB] if isinstance(each, m.TasksDone)]
    assert [each.group for each in done] == numbers[:1]
    assert isinstance(world.heard[BOB][-1], m.Reply)
    world.given = second
    world.run(failing=True)
    assert [each.group for each in world.heard[BOB] if isinstance(each, m.TasksDone)] == numbers
    assert world.history(BOB)[0][4:] == [3, 2, 1, 0, False]
    assert world.follow(BOB, "sweep") == numbers


def test_a_follower_cancels(world: World) -> None:
    world.farm.want_tasks(SET, 0)
    world.submit(ALICE, 5, [b"a", b"b"], "sweep")
    (number,) = world.follow(BOB, "sweep")
    world.journal.named.abort(BOB, m.AbortTasks(8, number, packed.pack([1]), "cancel"))
    world.flush()
    undone = [each for each in world.heard[BOB] if isinstance(each, m.TasksUndone)]
    assert [(each.group, each.indices) for each in undone] == [(number, packed.pack([1]))]
    assert m.Reply(8, packed.pack([1])) in world.heard[BOB]


def test_what_has_ended_is_kept_for_so_long(world: World) -> None:
    world.submit(ALICE, 5, [b"a"], "first")
    world.run()
    world.journal.client_lost(ALICE, orderly=True)
    world.submit(BOB, 5, [b"a"], "waits")
    world.wall += 7 * DAY - 1
    world.flush()
    assert world.names() == ["first", "waits"]
    due = world.journal.next_deadline(world.now)
    assert due is not None
    assert due <= world.now + 1
    world.wall += 2
    world.flush()
    assert world.names() == ["waits"], "what has not ended stays"
    with pytest.raises(
        ClientError, match=r"no tasks named 'first'; they may have been forgotten, or have ended so"
    ):
        world.follow(BOB, "first")
    world.flush()
    if world.journalled:
        world.now += 1
        world.flush()
        assert [row.client for row in world.store.contents.groups] == [BOB]
        assert ALICE not in [row.key for row in world.store.contents.sessions]
        assert world.store.contents.origins == []


def test_what_has_ended_first_is_dropped_first(world: World) -> None:
    for number, name in enumerate(("late", "early", "running")):
        world.submit(ALICE, number, [bytes(400)], name)
    late, early, _ = world.given
    for each in (early, late):
        world.given = [each]
        world.run()
        world.wall += 1
    assert world.names() == ["late", "running"]
    world.journal.client_lost(ALICE, orderly=False)
    world.submit(BOB, 1, [bytes(900)], "new")
    assert world.names() == ["new"], "then what has ended, and then tasks of clients that are gone"


def test_tasks_without_a_name_are_dropped_in_order_and_go_on_otherwise(world: World) -> None:
    for client in (ALICE, BOB):
        world.submit(client, 5, [b"a"])
        world.submit(client, 6, [b"b"], detach=False)
    world.journal.client_lost(ALICE, orderly=True)
    world.journal.client_lost(BOB, orderly=False)
    world.flush()
    world.begin(7, "tc")
    assert world.names(7) == [f"unnamed-{BOB}"]
    world.run()
    (number,) = world.follow(7, f"unnamed-{BOB}")
    assert [each.group for each in world.heard[7] if isinstance(each, m.TasksDone)] == [number]


def test_a_client_that_asked_for_it_ends_its_tasks(world: World) -> None:
    carol = 5
    world.begin(carol, "tc")
    world.say(carol, m.TaskOrigin("laptop", "carol", False))
    world.submit(carol, 5, [b"a"], "sweep")
    world.submit(carol, 6, [b"b"], "other", detach=True)
    world.journal.client_lost(carol, orderly=False)
    world.flush()
    assert world.names() == ["other"]


def test_forgotten_tasks_are_told_to_followers(world: World) -> None:
    world.submit(ALICE, 5, [b"a", b"b"], "sweep")
    (number,) = world.follow(BOB, "sweep")
    assert world.journal.named.forget(BOB, m.ForgetTasks(1, "sweep")) == 2
    world.flush()
    undone = [each for each in world.heard[BOB] if isinstance(each, m.TasksUndone)]
    assert [(each.group, each.indices, each.error) for each in undone] == [
        (number, packed.pack([0, 1]), "TaskAborted")
    ]
    assert world.names() == []
    world.run()


def test_tasks_whose_arguments_are_with_a_client_that_is_gone_say_so(world: World) -> None:
    message = m.SubmitTasks(5, m.TaskOptions(b"op", "f", name="sweep"), b"", [100_000])
    world.journal.submit(ALICE, message, [], 44)
    world.flush()
    world.journal.client_lost(ALICE, orderly=False)
    world.flush()
    (number,) = world.follow(BOB, "sweep")
    if world.given:  # the set has it, and asks for its body
        world.farm.bodies.want(SET, m.WantTaskBody(-number, 0, [0]))
        world.flush()
    (undone,) = [each for each in world.heard[BOB] if isinstance(each, m.TasksUndone)]
    assert undone.error == "ConnectionError"
    assert (
        "f was not run: its arguments, of 100000 bytes, were still with the client, which is gone" in undone.text
    )


def test_they_are_there_after_a_restart() -> None:
    world = World(True)
    world.submit(ALICE, 5, [b"a", b"b"], "sweep")
    world.submit(ALICE, 6, [b"c"])
    world.given.pop()
    world.run()
    world.journal.client_lost(ALICE, orderly=False)
    world.now += 1
    world.flush()
    before = world.history(BOB)
    world.start()
    world.begin(7, "tc")
    found = world.history(7)
    assert [row[:7] for row in found] == [row[:7] for row in before]
    (number,) = world.follow(7, "sweep")
    assert [each.group for each in world.heard[7] if isinstance(each, m.TasksDone)] == [number]
    (number,) = world.follow(7, f"unnamed-{ALICE}")
    assert world.given, "it runs again, as no set has it"
    world.run()
    assert [each.group for each in world.heard[7] if isinstance(each, m.TasksDone)] == [number]


# --- furls that were given out -------------------------------------------------------------------------------

SHARED = 4


@pytest.mark.parametrize(("engines", "runs"), [({5}, False), ({0, 5}, True), ({}, False)], ids=str)
@pytest.mark.parametrize("is_gone", [False, True], ids=["away", "gone"])
def test_the_bounds_of_a_furl_hold_after_a_restart(engines: set[int], runs: bool, is_gone: bool) -> None:
    """Its holder has vanished, or has not come back: its tasks run on the engines of its furl only."""
    world = World(True)
    world.farm.want_tasks(SET, 0)
    world.begin(SHARED, "tc", "ab12", frozenset(engines))
    world.submit(SHARED, 5, [b"a", b"b"], "sweep")
    if is_gone:
        world.journal.client_lost(SHARED, orderly=False)
    world.flush()
    assert world.given == []
    world.start()
    world.now += 1000
    world.flush()
    assert bool(world.given) is runs


def test_who_holds_another_furl_is_a_stranger_after_a_restart_too() -> None:
    """Also if its client has never said who it is."""
    world = World(True)
    world.begin(SHARED, "tc", "ab12")
    world.submit(SHARED, 5, [b"a"], "theirs")
    world.submit(ALICE, 5, [b"a"], "ours")
    world.start()
    assert world.names(SHARED) == ["theirs"]
    assert world.names(BOB) == ["ours"]


def test_tasks_of_a_furl_that_has_ended_are_cancelled(world: World) -> None:
    for key in (SHARED, SHARED + 1, SHARED + 2):
        world.begin(key, "tc", "ab12" if key != SHARED + 2 else "other")
    world.submit(SHARED, 5, [b"a", b"b"], "sweep")
    running = world.given[:]
    world.farm.want_tasks(SET, 0)
    for key in (SHARED, SHARED + 1, SHARED + 2, ALICE):
        world.submit(key, 6, [b"c"], f"waits-{key}")
    assert world.journal.named.holders() == {"tc", "tc ab12", "tc other"}
    world.journal.client_lost(SHARED, orderly=False)
    world.journal.named.dismissed(SHARED + 1)
    world.journal.client_lost(SHARED + 1, orderly=False)
    world.journal.named.furl_ended("tc ab12")
    world.flush()
    world.given = running
    world.run()
    world.farm.want_tasks(SET, 100)
    world.flush()
    assert world.journal.named.holders() == {"tc", "tc other"}
    assert sum(packed.count(each.indices) for each in world.given) == 2, "those of others run"
    if world.journalled:
        world.now += 1
        world.flush()
        assert {row.client for row in world.store.contents.groups} == {SHARED + 2, ALICE}
        assert {row.client for row in world.store.contents.bundles} == {SHARED + 2, ALICE}
        assert not {SHARED, SHARED + 1} & {row.key for row in world.store.contents.sessions}


def test_the_furl_ends_while_its_holder_is_away() -> None:
    world = World(True)
    world.farm.want_tasks(SET, 0)
    world.begin(SHARED, "tc", "ab12")
    world.submit(SHARED, 5, [b"a"])
    world.start()
    world.journal.named.furl_ended("tc ab12")
    world.now += 1000
    world.flush()
    due = world.journal.next_deadline(world.now)
    assert due is not None
    assert due <= world.now + 0.02, "it is written soon, also if nothing else happens"
    world.flush()
    assert world.given == []
    assert world.store.contents.groups == []


# --- clients that do odd things ------------------------------------------------------------------------------


def test_who_submits_is_said_once() -> None:
    world = World(True)
    for number in range(50):
        world.say(ALICE, m.TaskOrigin("laptop", f"alice{number}", True))
        world.say(BOB, m.TaskOrigin("?", "?", True))
    world.now += 1
    world.flush()
    assert [row.user for row in world.store.contents.origins] == ["alice"]


def test_a_name_may_be_used_again_in_the_turn_in_which_it_was_forgotten(world: World) -> None:
    world.farm.want_tasks(SET, 0)
    world.submit(ALICE, 5, [b"a"], "sweep")
    world.journal.named.forget(BOB, m.ForgetTasks(1, "sweep"))
    world.submit(ALICE, 6, [b"b", b"c"], "sweep")
    assert [row[:1] + row[4:5] for row in world.history(BOB)] == [["sweep", 2]]
    world.farm.want_tasks(SET, 100)
    world.flush()
    world.run()
    done = [each.group for each in world.heard[ALICE] if isinstance(each, m.TasksDone)]
    assert done == [6]
    (number,) = world.follow(BOB, "sweep")
    assert [each.group for each in world.heard[BOB] if isinstance(each, m.TasksDone)] == [number]
    if world.journalled:
        assert [each.groups for each in world.heard[ALICE] if isinstance(each, m.TasksAccepted)] == [[5], [6]]


def test_results_are_told_once_to_who_asks_for_a_group_many_times(world: World) -> None:
    world.submit(ALICE, 5, [b"a"], "sweep")
    world.run()
    (number,) = world.follow(BOB, "sweep")
    world.heard.pop(BOB)
    world.say(BOB, m.FollowTasks(8, [-number] * 1000))
    assert [type(each) for each in world.heard[BOB]] == [m.TasksDone, m.Reply]
    with pytest.raises(ClientError, match="at most 4,096 groups at a time"):
        world.journal.named.follow(BOB, m.FollowTasks(9, list(range(5000))))


def test_results_of_a_client_that_is_there_do_not_fill_the_memory(world: World) -> None:
    """It has them already, or will get them: what is kept in addition for others is bounded."""
    for number in range(200):
        world.submit(ALICE, number, [b"a" * 10], "sweep")
        world.run()
        world.say(ALICE, m.TasksFetched([number]))
    world.farm.want_tasks(SET, 0)
    world.submit(ALICE, 1000, [b"a"], "sweep")
    bundle = world.journal.named._bundles.find("tc", "sweep")
    assert bundle.size <= 1000
    assert world.names() == ["sweep"]
    numbers = world.follow(BOB, "sweep")
    assert len(numbers) == 201
    told = world.heard[BOB]
    undone = [each for each in told if isinstance(each, m.TasksUndone)]
    assert undone
    assert "the bundle has more results than the controller keeps: see --keep-bytes" in undone[0].text
    assert len(undone) + sum(isinstance(each, m.TasksDone) for each in told) == 200
    if world.journalled:
        assert len(world.store.contents.groups) < 100


def remembered() -> int:
    """Groups that are in the memory of this process."""
    return sum(isinstance(each, BundleGroup) for each in gc.get_objects())


@pytest.mark.parametrize("name", ["", "sweep"])
def test_a_client_that_submits_for_ever_takes_no_more_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a journal, no client says which results it has."""
    monkeypatch.setattr(bundles, "ENDED", 5)
    world = World(False, size=10**6)
    gc.collect()
    before = remembered()
    for number in range(1, 51):
        world.submit(ALICE, number, [b"a", b"b"], name)
        world.run(failing=number % 10 == 0)
    gc.collect()
    (row,) = world.journal.named.history(BOB, m.TaskHistory(1))["names"]
    assert row[5:9] == [100, 90, 10, 0], "all count"
    if name:
        assert remembered() - before == 50, "whoever resumes them gets all"
    else:
        assert remembered() - before <= 10


def test_what_is_open_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "ENDED", 2)
    world = World(False)
    world.submit(ALICE, 1, [b"a"])
    (slow,), world.given = world.given, []
    for number in range(2, 22):
        world.submit(ALICE, number, [b"b"])
        world.run()
    world.journal.client_lost(ALICE, False)
    world.flush()
    (name,) = world.names()
    groups = world.journal.named.resume(BOB, m.ResumeTasks(1, name, 0))["groups"]
    assert slow.group in [group[0] for group in groups]
    world.follow(BOB, name)
    world.given.append(slow)
    world.run()
    done = [each for each in world.heard[BOB] if isinstance(each, m.TasksDone)]
    assert [each.group for each in done] == [-slow.group]


# --- many names ----------------------------------------------------------------------------------------------


def test_any_number_of_names_is_told_in_pieces_that_fit_into_messages(world: World) -> None:
    names = [f"{number} " + "\N{GRINNING FACE}" * 50 for number in range(20_000)]
    for number, name in enumerate(names):
        message = m.SubmitTasks(number + 1, m.TaskOptions(b"op", "f", name=name), packed.pack([1]), [1])
        world.journal.submit(ALICE, message, [b"x"], 0)
    world.flush()
    found: list[str] = []
    after, more = 0, True
    while more:
        answer = world.journal.named.history(BOB, m.TaskHistory(1, after))
        assert len(m.encode(m.Reply(1, answer))) < limits.MESSAGE // 4
        found += [row[1] for row in answer["names"]]
        after, more = answer["names"][-1][0], answer["more"]
    assert found == names


def test_groups_with_the_longest_labels_are_told_in_pieces_that_fit_into_messages(world: World) -> None:
    label = "\N{GRINNING FACE}" * (limits.LABEL + 1)
    for number in range(1, RESUMED + 2):
        options = m.TaskOptions(b"op", label, name="sweep")
        world.journal.submit(ALICE, m.SubmitTasks(number, options, packed.pack([1]), [1]), [b"x"], 0)
    world.flush()
    found: list[int] = []
    after, more = 0, True
    while more:
        answer = world.journal.named.resume(BOB, m.ResumeTasks(1, "sweep", after))
        assert len(m.encode(m.Reply(1, answer))) < limits.MESSAGE
        found += [row[0] for row in answer["groups"]]
        after, more = answer["groups"][-1][0], answer["more"]
    assert len(found) == len(set(found)) == RESUMED + 1


def test_names_that_come_and_go_between_two_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmpi.controller.namedtasks._ANSWER", 0)  # one name in each
    for number, name in enumerate(["first", "second", "third"], 1):
        world.submit(ALICE, number, [b"x"], name)
    first = world.journal.named.history(BOB, m.TaskHistory(1))
    assert [row[1] for row in first["names"]] == ["first"]
    for name in ("first", "second"):
        world.journal.named.forget(BOB, m.ForgetTasks(2, name))
    world.submit(ALICE, 4, [b"x"], "fourth")
    second = world.journal.named.history(BOB, m.TaskHistory(3, first["names"][-1][0]))
    assert [row[1] for row in second["names"]] == ["third"]
    assert second["more"]
    third = world.journal.named.history(BOB, m.TaskHistory(4, second["names"][-1][0]))
    assert [row[1] for row in third["names"]] == ["fourth"]
    assert not third["more"]
