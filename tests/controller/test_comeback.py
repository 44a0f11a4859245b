"""Commands go on when the controller is killed: a simulation of router, sets and clients, replayable by its seed.

The long form: ``IPMPI_COMMAND_SEEDS=5000 pytest tests/controller/test_comeback.py``.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi.controller.comeback import ComeBack
from ipmpi.controller.commands.resumed import ResumedCommands
from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Effect, Send
from ipmpi.controller.interfaces import CLIENT_INTERFACES
from ipmpi.engine.agent.commandbook import CommandBook
from ipmpi.ids import Ids
from ipmpi.protocol import messages as m

SEEDS = int(os.environ.get("IPMPI_COMMAND_SEEDS", "60"))
TURNS = 300
INTERFACES = {interface.role: interface for interface in CLIENT_INTERFACES}


class Link:
    """A connection: what is under way in each direction is lost when the controller is killed."""

    def __init__(self, role: str, key: int, former: bytes = b"") -> None:
        self.session: Any = SimpleNamespace(role=role, key=key, former=former)
        self.up: deque[tuple[m.AnyMessage, Sequence[Any]]] = deque()
        self.down: deque[tuple[m.AnyMessage, Sequence[Any]]] = deque()


class Rank:
    """Runs one command after the other; some fail."""

    def __init__(self) -> None:
        self.given: deque[m.Dispatch] = deque()
        self.ran: list[tuple[int, int]] = []


class Set:
    """An engine set: its root agent has the book."""

    def __init__(self, name: bytes, size: int) -> None:
        self.name = name
        self.ranks = [Rank() for _ in range(size)]
        self.ids: list[int] = []
        self.book = CommandBook()
        self.book.is_on = True
        self.link: Link | None = None

    def connect(self, key: int, *, again: bool) -> Link:
        self.link = Link("engine", key, self.name)
        if again:
            self.book.forget_controller(True, True)
        infos = [m.EngineInfo(rank, rank, "n1", 100 + rank) for rank in range(len(self.ranks))]
        self.link.up.append((m.Register(infos, "MPI", "3.11", self.ids), ()))
        self.link.up += self.book.after_registration(range(len(self.ranks)))
        return self.link

    def hears(self, message: m.AnyMessage) -> None:
        if isinstance(message, m.Registered):
            self.ids = list(message.ids)
        elif isinstance(message, m.Dispatch):
            self.book.given(message)
            for rank in message.ranks:
                self.ranks[rank].given.append(message)

    def works(self, chance: random.Random) -> None:
        busy = [number for number, rank in enumerate(self.ranks) if rank.given]
        if not busy:
            return
        number = chance.choice(busy)
        dispatch = self.ranks[number].given.popleft()
        self.ranks[number].ran.append((dispatch.client, dispatch.number))
        result = m.Result(dispatch.id, [number], dispatch.operation != b"fails", b"out")
        self.book.answered(result)
        if self.link is not None:
            self.link.up.append((result, ()))


class Client:
    """Sends commands to some of the engines, and has exactly one reply of each."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.next = 1
        self.open: dict[int, tuple[m.Command, set[int]]] = {}
        self.replies: dict[tuple[int, int], str] = {}
        self.targets: dict[int, list[int]] = {}
        self.link: Link | None = None

    def connect(self, *, again: bool) -> Link:
        self.link = Link("mec", self.key)
        if again:
            for command, lacks in self.open.values():
                told = m.CommandAgain(
                    command.id, command.targets, command.method, command.label, command.operation,
                    below=command.below, engines=command.targets, lacks=Ids.of(sorted(lacks)),
                )  # fmt: skip
                self.link.up.append((told, ()))
            self.link.up.append((m.CommandsTold(), ()))
        return self.link

    def sends(self, engines: list[int], *, fails: bool) -> None:
        number, self.next = self.next, self.next + 1
        below = min(self.open, default=number)
        operation = b"fails" if fails else b"runs"
        command = m.Command(number, engines, "execute", f"command {number}", operation, below=below)
        self.open[number] = command, set(engines)
        self.targets[number] = engines
        if self.link is not None:
            self.link.up.append((command, ()))

    def hears(self, message: m.AnyMessage) -> None:
        assert not isinstance(message, m.Refused), message
        if not isinstance(message, m.Result | m.Undone):
            return
        what = message.error if isinstance(message, m.Undone) else "ok" if message.ok else "failed"
        for engine in message.engines:
            assert (message.id, engine) not in self.replies, f"client {self.key}: a second reply to {message.id}"
            self.replies[message.id, engine] = what
            if message.id in self.open:
                self.open[message.id][1].discard(engine)
        if message.id in self.open and not self.open[message.id][1]:
            del self.open[message.id]


class World:
    """One controller after the other, two sets and three clients."""

    def __init__(self, seed: int, *, failing: bool) -> None:
        self.chance = random.Random(seed)
        self.failing = failing
        self.now = 0.0
        self.sets = [Set(b"first", 2), Set(b"second", 3)]
        self.clients = [Client(key) for key in (1, 2, 3)]
        self.peers: dict[int, Set | Client] = {}
        self.links: dict[int, Link] = {}
        self.to_come: list[Set | Client] = []
        self.notes: list[bytes] = []
        """What the controllers have written of the history of commands."""
        self.next_key = 10
        self.started(again=False)
        while self.to_come:
            self.somebody_comes(again=False)
        self.settle(20)

    def started(self, *, again: bool) -> None:
        self.router = Router(self.chance.randrange(1 << 40))
        self.router.history.restore(self.notes)
        self.router.history.written()
        for client in self.clients:
            self.router.history.came(client.key, "mec")
        if self.chance.random() < 0.5:
            self.notes = list(self.router.history.whole())
        self.comeback = ComeBack(self.router.resumed, self.deliver, self.send, INTERFACES)
        if again:
            self.comeback.expect([1, 2, 3], {each.name for each in self.sets}, self.now + 20)
        self.links.clear()
        self.peers.clear()
        self.to_come = [*self.sets, *self.clients]
        self.chance.shuffle(self.to_come)

    def somebody_comes(self, *, again: bool) -> None:
        peer = self.to_come.pop()
        key = self.next_key if isinstance(peer, Set) else peer.key
        self.next_key += 1
        self.peers[key] = peer
        self.links[key] = peer.connect(key, again=again) if isinstance(peer, Set) else peer.connect(again=again)

    def send(self, key: int, message: m.AnyMessage, body: Sequence[Any]) -> None:
        if key in self.links:
            self.links[key].down.append((message, body))

    def deliver(self, session: Any, event: Any) -> None:
        if self.comeback.takes(session, event):
            return
        message, key = event.message, session.key
        if isinstance(message, m.Register):
            self.router.register(key, message)
        elif isinstance(message, m.Result):
            self.router.result(key, message, event.body, 0)
        else:
            assert isinstance(message, m.Command)
            self.router.command(key, message, event.body, 0)

    def turn(self) -> None:
        """One thing happens."""
        self.now += 0.01
        self.comeback.due(self.now)
        if self.to_come and self.chance.random() < 0.2:
            self.somebody_comes(again=True)
        link = self.chance.choice(list(self.links.values())) if self.links else None
        if link is not None and link.up and self.chance.random() < 0.6:
            message, body = link.up.popleft()
            self.deliver(link.session, SimpleNamespace(message=message, body=body, stream=0))
        elif link is not None and link.down:
            self.peers[link.session.key].hears(link.down.popleft()[0])
        else:
            self.chance.choice(self.sets).works(self.chance)
        effects = self.router.flush(self.now)
        self.notes += self.router.history.written()
        for effect in effects:
            self.performed(effect)

    def performed(self, effect: Effect) -> None:
        assert isinstance(effect, Send), effect
        self.send(effect.to, effect.message, effect.body)

    def settle(self, most: int) -> None:
        for _ in range(most * 100):
            self.turn()
            working = any(rank.given for each in self.sets for rank in each.ranks)
            if not self.to_come and not working and not any(li.up or li.down for li in self.links.values()):
                return

    def kill(self) -> None:
        for peer in (*self.sets, *self.clients):
            peer.link = None
        self.started(again=True)

    def live(self) -> None:
        engines = [0, 1, 2, 3, 4]
        for turn in range(TURNS):
            if self.chance.random() < 0.15:
                targets = sorted(self.chance.sample(engines, self.chance.randint(1, 5)))
                fails = self.failing and self.chance.random() < 0.2
                self.chance.choice(self.clients).sends(targets, fails=fails)
            if self.chance.random() < 0.02 and turn < TURNS - 50:
                self.kill()
            self.turn()
        self.settle(200)

    def check(self) -> None:
        ran: dict[int, list[tuple[int, int]]] = {}
        for each in self.sets:
            for rank, engine in enumerate(each.ids):
                ran[engine] = each.ranks[rank].ran
        places: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        for engine, commands in ran.items():
            assert len(set(commands)) == len(commands), f"engine {engine} ran one twice: {commands}"
            for client in self.clients:
                mine = [number for key, number in commands if key == client.key]
                assert mine == sorted(mine), f"engine {engine}: client {client.key} has another order: {mine}"
            for place, command in enumerate(commands):
                places[command][engine] = place
        for first, where in places.items():
            for second, there in places.items():
                orders = {where[engine] < there[engine] for engine in where if engine in there}
                assert first == second or len(orders) < 2, f"{first} and {second} in two orders"
        for client in self.clients:
            assert not client.open, f"client {client.key} waits for {client.open}"
            for number, targets in client.targets.items():
                for engine in targets:
                    told, has_run = client.replies[number, engine], (client.key, number) in ran[engine]
                    assert told in ({"ok", "failed"} if has_run else {"QueueCleared"}), (number, engine, told)
                    assert self.failing or told == "ok"
        self.check_history()

    def check_history(self) -> None:
        """The history says of each engine what the client was told."""
        rows = self.router.history.listed(1, m.CommandHistory(1), [])["commands"]
        found = {(row[1], row[2]): row for row in rows}
        assert len(found) == len(rows)
        for client in self.clients:
            for number, targets in client.targets.items():
                row = found[client.key, number]
                failed = [each for each in targets if client.replies[number, each] != "ok"]
                assert row[5], f"{client.key}-{number} has not ended in the history"
                assert [list(ids) for ids in row[11:14]] == [targets, targets, failed], (row, failed)
                past = self.router.history._pasts[client.key, number]
                answered = [each for message, _ in past.answers for each in message.engines]
                assert sorted(answered) == targets, f"{past.shown}: {answered}"


def simulate(seeds: int, *, failing: bool) -> None:
    for seed in range(seeds):
        try:
            world = World(seed, failing=failing)
            world.live()
            world.check()
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error


@pytest.mark.parametrize("failing", [False, True])
def test_no_command_is_lost_or_run_twice_and_all_engines_have_one_order(failing: bool) -> None:
    simulate(SEEDS, failing=failing)


def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CommandBook, "answered", lambda *_args, **_named: None)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on before all sets are back."""
    monkeypatch.setattr(ComeBack, "look", lambda self: self._until is not None and self._begin())


def without_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmpi.controller.commands.resumed.ordered", lambda agains, _held: list(agains))


def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that sets send again are dropped."""
    monkeypatch.setattr(ResumedCommands, "answered", lambda *_: True)


@pytest.mark.parametrize("bug", [forgetful, impatient, without_order, silent])
def test_a_planted_bug_is_found(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        simulate(400, failing=False)


# --- single cases: one set of ranks 0 and 1, and one client -----------------------------------------------------

CLIENT, OTHER, SET, LATE = 1, 2, 20, 21


class Controller:
    """One that was started again; ``sent`` is what it has sent, by session."""

    def __init__(self, sets: Sequence[bytes] = (b"first",), clients: Sequence[int] = (CLIENT,)) -> None:
        self.router = Router(1000)
        self.sent: dict[int, list[m.AnyMessage]] = defaultdict(list)
        self.comeback = ComeBack(
            self.router.resumed, self.passes, lambda key, message, _: self.sent[key].append(message), INTERFACES
        )
        self.comeback.expect(clients, sets, 20.0)
        self.passed: list[m.AnyMessage] = []

    def passes(self, session: Any, event: Any) -> None:
        self.passed.append(event.message)
        if isinstance(event.message, m.Register):
            self.router.register(session.key, event.message)

    def hears(self, key: int, message: m.AnyMessage, role: str = "engine", body: Sequence[Any] = ()) -> None:
        session: Any = SimpleNamespace(role=role, key=key, former={SET: b"first", LATE: b"second"}.get(key, b""))
        event: Any = SimpleNamespace(message=message, body=body, stream=0)
        if not self.comeback.takes(session, event):
            self.passes(session, event)

    def set_registers(self, key: int = SET) -> None:
        self.hears(
            key, m.Register([m.EngineInfo(rank, rank, "n1", 100 + rank) for rank in (0, 1)], "MPI", "3", [])
        )

    def client_tells(self, *agains: m.CommandAgain) -> None:
        for message in (*agains, m.CommandsTold()):
            self.hears(CLIENT, message, "mec")

    def flush(self) -> dict[int, list[m.AnyMessage]]:
        for effect in self.router.flush(1.0):
            assert isinstance(effect, Send)
            self.sent[effect.to].append(effect.message)
        return self.sent


def again(number: int, engines: list[int] | None = None) -> m.CommandAgain:
    engines = [0, 1] if engines is None else engines
    return m.CommandAgain(number, engines, "execute", "execute", b"op", engines=engines, lacks=engines)


def undone(sent: Sequence[m.AnyMessage]) -> list[tuple[str, list[int]]]:
    return [(each.error, list(each.engines)) for each in sent if isinstance(each, m.Undone)]


def dispatched(sent: Sequence[m.AnyMessage]) -> list[tuple[int, list[int]]]:
    return [(each.number, list(each.ranks)) for each in sent if isinstance(each, m.Dispatch)]


def test_a_set_that_tells_too_late_is_given_nothing_twice() -> None:
    controller = Controller()
    controller.client_tells(again(5))
    controller.set_registers()
    controller.comeback.due(21.0)
    controller.hears(SET, m.CommandsHeld(7, CLIENT, 5, "execute", 2, running=[0, 1]))
    sent = controller.flush()
    assert dispatched(sent[SET]) == []
    assert undone(sent[CLIENT]) == [("ConnectionError", [0, 1])]
    assert any("may have run there" in getattr(each, "text", "") for each in sent[CLIENT])


def test_a_client_that_comes_after_such_a_set_is_told_so_too() -> None:
    controller = Controller()
    controller.comeback.due(21.0)
    controller.set_registers()
    controller.hears(SET, m.CommandsHeld(7, CLIENT, 5, "execute", 2, running=[0, 1]))
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.client_tells(again(5), m.CommandAgain(6, None, "execute", "execute", b"op"))
    sent = controller.flush()
    assert dispatched(sent[SET]) == []
    assert undone(sent[CLIENT]) == [("ConnectionError", [0, 1])] * 2


def test_a_set_that_the_journal_does_not_have_is_given_nothing_twice() -> None:
    controller = Controller(sets=())
    controller.set_registers(LATE)
    controller.hears(LATE, m.CommandsHeld(7, CLIENT, 5, "execute", 2, ended=[0, 1]))
    controller.hears(LATE, m.CommandsHeld(is_last=True))
    controller.client_tells(again(5))
    sent = controller.flush()
    assert dispatched(sent[LATE]) == []
    assert undone(sent[CLIENT]) == [("ConnectionError", [0, 1])]


def test_a_command_for_all_engines_does_not_run_after_one_that_was_sent_later() -> None:
    """Its client does not know its engines; the queue of one was cleared, and nobody has heard of that."""
    controller = Controller()
    controller.set_registers()
    controller.hears(SET, m.CommandsHeld(7 << 20, CLIENT, 6, "execute", 2, running=[0]))
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.client_tells(m.CommandAgain(5, None, "execute", "execute", b"op"), again(6))
    sent = controller.flush()
    assert undone(sent[CLIENT]) == [("QueueCleared", [0])]
    assert dispatched(sent[SET]) == [(5, [1])]
    (given,) = (each for each in sent[SET] if isinstance(each, m.Dispatch))
    assert given.id < 7 << 20, "another controller would run it after that"


def test_a_command_for_all_engines_is_not_for_those_that_have_joined_later() -> None:
    """Its client does not know its engines, but all of them were given it."""
    controller = Controller()
    controller.set_registers()
    controller.set_registers(LATE)
    controller.hears(SET, m.CommandsHeld(7 << 20, CLIENT, 5, "execute", 2, running=[0], lost=[1]))
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.client_tells(m.CommandAgain(5, None, "execute", "execute", b"op"))
    sent = controller.flush()
    assert [list(each.engines) for each in sent[CLIENT] if isinstance(each, m.Accepted)] == [[0, 1]]
    assert undone(sent[CLIENT]) == [("ConnectionError", [1])]
    assert dispatched(sent[LATE]) == []


@pytest.mark.parametrize("figures", [(2, 4), (4, 2)])
def test_a_command_for_all_engines_that_another_controller_has_enlarged_is_for_all_of_them(
    figures: tuple[int, int],
) -> None:
    """It was for one set; after a restart, for another one as well, which had joined meanwhile."""
    controller = Controller([b"first", b"second"])
    controller.set_registers()
    controller.set_registers(LATE)
    for key, figure, ranks in ((SET, figures[0], [0, 1]), (LATE, figures[1], [0])):
        controller.hears(key, m.CommandsHeld(7 << 20, CLIENT, 5, "execute", figure, running=ranks))
        controller.hears(key, m.CommandsHeld(is_last=True))
    controller.client_tells(m.CommandAgain(5, None, "execute", "execute", b"op"))
    sent = controller.flush()
    assert [list(each.engines) for each in sent[CLIENT] if isinstance(each, m.Accepted)] == [[0, 1, 2, 3]]
    assert dispatched(sent[LATE]) == [(5, [1])]


def test_such_a_command_comes_first_on_all_its_engines() -> None:
    """Ranks that work together inside it wait for the last one, which must not begin another client's before."""
    controller = Controller([b"first", b"second"], [OTHER, CLIENT])
    controller.set_registers()
    controller.set_registers(LATE)
    for key, figure, ranks in ((SET, 2, [0, 1]), (LATE, 4, [0])):
        controller.hears(key, m.CommandsHeld(7 << 20, CLIENT, 5, "execute", figure, running=ranks))
    controller.hears(OTHER, again(1, [2, 3]), "mec")
    controller.hears(OTHER, m.CommandsTold(), "mec")
    controller.client_tells(again(5, [0, 1, 2, 3]))
    for key in (SET, LATE):
        controller.hears(key, m.CommandsHeld(is_last=True))
    assert dispatched(controller.flush()[LATE]) == [(5, [1])]
    controller.router.result(LATE, m.Result(7 << 20, [0, 1], True, b"out"), [], 0)
    assert dispatched(controller.flush()[LATE]) == [(5, [1]), (1, [0, 1])]


def test_a_client_hears_which_engines_a_command_is_for_before_it_hears_that_some_are_lost() -> None:
    """It takes the first answer to be that of all engines, if it has not heard which they are."""
    controller = Controller()
    controller.set_registers()
    controller.hears(SET, m.CommandsHeld(7 << 20, CLIENT, 5, "execute", 2, running=[1]))
    controller.router.ranks_lost(SET, [1], "killed")
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.client_tells(m.CommandAgain(5, None, "execute", "execute", b"op"))
    sent = controller.flush()
    told = [(type(each), list(each.engines)) for each in sent[CLIENT] if isinstance(each, m.Accepted | m.Undone)]
    assert told == [(m.Accepted, [0, 1]), (m.Undone, [1])]
    assert dispatched(sent[SET]) == [(5, [0])]


def test_a_client_that_comes_too_late_does_not_change_the_order_of_what_has_run() -> None:
    """Its command was begun on one engine; the other one ran what another client has sent meanwhile."""
    controller = Controller()
    controller.set_registers()
    controller.hears(SET, m.CommandsHeld(7 << 20, CLIENT, 5, "execute", 2, running=[0]))
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.comeback.due(21.0)
    controller.router.command(OTHER, m.Command(1, [0, 1], "execute", "execute", b"op"), (), 0)
    controller.client_tells(again(4), again(5))
    (given,) = (each for each in controller.flush()[SET] if isinstance(each, m.Dispatch))
    controller.router.result(SET, m.Result(given.id, [1], True, b"out"), [], 0)
    controller.router.result(SET, m.Result(7 << 20, [0], True, b"out"), [], 0)
    sent = controller.flush()
    assert dispatched(sent[SET]) == [(1, [1]), (1, [0])], "first command 5, then command 1 of the other client"
    assert undone(sent[CLIENT]) == [("QueueCleared", [0]), ("ConnectionError", [1]), ("ConnectionError", [1])]
    texts = [each.text for each in sent[CLIENT] if isinstance(each, m.Undone)]
    assert all("has not run there: its client was away" in text for text in texts[1:])


def test_a_client_that_comes_late_goes_before_what_waits() -> None:
    """Both engines are busy; what another client has sent meanwhile waits behind what was begun before."""
    controller = Controller()
    controller.set_registers()
    controller.hears(SET, m.CommandsHeld(6 << 20, OTHER, 1, "execute", 1, running=[1]))
    controller.hears(SET, m.CommandsHeld(7 << 20, CLIENT, 5, "execute", 2, running=[0]))
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.comeback.due(21.0)
    controller.router.command(OTHER, m.Command(2, [0, 1], "execute", "execute", b"op"), (), 0)
    controller.client_tells(again(5))
    for serial, rank in ((6 << 20, 1), (7 << 20, 0), (7 << 20, 1)):
        controller.router.result(SET, m.Result(serial, [rank], True, b"out"), [], 0)
        sent = controller.flush()
    assert dispatched(sent[SET]) == [(5, [1]), (2, [0]), (2, [1])]
    assert undone(sent[CLIENT]) == []


def test_a_rank_that_is_lost_meanwhile_is_not_waited_for() -> None:
    controller = Controller()
    controller.set_registers()
    controller.hears(SET, m.CommandsHeld(7, CLIENT, 5, "execute", 2, running=[0, 1]))
    controller.router.ranks_lost(SET, [1], "killed")
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.client_tells(again(5))
    assert undone(controller.flush()[CLIENT]) == [("EngineLost", [1])]
    controller.router.result(SET, m.Result(7, [0], True, b"out"), [], 0)
    sent = controller.flush()
    assert [list(each.engines) for each in sent[CLIENT] if isinstance(each, m.Result)] == [[0]]
    assert not controller.router._works


def test_a_rank_that_has_answered_and_is_lost_has_answered() -> None:
    controller = Controller()
    controller.set_registers()
    controller.hears(SET, m.CommandsHeld(7, CLIENT, 5, "execute", 2, running=[0], ended=[1]))
    controller.hears(SET, m.Result(7, [1], True, b"out"))
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.router.ranks_lost(SET, [1], "killed")
    controller.client_tells(again(5))
    sent = controller.flush()
    assert undone(sent[CLIENT]) == []
    assert [list(each.engines) for each in sent[CLIENT] if isinstance(each, m.Result)] == [[1]]


def test_without_engine_sets_nothing_waits() -> None:
    controller = Controller(sets=())
    controller.hears(CLIENT, m.GetIds(1), "mec")
    assert controller.passed == [m.GetIds(1)]


def test_what_clients_say_of_tasks_is_not_held_back() -> None:
    controller = Controller()
    about_tasks = [
        m.TaskOrigin("host", "user", True),
        m.TasksOpen([], True),
        m.TaskHistory(1),
        m.FollowTasks(2, []),
    ]
    for message in about_tasks:
        controller.hears(CLIENT, message, "tc")
    assert controller.passed == about_tasks


def test_tasks_are_not_aborted_before_sets_have_said_what_they_run() -> None:
    """A task that runs on a set which is not back would be told to be cancelled, and to have never run."""
    controller = Controller()
    cancel = m.AbortTasks(1, 2, b"", "cancel")
    controller.hears(CLIENT, cancel, "tc")
    assert controller.passed == []
    controller.comeback.due(1e9)
    assert controller.passed == [cancel]


def test_what_is_held_back_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmpi.controller.comeback._MOST_BYTES", 1000)
    controller = Controller()
    for number in range(1, 4):
        controller.hears(CLIENT, m.Command(number, [0], "execute", "execute", b"op"), "mec", [bytes(400)])
    assert [message.id for message in controller.passed if isinstance(message, m.Command)] == [1, 2, 3]


def test_a_set_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers beyond what a book has are not kept, and their client is told so."""
    monkeypatch.setattr("ipmpi.limits.BOOK_BYTES", 1000)
    controller = Controller()
    controller.set_registers()
    for number in range(1, 5):
        controller.hears(SET, m.CommandsHeld(number, CLIENT, number, "execute", 1, ended=[0]))
        controller.hears(SET, m.Result(number, [0], True, b"out", [400]), body=[bytes(400)])
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.client_tells(*(again(number, [0]) for number in range(1, 5)))
    sent = controller.flush()
    assert len([each for each in sent[CLIENT] if isinstance(each, m.Result)]) == 3
    assert undone(sent[CLIENT]) == [("ConnectionError", [0])]
    assert dispatched(sent[SET]) == []


def test_what_is_kept_for_a_client_that_never_comes_back_goes_with_it() -> None:
    controller = Controller()
    controller.set_registers()
    controller.hears(SET, m.CommandsHeld(7, CLIENT, 5, "execute", 2, running=[0], ended=[1]))
    controller.hears(SET, m.Result(7, [1], True, b"out", [400]), body=[bytes(400)])
    controller.hears(SET, m.CommandsHeld(is_last=True))
    controller.comeback.due(21.0)
    assert controller.router.resumed.clients == {CLIENT}
    controller.comeback.ended(SimpleNamespace(role="mec", key=CLIENT, former=b""))  # type: ignore[arg-type]
    assert controller.router.resumed.clients == set()
