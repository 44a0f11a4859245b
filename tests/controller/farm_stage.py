"""A farm with engine sets and clients that are played by the test; effects are sorted by whom they reach."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ipmpi.controller.effects import Decline, Forward, Send
from ipmpi.controller.farm.farm import Farm
from ipmpi.controller.farm.order import Order
from ipmpi.controller.registry import Registry
from ipmpi.protocol import messages as m, packed

ALICE, BOB, SET, OTHER = 1, 2, 10, 11
BIG = 500_000
Task = tuple[int, int]
"""Group (the client's number) and index."""


class Given(NamedTuple):
    """A task that a set has."""

    serial: int
    payload: bytes | None
    ranks: list[int]
    alone: bool


class End(NamedTuple):
    """What a client heard of a task: 'ok', 'failed', 'large', or an error's name, whose text is the payload."""

    kind: str
    engine: int = -1
    payload: bytes = b""


class Stage:
    def __init__(self, order: Order | None = None) -> None:
        self.registry = Registry()
        self.farm = Farm(self.registry, 1000, order)
        self.now = 0.0
        self.given: dict[int, dict[Task, Given]] = {}
        self.running: dict[int, list[Task]] = {}
        """What each set was given, in order."""
        self.ends: dict[tuple[int, int, int], list[End]] = {}
        self.to_set: list[tuple[int, Any]] = []
        self.to_client: list[tuple[int, Any]] = []
        self.forwards: list[Forward] = []
        self.declined: list[tuple[int, int]] = []
        self.groups: dict[int, tuple[int, int]] = {}
        """Serial -> client and group."""
        self.windows: dict[int, int] = {}

    # --- sets ----------------------------------------------------------------------------------------------

    def add_set(self, key: int, ranks: int, window: int | None = None, hosts: Sequence[str] = ("h",)) -> list[int]:
        infos = [m.EngineInfo(rank, rank, hosts[rank % len(hosts)], 100 + rank) for rank in range(ranks)]
        ids = self.registry.register(key, m.Register(infos, "", ""))
        self.given[key] = {}
        self.running[key] = []
        self.farm.registered(key)
        self.want(key, ranks if window is None else window)
        return ids

    def want(self, key: int, window: int) -> None:
        self.windows[key] = window
        self.farm.want_tasks(key, window)
        self.flush()

    def answer(
        self, key: int, tasks: Iterable[Task], *, failed: Iterable[Task] = (), rank: int = 0, result: bytes = b"r"
    ) -> None:
        """The set has run these; one message per group, in the order given."""
        by_serial: dict[int, list[Task]] = {}
        for task in tasks:
            by_serial.setdefault(self.given[key].pop(task).serial, []).append(task)
        failed = set(failed)
        for serial, names in by_serial.items():
            positions = packed.pack(p for p, name in enumerate(names) if name in failed)
            lengths = packed.pack([len(result)] * len(names))
            indices = packed.pack(index for _, index in names)
            body = [result * len(names)]
            message = m.TaskResults(serial, rank, indices, positions, lengths, 0.1, [len(body[0])])
            self.farm.results(key, message, body)
        self.flush()

    def answer_large(self, key: int, task: Task, stream: int = 7, rank: int = 0, *, complete: bool = True) -> None:
        serial = self.given[key].pop(task).serial
        body = [] if stream else [b"x" * BIG]
        self.farm.result(key, m.LargeTaskResult(serial, task[1], rank, 0.1, [BIG]), body, stream)
        before = len(self.forwards)
        self.flush()
        for forward in self.forwards[before:]:
            for to, message in forward.sinks if complete else ():
                self._hear(to, message, b"")
        self.farm.result_passed_on(key, stream, complete)
        self.flush()

    def start(self, key: int, tasks: Iterable[Task]) -> None:
        """Ranks of the set have these tasks."""
        for task in tasks:
            self.farm.blame.started(key, m.TasksStarted(self.given[key][task].serial, packed.pack([task[1]])))

    def return_(self, key: int, tasks: Iterable[Task], why: str, rank: int = -1, text: str = "") -> None:
        by_serial: dict[int, list[int]] = {}
        for task in tasks:
            given = self.given[key][task] if why == "running" else self.given[key].pop(task)
            by_serial.setdefault(given.serial, []).append(task[1])
        for serial, indices in by_serial.items():
            self.farm.returned(key, m.TasksReturned(serial, packed.pack(indices), rank, why, text))
        self.flush()

    def lose_ranks(self, key: int, ranks: Sequence[int], reason: str = "") -> None:
        self.farm.ranks_lost(key, ranks, reason=reason)
        self.registry.remove(self.registry.of_ranks(key, ranks))
        self.flush()

    def lose_set(self, key: int) -> None:
        self.farm.set_lost(key, "gone")
        self.registry.remove([e.id for e in self.registry.sets[key].engines.values()])
        del self.given[key]
        del self.windows[key]
        self.flush()

    # --- clients -------------------------------------------------------------------------------------------

    def submit(self, group: int, payloads: Sequence[bytes] = (b"a",), client: int = ALICE, **options: Any) -> None:
        options.setdefault("operation", b"op")
        options.setdefault("label", f"f{group}")
        body = b"".join(payloads)
        message = m.SubmitTasks(
            group, m.TaskOptions(**options), packed.pack(map(len, payloads)), [len(body)]
        )  # fmt: skip
        self.farm.submit(client, message, [body], 0)
        self._know(client, group)
        self.flush()

    def submit_large(self, group: int, stream: int, client: int = ALICE, **options: Any) -> None:
        message = m.SubmitTasks(group, m.TaskOptions(b"op", f"f{group}", **options), b"", [BIG])
        self.farm.submit(client, message, [], stream)
        self._know(client, group)
        self.flush()

    def _know(self, client: int, group: int) -> None:
        self.groups[999 + len(self.groups) + 1] = (client, group)

    def abort(
        self, group: int, indices: Sequence[int] = (), how: str = "cancel", client: int = ALICE, number: int = 77
    ) -> None:
        self.farm.aborts.abort(client, m.AbortTasks(number, group, packed.pack(indices), how))
        self.flush()

    def define(self, data: bytes, client: int = ALICE, piece: int = 100_000) -> bytes:
        key = hashlib.blake2b(data, digest_size=16).digest()
        for offset in range(0, len(data), piece):
            part = data[offset : offset + piece]
            self.farm.define(client, m.DefineFunction(key, offset, len(data), [len(part)]), [part])
        return key

    # --- what the farm wants ---------------------------------------------------------------------------------

    def flush(self, now: float | None = None) -> None:
        self.now = self.now if now is None else now
        for effect in self.farm.flush(self.now):
            if isinstance(effect, Send):
                self._hear(effect.to, effect.message, b"".join(effect.body))
            elif isinstance(effect, Forward):
                self.forwards.append(effect)
            elif isinstance(effect, Decline):
                self.declined.append((effect.source, effect.stream))

    def _hear(self, to: int, message: Any, body: bytes) -> None:
        if isinstance(message, m.GiveTasks):
            self._given(to, message, body)
        elif isinstance(message, m.TasksDone):
            failed = set(packed.unpack(message.failed))
            payloads = packed.slices(body, packed.unpack(message.lengths))
            for position, (index, payload) in enumerate(
                zip(packed.unpack(message.indices), payloads, strict=True)
            ):
                end = End("failed" if position in failed else "ok", message.engine, bytes(payload))
                self.ends.setdefault((to, message.group, index), []).append(end)
        elif isinstance(message, m.TaskDone):
            self.ends.setdefault((to, message.group, message.index), []).append(End("large", message.engine))
        elif isinstance(message, m.TasksUndone):
            for index in packed.unpack(message.indices):
                end = End(message.error, payload=message.text.encode())
                self.ends.setdefault((to, message.group, index), []).append(end)
        elif to in self.given:
            self.to_set.append((to, message))
        else:
            self.to_client.append((to, message))

    def _given(self, key: int, message: m.GiveTasks, body: bytes) -> None:
        indices = packed.unpack(message.indices)
        payloads: list[bytes | None] = [None]
        if message.lengths:
            assert message.sizes == [len(body)]
            payloads = [bytes(p) for p in packed.slices(body, packed.unpack(message.lengths))]
        for index, payload in zip(indices, payloads, strict=True):
            task = (self.groups[message.group][1], index)
            assert task not in self.given[key], "given twice"
            self.given[key][task] = Given(message.group, payload, message.ranks, message.alone)
            self.running[key].append(task)
        assert len(self.given[key]) <= self.windows[key], "more than the window"

    # --- what tests look at ------------------------------------------------------------------------------------

    def end(self, group: int, index: int = 0, client: int = ALICE) -> End | None:
        """How a task ended: heard once, or not at all."""
        ends = self.ends.get((client, group, index), [])
        assert len(ends) <= 1, "told twice"
        return ends[0] if ends else None

    def kinds(self, group: int, count: int, client: int = ALICE) -> list[str]:
        return [end.kind if (end := self.end(group, index, client)) else "-" for index in range(count)]

    def told_set(self, kind: type[Any]) -> list[tuple[int, Any]]:
        found = [pair for pair in self.to_set if isinstance(pair[1], kind)]
        self.to_set = [pair for pair in self.to_set if not isinstance(pair[1], kind)]
        return found

    def replies(self) -> list[list[int]]:
        found = [list(packed.unpack(msg.value)) for _, msg in self.to_client if isinstance(msg, m.Reply)]
        self.to_client = [pair for pair in self.to_client if not isinstance(pair[1], m.Reply)]
        return found

    def counts(self) -> tuple[int, int, int, int]:
        status = self.farm.status(ALICE)
        return status["scheduled"], status["pending"], status["succeeded"], status["failed"]

    def check_empty(self) -> None:
        """Nothing is left behind."""
        farm = self.farm
        assert farm._table.groups == {}
        assert all(not state.groups and not state.held for state in farm._table._clients.values())
        assert all(not state.conditions for state in farm._table._clients.values())
        assert all(not p.given and not p.unanswered and not p.movable for p in farm._sets.by_key.values())
        assert farm.aborts._requests == {}
        assert self.counts()[:2] == (0, 0)
