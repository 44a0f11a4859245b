"""The history of commands in a controller that was started again."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ipmpi.controller.clienthistory import GROWS, RETRY, ClientHistory
from ipmpi.controller.commands.history import Bounds, CommandHistory
from ipmpi.controller.commands.resumed import FORGOTTEN, HAS_IT, NOT_BACK, NOT_KEPT, WAITED
from ipmpi.controller.commands.router import Router
from ipmpi.ids import Ids
from ipmpi.journal.notefile import NoteFile
from ipmpi.protocol import messages as m
from tests.controller.commands.test_history import ALICE, BOB, World
from tests.controller.test_comeback import SET, Controller

LATE = 11


class Written(World):
    """A world whose history is written."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        super().__init__(bounds)
        self.notes = list(self.history.written())

    def flush(self) -> list[Any]:
        effects = super().flush()
        if hasattr(self, "notes"):
            self.notes += self.history.written()
        return effects

    def next(self, notes: list[bytes] | None = None) -> CommandHistory:
        """The history of the next controller."""
        found = CommandHistory({}, self.clock, self.history._bounds)
        found.restore(self.notes if notes is None else notes)
        found.came(BOB, "mec")
        return found


def listed(history: CommandHistory) -> dict[str, Any]:
    answer = history.listed(BOB, m.CommandHistory(1), [])
    for row in answer["commands"]:
        row[:4] = row[1:3]  # places may differ, and clients are gone
        del row[12]  # whether it has begun is told by the sets
    return answer


def told(history: CommandHistory, number: int) -> list[Any]:
    history.follow(BOB, m.FollowCommand(77, ALICE, number))
    return [effect.message for effect in history.pass_on([]) if hasattr(effect, "message")]


def test_what_had_ended_is_told_as_before() -> None:
    world = Written()
    world.command(5)
    world.prints(5, b"one\n")
    world.answer(5, [0, 1], out=b"fine")
    world.answer(5, [2], ok=False, out=b"bad")
    world.flush()
    world.router.client_lost(ALICE, 1005.0)
    world.flush()
    before = world.follow(5)
    found = world.next()
    assert told(found, 5) == before
    answer = found.listed(BOB, m.CommandHistory(1), [])
    assert answer["left"] == 1005.0
    (row,) = answer["commands"]
    assert row[1:11] == [ALICE, 5, 2, 1000.0, 1000.0, "laptop", "alice", "execute", "execute(5)", b"op"]


@pytest.mark.parametrize("seed", range(60))
def test_the_next_controller_has_what_this_one_has(seed: int) -> None:
    chance = random.Random(seed)
    bounds = Bounds(chance.choice([3, 500]), chance.choice([3000, 1 << 20]), chance.choice([1000, 1 << 20]))
    world = Written(bounds)
    open_ones: dict[int, set[int]] = {}
    number = 0
    for _ in range(120):
        world.clock.now += 1
        draw = chance.random()
        given = [each for each in open_ones if each in world.given and open_ones[each]]
        if draw < 0.3:
            number += 1
            targets = sorted(chance.sample(range(3), chance.randint(1, 3)))
            world.command(number, targets)
            open_ones[number] = set(targets)
        elif draw < 0.6 and given:
            world.prints(chance.choice(given), bytes(chance.randrange(400)))
        elif given:
            one = chance.choice(given)
            rank = chance.choice(sorted(open_ones[one]))
            running = world.router._queues.look(rank).running
            if running is not None and running.id == one:
                open_ones[one].discard(rank)
                world.answer(one, [rank], ok=chance.random() < 0.8, stream=chance.choice([0, 0, number + 1000]))
        world.flush()
    world.history._shrink()  # a large answer does not do that
    same = listed(world.history)
    whole = list(world.history.whole())
    for found in (world.next(), world.next(whole)):
        found._shrink()
        assert listed(found) == same
        assert found._size == world.history._size
    again = world.next()
    again.written()
    assert listed(world.next(list(again.whole()))) == same


def test_when_a_client_was_there_for_the_last_time() -> None:
    world = Written()
    world.command(5)
    world.clock.now = 1010.0
    world.prints(5, b"heard\n")
    world.history.is_away = lambda client: True
    world.clock.now = 1020.0
    world.prints(5, b"missed\n")
    assert world.next().seen(ALICE) == world.next(list(world.history.whole())).seen(ALICE) == 1010.0
    assert world.next().seen(99) is None


def test_what_is_no_note_ends_the_history_there() -> None:
    world = Written()
    world.command(5)
    found = CommandHistory({}, world.clock)
    with pytest.raises(msgspec.DecodeError):
        found.restore([*world.notes, b"rubbish", *world.notes])
    assert len(found._pasts) == 1


# --- what became of commands that had not ended ---------------------------------------------------------------


class Restarted:
    """A controller that was started again, and to which the client of commands 5, 6, ... does not come back."""

    def __init__(self, *given: list[int], there: bool = False, sets: bool = True) -> None:
        before = Written()
        for number, targets in enumerate(given, 5):
            before.command(number, targets)
        clients = [ALICE] if there else []
        self.controller = Controller(clients=clients) if sets else Controller(sets=(), clients=clients)
        self.history = self.controller.router.history
        self.history.restore(before.notes)
        self.history.came(BOB, "mec")

    def say(self, *messages: m.AnyMessage) -> None:
        self.controller.set_registers()
        for message in messages:
            self.controller.hears(SET, message)
        self.controller.hears(SET, m.CommandsHeld(is_last=True))
        self.controller.router.flush(0.0)

    def undone(self, number: int) -> dict[str, list[int]]:
        """The sentences that are told of engines, without the label."""
        self.history.follow(BOB, m.FollowCommand(70 + number, ALICE, number))
        effects = self.history.pass_on([])
        messages = [effect.message for effect in effects if hasattr(effect, "message")]
        return {each.text: list(each.engines) for each in messages if isinstance(each, m.Undone)}

    def state(self, number: int) -> list[list[int]]:
        """The engines that have answered, and those that have failed."""
        past = self.history.find(ALICE, number)
        assert past is not None
        return [list(past.answered), list(past.failed)]


def held(number: int, **ranks: list[int]) -> m.CommandsHeld:
    return m.CommandsHeld(number, ALICE, number, "execute", 2, **ranks)


def result(number: int, ranks: list[int]) -> m.Result:
    return m.Result(number, ranks, True, b"out")


def test_what_ended_meanwhile_is_found() -> None:
    again = Restarted([0, 1])
    again.say(held(5, ended=[0, 1]), result(5, [0, 1]))
    assert again.state(5) == [[0, 1], []]
    assert again.undone(5) == {}


def test_what_runs_is_followed_to_its_end() -> None:
    again = Restarted([0, 1])
    again.say(held(5, running=[0, 1]))
    assert again.undone(5) == {}
    assert again.controller.router.queue_status(None)[0][1] == "execute(5)", "the label is known again"
    again.controller.router.result(SET, result(5, [0, 1]), [], 0)
    told = again.controller.router.flush(0.0)
    assert [(effect.to, effect.message.id) for effect in told] == [(BOB, 75)]  # type: ignore[union-attr]
    assert again.state(5) == [[0, 1], []]


def test_what_waited_did_not_run() -> None:
    again = Restarted([0, 1], [0, 1])
    again.say(held(5, running=[0], lost=[1]))
    assert again.undone(5) == {f"execute(5) {NOT_KEPT} (engine 1)": [1]}
    assert again.undone(6) == {f"execute(6) {WAITED} (engines 0-1)": [0, 1]}


def test_what_a_set_has_forgotten_may_have_run() -> None:
    again = Restarted([0, 1])
    again.controller.set_registers()
    again.controller.hears(SET, m.CommandsHeld(is_last=True, forgotten=[(ALICE, 5)]))
    again.controller.router.flush(0.0)
    assert again.undone(5) == {f"execute(5) {FORGOTTEN} (engines 0-1)": [0, 1]}


def test_engines_that_do_not_come_back() -> None:
    again = Restarted([1, 2])
    again.say(held(5, running=[1]))
    assert again.undone(5) == {f"execute(5): {NOT_BACK} (engine 2)": [2]}
    alone = Restarted([0], there=True)
    alone.controller.comeback.due(30.0)
    alone.controller.router.flush(0.0)
    assert alone.undone(5) == {}, "its client may come back, and send it again"


def test_without_a_set_nothing_is_waited_for() -> None:
    before = Written()
    before.command(5, [0])
    router = Router()
    router.history.restore(before.notes)
    router.history.came(BOB, "mec")
    again = Restarted(sets=False)
    comeback = type(again.controller.comeback)(router.resumed, lambda *_: None, lambda *_: None, {})
    comeback.expect([], [], 20.0)
    router.flush(0.0)
    past = router.history.find(ALICE, 5)
    assert past is not None
    assert not past.is_open


def test_a_client_that_is_away_hides_nothing_and_may_come_back() -> None:
    again = Restarted([0, 1], [0, 1], there=True)
    printed = m.Output(5, [m.OutputBlock(m.STDOUT, 0, [0], b"one\n")])
    again.say(held(5, ended=[0, 1]), printed, result(5, [0, 1]))
    assert again.state(5) == [[0, 1], []]
    assert again.state(6) == [[], []]
    five = m.CommandAgain(5, [0, 1], "execute", "execute(5)", b"op", engines=[0, 1], lacks=[0, 1])
    six = m.CommandAgain(6, [0, 1], "execute", "execute(6)", b"op", engines=[0, 1], lacks=[0, 1])
    for message in (five, six, m.CommandsTold()):
        again.controller.hears(ALICE, message, role="mec")
    sent = [effect.message for effect in again.controller.router.flush(0.0) if effect.to == ALICE]  # type: ignore[union-attr]
    assert [type(each) for each in sent] == [m.Output, m.Result], "it lacked all of that"
    past = again.history.find(ALICE, 5)
    assert past is not None
    assert (len(past.printed), len(past.answers)) == (1, 1), "each is kept once"
    waits = again.history.find(ALICE, 6)
    assert waits is not None
    assert waits.work is not None, "and the other runs"


def test_what_its_client_has_and_nobody_else() -> None:
    again = Restarted([0, 1], there=True)
    again.controller.hears(ALICE, m.CommandsTold(), role="mec")
    again.say()
    assert again.undone(5) == {f"execute(5) {HAS_IT} (engines 0-1)": [0, 1]}


def test_a_client_that_ends_later_settles_its_commands() -> None:
    again = Restarted([0, 1], there=True)
    again.say()
    assert again.state(5) == [[], []]
    session: Any = SimpleNamespace(role="mec", key=ALICE, former=b"")
    again.controller.comeback.ended(session)
    again.controller.router.flush(0.0)
    assert again.undone(5) == {f"execute(5) {WAITED} (engines 0-1)": [0, 1]}


def test_another_choice_of_engines_is_another_number_of_answers() -> None:
    again = Restarted([0, 1, 2], there=True)
    again.say()
    again.controller.hears(ALICE, m.CommandAgain(5, None, "execute", "execute(5)", b"op"), role="mec")
    again.controller.hears(ALICE, m.CommandsTold(), role="mec")
    again.controller.router.flush(0.0)
    past = again.history.find(ALICE, 5)
    assert past is not None
    assert (past.engines, past.many) == (Ids.of([0, 1]), 2)


# --- the file -------------------------------------------------------------------------------------------------


class Kept:
    """A controller that writes its history."""

    def __init__(self, path: Path) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.world = World()
        self.timers: list[tuple[float, Callable[[], object]]] = []
        loop: Any = SimpleNamespace(now=lambda: self.now, call_later=self._later, report=None)
        self.file = NoteFile(path)
        self.history = ClientHistory(loop, self.world.router, {}, self.lines.append)
        self.history.keep_in(self.file)

    def run(self, number: int, out: bytes = b"out") -> None:
        world = self.world
        command = m.Command(number, [0], "execute", f"execute({number})", b"op")
        for step in (
            lambda: world.router.command(ALICE, command, [], 0),
            lambda: world.answer(number, [0], out=out),
        ):
            step()
            for effect in self.history.flush(self.now):
                if isinstance(getattr(effect, "message", None), m.Dispatch):
                    world.given[number] = effect.message.id  # type: ignore[union-attr]

    def _later(self, delay: float, call: Callable[[], object], _on_error: object) -> None:
        self.timers.append((self.now + delay, call))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        due, self.timers = [each for each in self.timers if each[0] <= self.now], []
        for _, call in due:
            call()

    def names(self) -> list[tuple[int, int]]:
        return self.world.names()


def test_each_turn_is_written_before_it_is_told(tmp_path: Path) -> None:
    first = Kept(tmp_path / "file")
    for number in range(5, 8):
        first.run(number)
    assert Kept(tmp_path / "file").names() == [(ALICE, 5), (ALICE, 6), (ALICE, 7)]


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "file")
    sizes = set()
    for number in range(3000):
        kept.run(number, bytes(10_000))
        sizes.add(kept.file.size)
    assert max(sizes) < 2 * 500 * 11_000 + GROWS + 100_000
    assert len(Kept(tmp_path / "file").names()) == 500


def test_a_disk_that_is_full_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path / "file")
    kept.run(5)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        kept.run(6)
        kept.wait(RETRY)
        kept.run(7)
    assert len(kept.lines) == 1
    assert "(No space left on device): if the controller is killed before that is possible" in kept.lines[0]
    kept.run(8)
    assert Kept(tmp_path / "file").names() == [(ALICE, 5)], "not yet"
    kept = Kept(tmp_path / "file")
    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        kept.run(9)
    kept.wait(RETRY)
    assert kept.lines[1].startswith("the history of commands is written again")
    again = World()
    again.history.restore(NoteFile(tmp_path / "file").read())
    assert again.names()[-1] == (ALICE, 9), "without another command"
    kept.run(10)
    assert Kept(tmp_path / "file").names()[-2:] == [(ALICE, 9), (ALICE, 10)]


def test_a_file_that_cannot_be_read_to_its_end_is_said(tmp_path: Path) -> None:
    file = NoteFile(tmp_path / "file")
    file.replace([b"rubbish"])
    file.close()
    kept = Kept(tmp_path / "file")
    assert "cannot be read to its end" in kept.lines[0]
    kept.run(5)
    assert Kept(tmp_path / "file").names() == [(ALICE, 5)]


def test_of_what_comes_before_rubbish_it_is_found_out_what_became(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "file")
    kept.world.router.command(ALICE, m.Command(5, [0], "execute", "execute(5)", b"op"), [], 0)
    kept.history.flush(kept.now)
    kept.file.append([b"rubbish"])
    after = Kept(tmp_path / "file")
    assert "cannot be read to its end" in after.lines[0]
    assert [past.name for past in after.world.history.unsettled(ALICE)] == [(ALICE, 5)]
