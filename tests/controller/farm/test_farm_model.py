"""Random events: every task is told exactly one end, windows hold, and nothing waits where there is room."""

from __future__ import annotations

import math
import random
from typing import Any

from farm_stage import BIG, Stage
from hypothesis import HealthCheck, given, settings, strategies as st

from ipmpi import limits
from ipmpi.controller.farm.order import Fifo, Lifo, Order, Priority
from ipmpi.errors import DependencyError
from ipmpi.protocol import messages as m, packed


class World:
    """Clients and engine sets that behave, except that they fail and leave at random."""

    def __init__(self, chance: random.Random, order: Order) -> None:
        self.chance = chance
        self.stage = Stage(order)
        self.clients = [1, 2]
        self.keys = 10
        self.number = 0
        self.tasks: dict[tuple[int, int, int], dict[str, Any]] = {}
        """What was submitted by clients that are there."""
        self.cancelling: dict[tuple[int, int, int], bool] = {}
        """(set, serial, index) of what a set was told to cancel, and whether to interrupt it."""
        self.requests: dict[int, int] = {}
        self.streams = 100
        self.again: list[tuple[int, int]] = []
        self.reserved: list[tuple[int, int]] = []
        self.ends_at: dict[int, float] = {}
        self.had: set[tuple[int, tuple[int, int]]] = set()
        """What sets had when it was looked last."""

    # --- clients -------------------------------------------------------------------------------------------

    def submit(self) -> None:
        client = self.chance.choice(self.clients)
        self.number += 1
        options: dict[str, Any] = {
            "retries": self.chance.choice([0, 0, 1, 2]),
            "priority": self.chance.choice([0, 0, 5]),
            "width": self.chance.choice([1, 1, 1, 2]),
            "conditional": self.chance.random() < 0.3,
            "same_node": self.chance.random() < 0.1,
            "expected": self.chance.choice([None, None, None, 10.0, 100.0]),
        }
        mine = [name[1:] for name in self.tasks if name[0] == client]
        if mine and self.chance.random() < 0.3:
            options["after"] = self.chance.sample(mine, min(len(mine), 2))
        if mine and self.chance.random() < 0.15:
            options["follow"] = self.chance.choice(mine)
        try:
            if self.chance.random() < 0.15:
                self.streams += 1
                count = 1
                self.stage.submit_large(self.number, self.streams, client, **options)
            else:
                count = self.chance.choice([1, 1, 3, 20])
                payloads = [bytes(self.chance.randrange(4)) for _ in range(count)]
                self.stage.submit(self.number, payloads, client, operation=b"op%d" % (self.number % 3), **options)
        except DependencyError:
            raise AssertionError("all that were named are known") from None
        self.tasks.update({(client, self.number, index): options for index in range(count)})

    def abort(self) -> None:
        if self.tasks:
            client, group, index = self.chance.choice(list(self.tasks))
            self.number += 1
            self.requests[self.number] = client
            which = [] if self.chance.random() < 0.3 else [index]
            how = self.chance.choice(["cancel", "cancel", "drop", "interrupt"])
            self.stage.abort(group, which, how, client, self.number)

    def lose_client(self) -> None:
        client = self.clients.pop(self.chance.randrange(len(self.clients)))
        self.stage.farm.client_lost(client)
        self.stage.flush()
        self.tasks = {name: options for name, options in self.tasks.items() if name[0] != client}
        self.requests = {number: who for number, who in self.requests.items() if who != client}
        self.reserved = [pair for pair in self.reserved if pair[0] != client]
        self.keys += 1
        self.clients.append(self.keys)

    def reserve(self) -> None:
        ids = self.stage.registry.ids()
        if ids:
            pair = (self.chance.choice(self.clients), self.chance.choice(ids))
            self.stage.farm.reserve(pair[0], [pair[1]])
            self.stage.flush()
            self.reserved.append(pair)

    def release(self) -> None:
        if self.reserved:
            client, engine = self.reserved.pop()
            self.stage.farm.release(client, [engine])
            self.stage.flush()

    def recheck(self) -> None:
        self.stage.farm.recheck(self.chance.choice(self.clients))
        self.stage.flush()

    def send_body(self) -> None:
        if self.again:
            client, group = self.again.pop()
            self.streams += 1
            self.stage.farm.bodies.again(client, m.BodyAgain(group, [BIG]), self.streams)
            self.stage.flush()

    # --- sets ----------------------------------------------------------------------------------------------

    def add_set(self) -> None:
        if len(self.stage.given) < 3:
            self.keys += 1
            self.stage.add_set(self.keys, self.chance.choice([1, 2, 4]), 0, self.chance.choice(["a", "ab"]))

    def job_ends(self) -> None:
        if (key := self.a_set()) is not None:
            self.ends_at[key] = self.stage.now + self.chance.choice([5.0, 50.0, 1000.0])
            self.stage.farm.job_ends(key, self.ends_at[key])
            self.stage.flush()

    def a_set(self) -> int | None:
        return self.chance.choice(list(self.stage.given)) if self.stage.given else None

    def want(self) -> None:
        if (key := self.a_set()) is not None:
            self.stage.want(key, self.chance.choice([0, 1, 4, 30]))

    def some(self, key: int) -> list[tuple[int, int]]:
        tasks = list(self.stage.given[key])
        return self.chance.sample(tasks, min(len(tasks), self.chance.choice([1, 2, 30])))

    def rank(self, key: int) -> int:
        return self.chance.choice(list(self.stage.registry.sets[key].engines))

    def answer(self) -> None:
        if (key := self.a_set()) is not None:
            tasks = self.some(key)
            if self.chance.random() < 0.5:
                tasks.sort()
            failed = [task for task in tasks if self.chance.random() < 0.2]
            if len(tasks) == 1 and self.chance.random() < 0.3:
                self.stage.answer_large(key, tasks[0], self.chance.choice([0, 9]), self.rank(key))
            else:
                self.stage.answer(key, tasks, failed=failed, rank=self.rank(key))

    def return_(self) -> None:
        if (key := self.a_set()) is not None:
            why = self.chance.choice(["taken", "refused", "rejected", "broken", "lost"])
            self.stage.return_(key, self.some(key), why, self.rank(key))

    def want_body(self) -> None:
        if (key := self.a_set()) is not None:
            for given in [g for g in self.stage.given[key].values() if g.payload is None]:
                self.stage.farm.bodies.want(key, m.WantTaskBody(given.serial, 0, [0]))
            self.stage.flush()

    def cancelled(self) -> None:
        if self.cancelling:
            (key, serial, index), interrupt = self.cancelling.popitem()
            names = [n for n, g in self.stage.given.get(key, {}).items() if (g.serial, n[1]) == (serial, index)]
            if names and not (interrupt and self.chance.random() < 0.5):
                why = "cancelled" if interrupt or self.chance.random() < 0.5 else "running"
                self.stage.return_(key, names, why)

    def change_properties(self) -> None:
        if (key := self.a_set()) is not None:
            self.stage.farm.properties_changed(key, [self.rank(key)])
            self.stage.flush()

    def lose_rank(self) -> None:
        if (key := self.a_set()) is not None and len(self.stage.registry.sets[key].engines) > 1:
            rank = self.rank(key)
            self.forget_reservations(self.stage.registry.of_ranks(key, [rank]))
            self.stage.lose_ranks(key, [rank])
            if self.stage.given[key]:
                self.stage.return_(key, self.some(key), "lost", rank)

    def lose_set(self) -> None:
        if (key := self.a_set()) is not None:
            self.forget_reservations([e.id for e in self.stage.registry.sets[key].engines.values()])
            given = list(self.stage.given[key])
            self.stage.start(key, [task for task in given if self.chance.random() < 0.5])
            self.stage.lose_set(key)

    def forget_reservations(self, ids: list[int]) -> None:
        self.reserved = [pair for pair in self.reserved if pair[1] not in ids]

    def pass_time(self) -> None:
        self.stage.flush(self.stage.now + self.chance.choice([0.01, 1.0, 20.0]))

    # --- what has to hold ------------------------------------------------------------------------------------

    def look(self) -> None:
        stage = self.stage
        for key, message in stage.told_set(m.CancelTasks):
            for index in packed.unpack(message.indices):
                self.cancelling[key, message.group, index] = message.interrupt
        for client, message in stage.to_client:
            if isinstance(message, m.Reply) and client in self.clients:
                assert self.requests.pop(message.id) == client, "answered once, to whom has asked"
            elif isinstance(message, m.SendBodyAgain):
                self.again.append((client, message.id))
        stage.to_client.clear()
        unfinished = 0
        for name in self.tasks:
            ends = stage.ends.get(name, [])
            assert len(ends) <= 1, "told twice"
            unfinished += not ends
        status = stage.farm.status(1)
        assert status["scheduled"] + status["pending"] == unfinished
        assert status["pending"] <= sum(map(len, stage.given.values()))
        expected = {name[1:]: options["expected"] for name, options in self.tasks.items()}
        has = {(key, task) for key, tasks in stage.given.items() for task in tasks}
        for key, task in has - self.had:
            if seconds := expected.get(task):
                assert stage.now + seconds <= self.ends_at.get(key, math.inf), "it does not fit"
        self.had = has
        for place in stage.farm._sets.by_key.values():
            assert place.unanswered == len(stage.given[place.key]) == sum(place.given.values())
            # A set is left to empty itself before it gets a task that is to be alone there.
            queues = stage.farm._waiting._queues
            empties = place.unanswered and any(need.sole or (need.alone and place.is_single) for need in queues)
            if place.free and not empties:
                for queue in stage.farm._waiting._queues.values():
                    items = [i for i in queue.heap if i.group.next_waiting(i.start, i.stop)[0] < i.stop]
                    assert not items or queue.need.ranks_now(place) is None, "it waits although there is room"

    def run(self, steps: int) -> None:
        often = [self.submit] * 6 + [self.answer] * 8 + [self.want] * 3 + [self.cancelled] * 3 + [self.abort] * 2
        rare = [
            self.return_, self.want_body, self.send_body, self.change_properties, self.recheck, self.reserve,
            self.release, self.add_set, self.lose_rank, self.pass_time, self.job_ends,
        ]  # fmt: skip
        for _ in range(steps):
            self.chance.choice(often + rare)()
            if self.chance.random() < 0.02:
                self.chance.choice([self.lose_set, self.lose_client])()
            self.look()

    def finish(self) -> None:
        """Engines for everything, and time for what cannot run."""
        while self.reserved:
            self.release()
        for _ in range(3000):
            if not self.stage.given:
                self.add_set()
            for key in list(self.stage.given):
                self.ends_at[key] = math.inf
                self.stage.farm.job_ends(key, None)
                self.stage.want(key, 50)
                self.stage.answer(key, list(self.stage.given[key]), rank=self.rank(key))
            self.pass_time()
            self.look()
            if not sum(self.stage.counts()[:2]) and not any(self.stage.given.values()):
                break


@settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(st.randoms(use_true_random=True), st.sampled_from([Priority, Fifo, Lifo]))
def test_random_events(chance: random.Random, order: type[Order]) -> None:
    world = World(chance, order())
    world.add_set()
    world.run(150)
    world.finish()
    stage = world.stage
    assert all(len(stage.ends.get(name, [])) == 1 for name in world.tasks)
    assert world.requests == {}
    stage.check_empty()
    assert stage.farm._waiting.count == 0
    assert limits.UNSCHEDULABLE_AFTER > 0
