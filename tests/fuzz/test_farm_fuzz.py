"""Invariant: whatever clients and engine sets say, the controller's farm takes it or raises a KernelError.

And no task ends twice, no set gets more than it wants, and when all have left, nothing is left of theirs.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st

from ipmpi.controller.effects import Send
from ipmpi.controller.farm.farm import Farm
from ipmpi.controller.registry import Registry
from ipmpi.errors import KernelError
from ipmpi.protocol import messages as m
from ipmpi.protocol.frames import size_of
from ipmpi.protocol.packed import count, pack, unpack

FIRST = 1000
"""The farm's number of the first group; some of the following are guessed."""
FUNCTIONS = [b"one", b"another"]
KEYS = [blake2b(function, digest_size=16).digest() for function in FUNCTIONS]

Said = tuple[m.AnyMessage, list[bytes], int]
"""A message, its body, and the number of the stream that it announces instead."""


class Speaker:
    """Makes messages that are often right, or nearly so, and sometimes nothing of the kind."""

    def __init__(self, chance: random.Random, given: dict[int, list[tuple[int, int]]]) -> None:
        self.chance = chance
        self.given = given
        self.group = 0

    def number(self) -> int:
        odd = [-1, 5, 77, 2**31, 2**32 - 1, 2**40, 2**63 - 1, -(2**63)]
        return self.chance.choice(odd) if self.chance.random() < 0.1 else self.chance.randrange(4)

    def packed(self) -> bytes:
        chance = self.chance
        if chance.random() < 0.1:
            return chance.randbytes(chance.randrange(10))
        return pack(chance.randrange(5) for _ in range(chance.randrange(4)))

    def seconds(self) -> float | None:
        return self.chance.choice([None] * 8 + [1.0, 0.0, -1.0, math.nan, math.inf])

    def some_of(self, *choices: Any) -> list[Any]:
        return [self.chance.choice(choices) for _ in range(self.chance.choice([0, 0, 0, 1, 2]))]

    def options(self) -> m.TaskOptions:
        chance, number = self.chance, self.number
        names = self.some_of((self.group - 1, 0), (number(), number()), (self.group, 0))
        return m.TaskOptions(
            chance.choice([b"op", b"other"]),
            "task",
            self.some_of(*KEYS, b"", bytes(16)),
            retries=chance.choice([0, 0, 1, 2, -1]),
            priority=number(),
            width=chance.choice([1, 1, 1, 1, 2, 2, 3, 0, -1, 2**63 - 1]),
            same_node=chance.random() < 0.1,
            timeout=self.seconds(),
            expected=self.seconds(),
            conditional=chance.random() < 0.3,
            after=names,
            follow=names[0] if names and chance.random() < 0.2 else None,
        )

    def submit(self) -> Said:
        chance = self.chance
        self.group += 1
        group = self.number() if chance.random() < 0.1 else self.group
        options = (
            self.options() if chance.random() < 0.6 else m.TaskOptions(b"op", "task", retries=chance.randrange(2))
        )
        if chance.random() < 0.2:
            return m.SubmitTasks(group, options, b"", [200_000]), [], 7
        payloads = [b"x" * chance.randrange(4) for _ in range(chance.randrange(1, 6))]
        body = b"".join(payloads)
        lengths = self.packed() if chance.random() < 0.1 else pack(map(len, payloads))
        return m.SubmitTasks(group, options, lengths, [len(body)]), [body], 0

    def define(self) -> Said:
        function = self.chance.choice(FUNCTIONS)
        key, offset = (
            self.chance.choice([*KEYS, KEYS[FUNCTIONS.index(function)], b""]),
            self.chance.choice([0, 0, 0, 1]),
        )
        return m.DefineFunction(key, offset, len(function), [len(function)]), [function], 0

    def client(self) -> Said:
        number, chance = self.number, self.chance
        how = chance.choice(["cancel", "drop", "interrupt", "eat"])
        group = max(0, self.group - chance.randrange(3))
        makers: list[Callable[[], Said]] = [
            *[self.submit] * 4,
            *[self.define] * 3,
            lambda: (m.ForgetFunctions(self.some_of(*KEYS, b"")), [], 0),
            lambda: (m.AbortTasks(number(), group, self.packed(), how), [], 0),
            lambda: (m.AbortTasks(number(), group, b"", how), [], 0),
            lambda: (m.BodyAgain(group, [chance.choice([200_000, 5])]), [], chance.choice([7, 7, 0])),
            lambda: (m.TaskStatus(number()), [], 0),
            lambda: (m.Recheck(number()), [], 0),
            lambda: (m.Reserve(number(), chance.choice([None, self.some_of(0, 1, 2, 3, -1)])), [], 0),
            lambda: (m.Release(number(), self.some_of(0, 1, 2, 3, 2**40)), [], 0),
        ]
        return (m.Goodbye("client"), [], 0) if chance.random() < 0.02 else chance.choice(makers)()

    def serial_and_indices(self, key: int) -> tuple[int, list[int]]:
        """Of tasks that this set was given, or another one, or nobody."""
        chance = self.chance
        key = key if chance.random() < 0.9 else chance.choice(list(self.given))
        if not self.given[key] or chance.random() < 0.05:
            return chance.choice([FIRST, -1, 2**40]), [chance.randrange(4)]
        serial, _ = chance.choice(self.given[key])
        indices = [index for number, index in self.given[key] if number == serial]
        if chance.random() < 0.1:
            indices.append(chance.choice([*indices, 77, 2**32 - 1]))
        return serial, indices[: chance.randrange(1, len(indices) + 1)]

    def results(self, key: int) -> Said:
        chance = self.chance
        serial, indices = self.serial_and_indices(key)
        lengths = [chance.randrange(3) for _ in indices]
        if chance.random() < 0.05:
            lengths.append(1)
        body = b"r" * sum(lengths)
        failed = (
            self.packed()
            if chance.random() < 0.05
            else pack(p for p in range(len(indices)) if chance.random() < 0.3)
        )
        rank = self.number() if chance.random() < 0.1 else chance.randrange(2)
        return m.TaskResults(serial, rank, pack(indices), failed, pack(lengths), 0.0, [len(body)]), [body], 0

    def returned(self, key: int) -> Said:
        serial, indices = self.serial_and_indices(key)
        why = self.chance.choice(["taken", "cancelled", "lost", "refused", "rejected", "broken", "running", "x"])
        data = self.packed() if self.chance.random() < 0.05 else pack(indices)
        return m.TasksReturned(serial, data, self.chance.choice([0, 1, -1, self.number()]), why), [], 0

    def large(self, key: int) -> Said:
        serial, indices = self.serial_and_indices(key)
        stream = self.chance.choice([0, 9])
        index = self.chance.choice([indices[0], self.number()])
        body = [] if stream else [b"abc"]
        return (
            m.LargeTaskResult(serial, index, self.chance.randrange(2), 0.0, [200_000 if stream else 3]),
            body,
            stream,
        )

    def engine_set(self, key: int) -> Said:
        chance = self.chance
        serial, indices = self.serial_and_indices(key)
        makers: list[Callable[[], Said]] = [
            *[lambda: (m.WantTasks(chance.choice([1, 3, 100, 100, 0, -1, 2**63 - 1])), [], 0)] * 2,
            *[lambda: self.results(key)] * 4,
            *[lambda: self.returned(key)] * 3,
            lambda: self.large(key),
            lambda: (m.WantTaskBody(serial, indices[0], self.some_of(0, 1, -1)), [], 0),
            lambda: (m.PropertiesChanged(self.some_of(0, 1, 2**40)), [], 0),
        ]
        if chance.random() < 0.03:
            return chance.choice([m.RanksLost(self.some_of(0, 1, -1), "gone"), m.Goodbye("set")]), [], 0
        return chance.choice(makers)()


class Controller:
    """What the service does around the farm, as far as it matters here."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.farm = Farm(self.registry, FIRST)
        self.now = 0.0
        self.ends: Counter[tuple[int, int, int]] = Counter()
        self.windows: dict[int, int] = {}
        self.given: dict[int, list[tuple[int, int]]] = {}
        """Serial and index of what sets were given: the newest, not all of it is still theirs."""
        self.keys = iter(range(1, 1000))
        """Each session has a key of its own."""
        self.clients = [next(self.keys) for _ in range(2)]
        self.sets: list[int] = []
        self.join()
        self.join()

    def join(self) -> None:
        key = next(self.keys)
        self.sets.append(key)
        self.given[key] = []
        infos = [m.EngineInfo(rank, rank, "host", rank) for rank in range(2)]
        self.registry.register(key, m.Register(infos, "", ""))
        self.windows[key] = 0
        self.farm.registered(key)

    def leave(self, key: int) -> None:
        self.sets.remove(key)
        del self.given[key]
        self.farm.set_lost(key, "gone")
        if key in self.registry.sets:
            self.registry.remove([engine.id for engine in self.registry.sets[key].engines.values()])

    def hear(self, key: int, message: Any, body: list[bytes], stream: int) -> None:
        farm = self.farm
        match message:
            case m.SubmitTasks():
                farm.submit(key, message, body, stream)
            case m.DefineFunction():
                farm.define(key, message, body)
            case m.ForgetFunctions():
                farm.forget(key, message)
            case m.AbortTasks():
                farm.aborts.abort(key, message)
            case m.BodyAgain():
                farm.bodies.again(key, message, stream)
            case m.TaskStatus():
                farm.status(key)
            case m.Recheck():
                farm.recheck(key)
            case m.Reserve():
                farm.reserve(key, message.targets)
            case m.Release():
                farm.release(key, message.targets)
            case m.WantTasks():
                if key in self.registry.sets:
                    self.windows[key] = message.window
                farm.want_tasks(key, message.window)
            case m.TaskResults():
                farm.results(key, message, body)
            case m.LargeTaskResult():
                farm.result(key, message, body, stream)
            case m.TasksReturned():
                farm.returned(key, message)
            case m.WantTaskBody():
                farm.bodies.want(key, message)
            case m.PropertiesChanged():
                farm.properties_changed(key, message.ranks)
            case m.RanksLost():
                farm.ranks_lost(key, message.ranks)
                if key in self.registry.sets:
                    self.registry.remove(self.registry.of_ranks(key, message.ranks))
            case m.Goodbye(reason="client"):
                farm.client_lost(key)
                self.clients[self.clients.index(key)] = next(self.keys)
            case m.Goodbye():
                self.leave(key)
                self.join()

    def flush(self) -> None:
        for effect in self.farm.flush(self.now):
            if not isinstance(effect, Send):
                continue
            assert m.decode(m.encode(effect.message)) == effect.message
            sizes = getattr(effect.message, "sizes", None)
            if effect.body:
                assert sum(sizes or []) == size_of(effect.body)
            match effect.message:
                case m.TasksDone(group=group, indices=indices) | m.TasksUndone(group=group, indices=indices):
                    self.ends.update((effect.to, group, index) for index in unpack(indices))
                case m.TaskDone(group=group, index=index):
                    self.ends[effect.to, group, index] += 1
                case m.GiveTasks(group=serial, indices=indices):
                    self.given[effect.to] = [*self.given[effect.to], *((serial, i) for i in unpack(indices))][-12:]
                    assert 0 < count(indices) <= max(0, self.windows[effect.to]), "more than it wants"


@settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(st.integers(0, 2**32))
def test_anything_may_be_said_to_the_farm(seed: int) -> None:
    chance = random.Random(seed)
    controller = Controller()
    speaker = Speaker(chance, controller.given)
    for _ in range(150):
        key = chance.choice([*controller.clients, *controller.sets, *controller.sets])
        said = speaker.engine_set(key) if key in controller.sets else speaker.client()
        try:
            controller.hear(key, *said)
        except KernelError as error:
            assert str(error)  # noqa: PT017 - nothing at all may be raised as well
            if key in controller.sets:  # its link ends
                controller.leave(key)
                controller.join()
        controller.flush()
        assert not [name for name, times in controller.ends.items() if times > 1]
    for key in list(controller.sets):
        controller.leave(key)
    controller.flush()
    for client in controller.clients:
        controller.farm.client_lost(client)
    controller.flush()
    status = controller.farm.status(controller.clients[0])
    assert (status["scheduled"], status["pending"], status["running"]) == (0, 0, [])
