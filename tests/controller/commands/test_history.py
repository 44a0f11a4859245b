"""Commands of clients that are gone, or of others with the same furl: which are found, and what is told."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.controller.commands.history import Bounds, CommandHistory
from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Decline, Effect, Forward, GiveUp, Send
from ipmpi.errors import ClientError
from ipmpi.ids import Ids
from ipmpi.protocol import messages as m

ALICE, BOB, MALLORY, SET = 1, 2, 3, 10
BIG = 500_000


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A router with three engines, and two clients with one furl beside one with another."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.clock = Clock()
        self.router = Router()
        self.history = CommandHistory(self.router._clients, self.clock, *([bounds] if bounds else []))
        self.router.history = self.history
        for client, holder in ((ALICE, "mec"), (BOB, "mec"), (MALLORY, "reader")):
            self.history.came(client, holder)
        self.history.origin(ALICE, m.CommandOrigin("laptop", "alice"))
        infos = [m.EngineInfo(rank, rank, "n1", 100 + rank) for rank in range(3)]
        self.router.register(SET, m.Register(infos, "MPI", "3.11"))
        self.told: list[tuple[int, Any]] = []
        self.given: dict[int, int] = {}
        """By number of a command of Alice: its serial."""
        self.flush()

    def flush(self) -> list[Effect]:
        effects = self.router.flush()
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, m.Dispatch):
                self.given[effect.message.number] = effect.message.id
            elif isinstance(effect, Send):
                self.told.append((effect.to, effect.message))
        return effects

    def command(self, number: int, targets: list[int] | None = None, client: int = ALICE, **more: Any) -> None:
        sent = m.Command(number, targets, "execute", f"execute({number})", b"op", more.get("sizes", []))
        self.router.command(client, sent, [], more.get("stream", 0))
        self.flush()

    def answer(self, number: int, ranks: list[int], *, ok: bool = True, stream: int = 0, out: bytes = b"") -> None:
        sizes = [BIG] if stream else []
        self.router.result(SET, m.Result(self.given[number], ranks, ok, out or b"out", sizes), [], stream)

    def prints(self, number: int, text: bytes, ranks: list[int] | None = None) -> None:
        block = m.OutputBlock(m.STDOUT, 0, ranks or [0, 1, 2], text)
        self.router.output(SET, m.Output(self.given[number], [block]))
        self.flush()

    def list(self, client: int = BOB, **asked: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.history.listed(client, m.CommandHistory(1, **asked), [])
        return answer

    def names(self, client: int = BOB) -> list[tuple[int, int]]:
        return [(row[1], row[2]) for row in self.list(client)["commands"]]

    def follow(self, number: int, own: int = 77, client: int = BOB, **more: Any) -> list[Any]:
        """What Bob is told at once when he follows a command of Alice."""
        self.told.clear()
        self.history.follow(client, m.FollowCommand(own, ALICE, number, **more))
        self.flush()
        return self.heard(client)

    def heard(self, client: int = BOB) -> list[Any]:
        found = [message for to, message in self.told if to == client]
        self.told.clear()
        return found


@pytest.fixture
def world() -> World:
    return World()


def answered(messages: list[Any]) -> list[tuple[str, list[int]]]:
    return [
        (type(each).__name__, list(each.engines)) for each in messages if isinstance(each, m.Result | m.Undone)
    ]


def test_a_new_client_finds_what_a_gone_one_has_given(world: World) -> None:
    world.command(5, [0, 1])
    world.command(6, [1])
    world.command(7, [2])
    world.clock.now = 1010.0
    world.answer(5, [0], ok=False)
    world.answer(7, [2])
    world.flush()
    world.router.client_lost(ALICE, 1005.0)
    listed = world.list()
    assert (listed["now"], listed["left"], listed["dropped"], listed["more"]) == (1010.0, 1005.0, 0, False)
    fifth, sixth, seventh = listed["commands"]
    assert fifth[1:11] == [ALICE, 5, 2, 1000.0, 0.0, "laptop", "alice", "execute", "execute(5)", b"op"]
    assert [list(ids) for ids in fifth[11:14]] == [[0, 1], [0], [0]]
    assert (fifth[14], sixth[14]) == (True, False), "the one behind has not begun"
    assert (seventh[5], [list(ids) for ids in seventh[11:14]]) == (1010.0, [[2], [2], []])


def test_what_ended_after_its_client_had_gone_is_told_and_not_sent_to_nobody(world: World) -> None:
    world.command(5)
    world.router.client_lost(ALICE)
    world.told.clear()
    world.prints(5, b"one\n")
    world.answer(5, [0, 1, 2], out=b"three")
    assert [each for each in world.flush() if isinstance(each, Send)] == []
    accepted, output, result = world.follow(5)
    assert accepted == m.Accepted(77, Ids.of([0, 1, 2]))
    assert (output.id, output.blocks[0].data, list(output.blocks[0].engines)) == (77, b"one\n", [0, 1, 2])
    assert (result.id, list(result.engines), result.outcome) == (77, [0, 1, 2], b"three")


def test_a_running_command_is_followed_to_its_end(world: World) -> None:
    world.command(5)
    world.answer(5, [1])
    world.flush()
    assert answered(world.follow(5)) == [("Result", [1])]
    world.prints(5, b"more\n", [0])
    world.answer(5, [0, 2])
    world.flush()
    output, result = world.heard()
    assert (output.id, result.id, list(result.engines)) == (77, 77, [0, 2])


def test_its_own_client_hears_all_of_it_as_before(world: World) -> None:
    world.command(5)
    world.follow(5)
    world.answer(5, [0, 1, 2])
    world.flush()
    assert sorted((to, message.id) for to, message in world.told) == [(ALICE, 5), (BOB, 77)]


def test_an_answer_of_the_same_turn_is_told_once(world: World) -> None:
    world.command(5)
    world.answer(5, [0])
    world.history.follow(BOB, m.FollowCommand(77, ALICE, 5))
    world.answer(5, [1, 2])
    world.flush()
    assert answered(world.heard()) == [("Result", [0]), ("Result", [1, 2])]


def test_holders_of_other_furls_neither_see_nor_follow(world: World) -> None:
    world.command(5)
    assert world.names(MALLORY) == []
    with pytest.raises(ClientError, match=r"there is no command 1-5.*there is none; see"):
        world.history.follow(MALLORY, m.FollowCommand(1, ALICE, 5))


def test_questions_are_not_kept(world: World) -> None:
    for number, method in enumerate(("get_result", "complete", "describe", "pull"), 1):
        world.router.command(ALICE, m.Command(number, [0], method, method, b""), [], 0)
    assert world.names() == [(ALICE, 4)]


def test_a_large_answer_is_not_kept_and_it_is_said(world: World) -> None:
    world.command(5, [0])
    world.router.client_lost(ALICE)
    world.answer(5, [0], stream=9)
    assert world.flush() == [Decline(SET, 9)]
    _, undone = world.follow(5)
    assert (undone.error, list(undone.engines)) == ("ClientError", [0])
    assert "too large to be kept here" in undone.text


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_large_answer_goes_to_who_follows(world: World, is_gone: bool) -> None:
    world.command(5, [0])
    world.follow(5)
    if is_gone:
        world.router.client_lost(ALICE)
    world.answer(5, [0], stream=9)
    (forward,) = [each for each in world.flush() if isinstance(each, Forward)]
    assert [(to, message.id) for to, message in forward.sinks] == [(ALICE, 5), (BOB, 77)][is_gone:]
    world.told.clear()
    world.router.forward_ended(SET, 9, complete=False)
    world.flush()
    assert answered(world.heard()) == [("Undone", [0])], "it did not arrive"


def test_an_engine_that_is_lost_is_told(world: World) -> None:
    world.command(5)
    world.router.client_lost(ALICE)
    world.follow(5)
    world.router.ranks_lost(SET, [0, 1, 2], "killed")
    world.flush()
    assert {each.error for each in world.heard()} == {"EngineLost"}
    assert answered(world.follow(5, 78)) == [("Undone", [0]), ("Undone", [1]), ("Undone", [2])]


def test_a_command_whose_data_its_client_had_not_sent_has_failed(world: World) -> None:
    world.command(4)
    world.command(5, sizes=[BIG], stream=3)
    world.router.client_lost(ALICE)
    world.flush()
    (undone,) = [each for each in world.follow(5) if isinstance(each, m.Undone)]
    assert list(undone.engines) == [0, 1, 2]
    assert "its client was gone before it had sent the data" in undone.text


def test_who_follows_may_interrupt(world: World) -> None:
    world.command(5)
    world.command(6)
    world.router.client_lost(ALICE)
    world.follow(6, 78)
    assert world.router.interrupt(None, BOB, [78]) == {}
    world.flush()
    assert [(each.id, each.error) for each in world.heard()] == [(78, "KeyboardInterrupt")], "it had not begun"
    world.follow(5)
    assert sorted(world.router.interrupt(None, BOB, [77])) == [0, 1, 2]
    assert world.router.interrupt(None, MALLORY, [77]) == {}


def test_who_has_just_asked_to_follow_may_interrupt(world: World) -> None:
    world.command(5)
    world.history.follow(BOB, m.FollowCommand(77, ALICE, 5))
    assert sorted(world.router.interrupt(None, BOB, [77])) == [0, 1, 2], "in the same turn"


def test_what_was_printed_since(world: World) -> None:
    world.command(5)
    world.prints(5, b"before\n")
    world.clock.now = 1005.0
    world.prints(5, b"after\n")
    accepted, output, undone = world.follow(5, since=1002.0, waits=False)
    assert isinstance(accepted, m.Accepted)
    assert [block.data for block in output.blocks] == [b"after\n"]
    assert (undone.error, list(undone.engines)) == ("ResultNotCompleted", [0, 1, 2])
    assert world.list()["commands"][0][15] == 1005.0
    world.answer(5, [0, 1, 2])
    world.flush()
    assert world.heard() == [], "it is not followed"


# --- bounds ------------------------------------------------------------------------------------------------


def test_the_last_commands_that_have_ended_are_kept(world: World) -> None:
    world = World(Bounds(commands=2))
    world.command(1, [2])
    for number in range(5, 9):
        world.command(number, [0])
        world.answer(number, [0])
        world.flush()
    assert world.names() == [(ALICE, 1), (ALICE, 7), (ALICE, 8)], "what runs is kept"
    assert world.list()["dropped"] == 2
    with pytest.raises(
        ClientError, match=r"no command 1-5\. The last 2 commands that have ended.*1-1 is the oldest"
    ):
        world.history.follow(BOB, m.FollowCommand(77, ALICE, 5))


@pytest.mark.parametrize("most", [0, 1])
def test_the_least_bounds(most: int) -> None:
    world = World(Bounds(most, most, most))
    world.command(5)
    assert [type(each) for each in world.follow(5)] == [m.Accepted]
    world.prints(5, b"text\n")
    world.answer(5, [0, 1, 2])
    world.flush()
    assert [type(each) for each in world.heard()] == [m.Output, m.Result], "who follows is told all the same"
    assert world.names() == []


def test_many_bytes_push_out_what_has_ended_first(world: World) -> None:
    world = World(Bounds(size=4000))
    for number in range(5, 9):
        world.command(number, [0])
        world.answer(number, [0], out=bytes(1000))
        world.flush()
    assert world.names() == [(ALICE, 7), (ALICE, 8)]


def test_of_one_command_the_last_output_is_kept_and_its_answer(world: World) -> None:
    world = World(Bounds(of_one=3000))
    world.command(5, [0])
    for line in range(10):
        world.prints(5, b"%d" % line * 600, [0])
    world.answer(5, [0])
    world.flush()
    _, *outputs, notice, result = world.follow(5)
    assert [each.blocks[0].data[:1] for each in outputs] == [b"8", b"9"]
    assert notice.text == "execute(5): the first 4.7 KiB of what it has printed are not kept"
    assert isinstance(result, m.Result)
    assert world.list()["commands"][0][16] == 4800


def test_answers_that_are_too_many_are_said_not_to_be_kept(world: World) -> None:
    world = World(Bounds(of_one=2000))
    world.command(5)
    for rank in range(3):
        world.answer(5, [rank], out=bytes(900))
        world.flush()
    assert sorted(answered(world.follow(5))) == [("Result", [2]), ("Undone", [0, 1])]


def test_a_running_command_makes_room_when_nothing_else_can() -> None:
    world = World(Bounds(size=3000))
    world.command(5, [0])
    world.command(6, [1])
    for number in (5, 6) * 4:
        world.prints(number, bytes(500), [number - 5])
    assert world.names() == [(ALICE, 5), (ALICE, 6)]
    assert sum(row[16] for row in world.list()["commands"]) > 0
    assert world.history._size <= 3000


def test_a_long_history_comes_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HISTORY_PAGE", 1000)
    for number in range(5, 15):
        world.command(number, [0])
    found, after, pages = [], 0, 0
    while True:
        answer = world.list(after=after)
        found += [row[2] for row in answer["commands"]]
        after, pages = answer["commands"][-1][0], pages + 1
        if not answer["more"]:
            break
    assert (found, pages > 2) == (list(range(5, 15)), True)
    one = world.history.listed(BOB, m.CommandHistory(1, 0, ALICE, 7), [])
    assert [row[2] for row in one["commands"]] == [7]


def test_one_page_fits_into_a_message() -> None:
    world = World()
    router, history = world.router, world.history
    for number in range(200):
        operation = bytes(limits.HISTORY_SOURCE)
        router.command(ALICE, m.Command(number, None, "execute", "\U0001f600" * 200, operation), [], 0)
    answer = history.listed(BOB, m.CommandHistory(1), [])
    assert answer["more"]
    assert len(m.encode(m.Reply(1, answer))) < limits.MESSAGE


def test_a_long_source_is_not_kept(world: World) -> None:
    world.router.command(ALICE, m.Command(5, [0], "execute", "long", bytes(limits.HISTORY_SOURCE + 1)), [], 0)
    assert world.list()["commands"][0][10] == b""


def test_a_number_is_used_once(world: World) -> None:
    world.command(5)
    world.follow(5)
    with pytest.raises(ClientError, match="command 77 is under way already"):
        world.history.follow(BOB, m.FollowCommand(77, ALICE, 5))


def test_nothing_stays_of_clients_that_are_gone_with_their_commands() -> None:
    world = World(Bounds(commands=0))
    world.command(5)
    world.follow(5)
    world.answer(5, [0, 1, 2])
    world.flush()
    world.router.client_lost(ALICE, 1.0)
    world.router.client_lost(BOB, 3.0)
    world.router.client_lost(MALLORY, 2.0)
    history = world.history
    for left in (history._pasts, history._ended, history._owners, history._sessions, +history._counts):
        assert not left
    assert not any(history._followed.values())
    assert (history._size, history._left) == (0, {"mec": 3.0, "reader": 2.0})


def test_when_the_last_client_was_heard_of(world: World) -> None:
    asked = m.CommandHistory(1)
    assert world.history.listed(BOB, asked, [])["left"] is None
    assert world.history.listed(BOB, asked, [(ALICE, 7.0), (BOB, 9.0), (MALLORY, 8.0)])["left"] == 7.0
    world.router.client_lost(ALICE, 6.0)
    assert world.history.listed(BOB, asked, [])["left"] == 6.0


# --- in any order ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_each_who_follows_hears_of_each_engine_once(seed: int) -> None:
    chance = random.Random(seed)
    world = World(Bounds(commands=10_000, size=chance.choice([1 << 30, 5000]), of_one=1 << 20))
    wanted: dict[int, tuple[int, list[int]]] = {}
    heard: dict[int, Counter[int]] = {}
    running: dict[int, set[int]] = {}
    number = 0
    streams = iter(range(1, 10_000))
    is_there = True
    for _ in range(300):
        draw = chance.random()
        if draw < 0.2 and is_there:
            number += 1
            targets = sorted(chance.sample(range(3), chance.randint(1, 3)))
            world.router.command(ALICE, m.Command(number, targets, "execute", "x", b""), [], 0)
            running[number] = set(targets)
        elif draw < 0.6 and (given := [each for each in running if running[each] and each in world.given]):
            serial = chance.choice(given)
            ranks = [rank for rank in running[serial] if runs(world.router, rank) == world.given[serial]]
            if ranks:
                rank = chance.choice(ranks)
                running[serial].discard(rank)
                stream = next(streams) if chance.random() < 0.2 else 0
                world.answer(serial, [rank], ok=chance.random() < 0.8, stream=stream)
        elif draw < 0.8 and number:
            own = 1000 + len(wanted)
            past = chance.randint(1, number)
            row = [each for each in world.list()["commands"] if each[2] == past]
            if row:
                wanted[own] = past, list(row[0][11])
                world.history.follow(BOB, m.FollowCommand(own, ALICE, past))
        elif 0.8 <= draw < 0.805 and number > 5 and is_there:
            is_there = False
            world.router.client_lost(ALICE)
        if chance.random() < 0.6:
            count(world, heard)
    world.router.ranks_lost(SET, [0, 1, 2], "the end")
    count(world, heard)
    refused = {message.id for to, message in world.told if isinstance(message, m.Refused)}
    for own, (_, engines) in wanted.items():
        if own not in refused:
            assert heard[own] == Counter(engines), own
    assert len(wanted) > 20


def runs(router: Router, engine: int) -> int:
    running = router._queues.look(engine).running
    return 0 if running is None else running.serial


def count(world: World, heard: dict[int, Counter[int]]) -> None:
    before = len(world.told)
    effects = world.flush()
    pairs = world.told[before:]
    for effect in effects:
        if isinstance(effect, Forward):
            pairs += effect.sinks
            world.router.forward_ended(effect.source, effect.stream)
        assert not isinstance(effect, GiveUp)
    for to, message in pairs:
        if to == BOB and isinstance(message, m.Result | m.Undone):
            heard.setdefault(message.id, Counter()).update(message.engines)
