"""Thousands of random events: every engine answers for every command exactly once, in order, one at a time."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ipmpi.controller.commands.queues import Queues
from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Forward, GiveUp, Send
from ipmpi.errors import KernelError
from ipmpi.protocol import messages as m


class World:
    """Clients and engine sets that behave, seen through the router's effects; they fail and leave at random."""

    def __init__(self, seed: int, ranks: range = range(1, 5)) -> None:
        self.chance = random.Random(seed)
        self.ranks = ranks
        """How many a set may have."""
        self.with_lanes = 0
        """Steps in which engines were divided by their remainders."""
        self.router = Router()
        self.keys = 0
        self.number = 0
        self.stream = 0
        self.clients: list[int] = []
        self.sets: dict[int, set[int]] = {}
        self.running: dict[tuple[int, int], int] = {}
        """(set, rank) -> serial of what it was given and has not answered."""
        self.bodies: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """(set, stream) of answers whose body is on its way -> its ranks."""
        self.sinks: dict[tuple[int, int], tuple[int, Any]] = {}
        """(set, stream) of those that have begun -> their client and the message."""
        self.serials: dict[tuple[int, int], int] = {}
        self.again: list[tuple[int, int]] = []
        self.sizes: dict[tuple[int, int], list[int]] = {}
        self.owed: dict[tuple[int, int], set[int]] = {}
        self.order: dict[int, int] = {}
        """serial of commands in the order in which they were queued."""
        self.last: dict[tuple[int, int], int] = {}
        self.ended: list[str] = []

    # --- what happens ----------------------------------------------------------------------------------------

    def add_client(self) -> None:
        self.keys += 1
        self.clients.append(self.keys)

    def add_set(self) -> None:
        self.keys += 1
        ranks = range(self.chance.randrange(self.ranks.start, self.ranks.stop))
        self.sets[self.keys] = set(ranks)
        infos = [m.EngineInfo(rank, rank, "host", 1) for rank in ranks]
        self.router.register(self.keys, m.Register(infos, "", ""))

    def _body(self) -> tuple[list[int], list[bytes], int]:
        kind = self.chance.randrange(3)
        if kind == 0:
            return [], [], 0
        if kind == 1:
            return [3], [b"abc"], 0
        self.stream += 1
        return [500_000], [], self.stream

    def command(self) -> None:
        client = self.chance.choice(self.clients)
        ids = self.router.registry.ids()
        targets = None if self.chance.random() < 0.3 else self.chance.sample(ids, self.chance.randint(0, len(ids)))
        if targets and len(self.ranks) > 4 and self.chance.random() < 0.95:
            step = self.chance.randrange(1, 5)
            targets = list(ids)[self.chance.randrange(len(ids)) :: step]
        self.number += 1
        sizes, body, stream = self._body()
        message = m.Command(self.number, targets, "execute", f"c{self.number}", b"", sizes)
        try:
            self.router.command(client, message, body, stream)
        except KernelError:
            assert not ids or targets == []
            return
        self.owed[client, self.number] = set(ids if targets is None else targets)
        self.sizes[client, self.number] = sizes

    def answer(self) -> None:
        if not self.running:
            return
        (key, _), serial = self.chance.choice(list(self.running.items()))
        ranks = [
            r for (k, r), s in self.running.items() if k == key and s == serial and self.chance.random() < 0.7
        ]
        ok = self.chance.random() < 0.85
        streamed = len(ranks) == 1 and self.chance.random() < 0.3
        for rank in ranks:
            del self.running[key, rank]
        if streamed:
            self.stream += 1
            message = m.Result(serial, ranks, ok, b"", [500_000])
            self.bodies[key, self.stream] = [(key, rank) for rank in ranks]
            self.serials[key, self.stream] = serial
            self.router.result(key, message, [], self.stream)
        elif ranks:
            self.router.result(key, m.Result(serial, ranks, ok, b"", [1]), [b"x"], 0)

    def stale_answer(self) -> None:
        if self.sets:
            key = self.chance.choice(list(self.sets))
            before = self.router.stale_results
            self.router.result(key, m.Result(10**9, [0, 77], True, b""), [], 0)
            assert self.router.stale_results == before + 2

    def body_done(self) -> None:
        if self.sinks:
            self._end_body(*self.chance.choice(list(self.sinks)))

    def stuck(self) -> None:
        """A client takes nothing of an answer, and the engine waits for that."""
        if self.sinks:
            key, stream = self.chance.choice(list(self.sinks))
            ((_, rank),) = self.bodies[key, stream]
            client = self.sinks[key, stream][0]
            serial = self.serials[key, stream]
            others = self.chance.random() < 0.2
            given_up = self.router.stuck(key, m.AnswerStuck(rank, serial), lambda engine, client: others)
            assert given_up in (0, client)
            if others and self.router.registry.of_ranks(key, [rank]):
                assert given_up

    def _end_body(self, key: int, stream: int, complete: bool = True) -> None:
        del self.bodies[key, stream]
        client, message = self.sinks.pop((key, stream), (0, None))
        if complete and client in self.clients:
            self._answered(client, message)
        self.router.forward_ended(key, stream, complete)

    def body_again(self) -> None:
        if self.again:
            client, number = self.again.pop(self.chance.randrange(len(self.again)))
            if client in self.clients:
                self.stream += 1
                self.router.body_again(client, m.BodyAgain(number, self.sizes[client, number]), self.stream)

    def clear(self) -> None:
        if self.router.registry.engines:
            self.router.clear_queue(self.chance.sample(self.router.registry.ids(), 1))

    def lose_ranks(self) -> None:
        if self.sets:
            key = self.chance.choice(list(self.sets))
            rank = self.chance.choice(sorted(self.sets[key]))
            self._forget_ranks(key, {rank})
            self.router.ranks_lost(key, [rank], "killed")

    def _forget_ranks(self, key: int, ranks: set[int]) -> None:
        self.sets[key] -= ranks
        if not self.sets[key]:
            del self.sets[key]
        for rank in ranks:
            self.running.pop((key, rank), None)

    def lose_set(self) -> None:
        if self.sets:
            key = self.chance.choice(list(self.sets))
            self._forget_ranks(key, set(self.sets[key]))
            self.router.set_lost(key, "gone")
            for source, stream in list(self.bodies):
                if source == key:
                    self._end_body(source, stream, complete=False)

    def kill(self) -> None:
        if self.sets:
            key = self.chance.choice(list(self.sets))
            rank = self.chance.choice(sorted(self.sets[key]))
            ids = self.router.registry.of_ranks(key, [rank])
            self._forget_ranks(key, {rank})
            assert self.router.kill(ids) == ids

    def interrupt(self) -> None:
        if self.router.registry.engines:
            commands = self.chance.choice([None, range(self.number - 5, self.number + 1)])
            self.router.interrupt(None, self.chance.choice(self.clients), commands)

    def lose_client(self) -> None:
        client = self.clients.pop(self.chance.randrange(len(self.clients)))
        self.router.client_lost(client)
        self.owed = {name: left for name, left in self.owed.items() if name[0] != client}
        for (key, stream), sink in list(self.sinks.items()):
            if sink[0] == client:
                self._end_body(key, stream)
        if not self.clients:
            self.add_client()

    # --- what the router wants -----------------------------------------------------------------------------------

    def flush(self) -> None:
        again = False
        for effect in self.router.flush():
            if isinstance(effect, Send):
                self._hear(effect.to, effect.message)
            elif isinstance(effect, Forward):
                for to, message in effect.sinks:
                    if isinstance(message, m.Dispatch):
                        self._hear(to, message)
                    elif (effect.source, effect.stream) in self.bodies and to in self.clients:
                        self.sinks[effect.source, effect.stream] = to, message
                    if (effect.source, effect.stream) in self.bodies and to not in self.clients:
                        self._end_body(effect.source, effect.stream)
                        again = True
            elif isinstance(effect, GiveUp):
                if (effect.source, effect.stream) in self.bodies:
                    self.router.give_up(effect.source, effect.stream)
                    self._end_body(effect.source, effect.stream, complete=False)
                    again = True
            else:
                self.bodies.pop((effect.source, effect.stream), None)
                self.sinks.pop((effect.source, effect.stream), None)
        if again:
            self.flush()
        self.check_engines()

    def _hear(self, to: int, message: Any) -> None:
        if to not in self.sets and to not in self.clients:
            return  # it has left since this was decided
        if isinstance(message, m.Dispatch):
            for rank in self.sets[to].intersection(message.ranks):
                assert (to, rank) not in self.running, "two at once"
                self.running[to, rank] = message.id
                assert self.last.get((to, rank), 0) < message.id, "out of order"
                self.last[to, rank] = message.id
        elif isinstance(message, m.Result | m.Undone):
            self._answered(to, message)
        elif isinstance(message, m.SendBodyAgain):
            assert (to, message.id) not in self.again, "asked twice"
            if to in self.clients:
                self.again.append((to, message.id))

    def _answered(self, client: int, message: Any) -> None:
        left = self.owed[client, message.id]
        assert left.issuperset(message.engines), "answered twice"
        left -= set(message.engines)
        self.ended.append(type(message).__name__)

    def check_engines(self) -> None:
        assert set(self.router.registry.sets) == set(self.sets)
        queues = self.router._queues
        assert set(queues) == set(self.router.registry.engines)

    def run(self, steps: int) -> None:
        self.add_client()
        self.add_client()
        self.add_set()
        actions = (
            [self.command] * 12 + [self.answer] * 16 + [self.body_done] * 4 + [self.body_again] * 4
            + [self.stuck] * 2
            + [self.stale_answer, self.clear, self.lose_ranks, self.kill]
            + [self.interrupt]
        )  # fmt: skip
        for _ in range(steps):
            self.chance.choice(actions)()
            draw = self.chance.random()
            if draw < 0.006:
                self.lose_set()
            elif draw < 0.02 and len(self.sets) < 3:
                self.add_set()
            elif draw < 0.025:
                self.lose_client()
            elif draw < 0.03 and len(self.clients) < 4:
                self.add_client()
            self.with_lanes += len(self.router._queues._lanes) > 1
            if self.chance.random() < 0.7:
                self.flush()

    def finish(self) -> None:
        """No new work; all that is under way comes to its end."""
        if not self.sets:
            self.add_set()
        self.flush()
        while self.running or self.bodies or self.again:
            self.chance.choice([self.answer, self.body_done, self.body_again])()
            self.flush()


@pytest.mark.parametrize("seed", range(40))
def test_random_events(seed: int) -> None:
    world = World(seed)
    world.run(2000)
    nothing_is_left(world)


@pytest.mark.parametrize("seed", range(10))
def test_random_events_where_engines_are_divided_into_lanes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether that is worth while or not."""
    right = Queues._divide
    monkeypatch.setattr("ipmpi.controller.commands.queues._SERIES", 2)
    monkeypatch.setattr(Queues, "_divide", lambda self, period, _gain: right(self, period, 10**6))
    world = World(seed, range(5, 20))
    world.run(600)
    nothing_is_left(world)
    assert world.with_lanes > 100


def nothing_is_left(world: World) -> None:
    world.finish()
    assert {name: left for name, left in world.owed.items() if left} == {}
    assert {"Result", "Undone"} <= set(world.ended)
    router = world.router
    assert router._works == {}
    assert router._late == {}
    assert router._passing == {}
    assert router._starting == {}
    assert router._undone == {}
    assert router.flush() == []
    for client in router._clients.values():
        assert client.commands == {}
        assert client.inline_bytes == 0
    assert all(row[1:] == (None, []) for row in router.queue_status(None))
