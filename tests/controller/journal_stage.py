"""A controller with a journal that is killed now and then, its clients and its engine sets, on one injected clock.

The farm, the journal's thinking part, the clients' submitters and the memory of a set's root agent are the real
ones. Messages are in queues, of which a kill loses everything.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from ipmpi.client.session.failures import kernel_error
from ipmpi.client.session.functions import Definition
from ipmpi.client.session.opening import EVERYTHING
from ipmpi.client.tasks.resuming import _Follower, _group
from ipmpi.client.tasks.submitter import TaskSubmitter
from ipmpi.client.tasks.taskgroup import SubmitTerms, TaskRef
from ipmpi.controller.effects import Send, refusal
from ipmpi.controller.farm.farm import Farm
from ipmpi.controller.namedtasks import Keep
from ipmpi.controller.registry import Registry
from ipmpi.controller.restoring import restore
from ipmpi.controller.taskjournal import TaskJournal
from ipmpi.engine.agent.unrecorded import UnrecordedResults
from ipmpi.engine.farm.effects import Up
from ipmpi.errors import ConnectionError, KernelError
from ipmpi.protocol import messages as m, packed
from tests.journal.memory_store import MemoryStore

Packet = tuple[Any, Sequence[Any]]
FUNCTION = Definition(bytes.fromhex("cae66941d9efbd404e4d88758ea67670"), b"")


class Ending:
    """Hears of the end of one task; every call is kept."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def arrived(self, engine: int, ok: bool, payload: Any) -> None:
        del engine
        self.heard.append(("ok" if ok else "failed", bytes(payload)))

    def undone(self, error: BaseException) -> None:
        self.heard.append((type(error).__name__, str(error)))


class SimulatedClient:
    """A client: the wire of a real submitter."""

    is_journalled = True
    opener = EVERYTHING
    failure = None

    def __init__(self, key: int, stage: JournalStage) -> None:
        self.key = key
        self.stage = stage
        self.is_connected = True
        self.out: deque[Packet] = deque()
        self.inbox: deque[Packet] = deque()
        self._numbers = itertools.count(1)
        self.submitter = TaskSubmitter(self)
        self.tasks: dict[bytes, tuple[TaskRef, Ending]] = {}
        self._later: list[Callable[[], object]] = []
        self.requests: dict[int, Future[Any]] = {}
        self.name = f"sweep-{key}" if stage.has_names and key % 3 else ""
        self.followed: list[Ending] = []
        self._names: set[str] = set()

    def check(self) -> None:
        pass

    def number(self) -> int:
        return next(self._numbers)

    def is_own_thread(self) -> bool:
        return True

    def post(self, call: Callable[[], object], on_error: Any = None) -> None:
        del on_error
        self._later.append(call)

    def post_later(self, seconds: float, call: Callable[[], object], on_error: Any = None) -> None:
        del seconds
        self.post(call, on_error)

    def request(self, make: Any) -> Any:
        number = self.number()
        self.requests[number] = future = Future()
        self.send(make(number))
        return future

    def send(self, message: Any, body: Sequence[Any] = ()) -> None:
        if self.is_connected:
            self.out.append((message, [bytes(each) for each in body]))

    send_streamed = send

    def turn(self) -> None:
        """Do what was posted. What a session sends while it is not connected, a restart drops."""
        calls, self._later = self._later, []
        for call in calls:
            call()

    def submit(self, name: bytes, after: Sequence[TaskRef] = ()) -> None:
        options = m.TaskOptions(b"op", "", after=[tuple(ref) for ref in after], name=self.name)
        ending = Ending()
        self.tasks[name] = (self.submitter.submit_one(SubmitTerms(options), name, ending), ending)
        if self.stage.random.random() < 0.3:
            self.submitter._open = None  # the next one goes into another message

    def is_accepted(self, name: bytes) -> bool:
        """Whether the controller has told it that it has this task, or how it ended."""
        ref, ending = self.tasks[name]
        group = self.submitter._by_number.get(ref.group)
        return bool(ending.heard) or (group is not None and group.sent and group.copy is None)

    def follow(self, name: str) -> None:
        """Resume tasks of another client, as :class:`ipmpi.client.tasks.resuming.Resuming` does."""
        rows = self.stage.journal.named.resume(self.key, m.ResumeTasks(0, name, 0))["groups"]
        if self.submitter.has_open(-row[0] for row in rows) or name in self._names:
            return  # it would get the same futures
        self._names.add(name)
        groups = [_group(serial, tasks, label) for serial, tasks, _, _, label in rows]
        for group in groups:
            group.handlers += [Ending() for _ in range(group.left)]
            self.followed += group.handlers  # type: ignore[arg-type]
        waiting = deque((group, 3 << 20) for group in groups)  # three at a time
        self.submitter.adopt(groups)
        self.post(_Follower(self.submitter, waiting).start)

    def comes_back(self) -> None:
        """As a session, when the controller was started again."""
        self.is_connected = True
        lost, self.requests = list(self.requests.values()), {}
        for future in lost:
            future.set_exception(ConnectionError("the controller has started again"))
        self.submitter.go_on()

    def hear(self, message: Any, body: Sequence[Any]) -> None:
        if isinstance(message, m.Reply):
            self.requests.pop(message.id).set_result(message.value)
        elif isinstance(message, m.Refused) and message.id in self.requests:
            self.requests.pop(message.id).set_exception(kernel_error(message.error, message.text))
        elif isinstance(message, m.TasksDone):
            self.submitter.tasks_done(message, body)
        elif isinstance(message, m.TasksUndone):
            self.submitter.tasks_undone(message)
        elif isinstance(message, m.TasksAccepted):
            self.submitter.accepted(message.groups)
        elif isinstance(message, m.Refused):
            self.submitter.refused(message.id, kernel_error(message.error, message.text))


class SimulatedSet:
    """A set of engines: it runs what it is given, and keeps results until they are recorded."""

    def __init__(self, stage: JournalStage, ranks: int) -> None:
        self.stage = stage
        self.ranks = ranks
        self.key = 0
        self.token = b""
        self.is_connected = False
        self.out: deque[Packet] = deque()
        self.inbox: deque[Packet] = deque()
        self.ids: list[int] = []
        self.unrecorded = UnrecordedResults()
        self.waiting: dict[tuple[int, int], bytes] = {}
        self.running: dict[tuple[int, int], bytes] = {}
        self.allowed: dict[tuple[int, int], Sequence[int]] = {}
        """Ranks that may run each task; empty for all."""

    def connect(self) -> None:
        former, self.token = self.token, self.stage.random.randbytes(16)
        self.key = self.stage.begin_set(self.token, former)
        self.is_connected = True
        self.welcomed(bool(former))

    def welcomed(self, again: bool) -> None:
        """A session begins; ``again``: after another one that the controller does not know."""
        if again:
            # As the agent: tasks that wait are dropped, those that run are told of.
            held: dict[int, set[int]] = {}
            for serial, index in self.running:
                held.setdefault(serial, set()).add(index)
            self.waiting.clear()
            self.unrecorded.hold(held)
        self.unrecorded.is_on = True
        infos = [m.EngineInfo(rank, rank, "host", 100 + rank) for rank in range(self.ranks)]
        self._say(m.Register(infos, "", "", self.ids))
        for message, body in self.unrecorded.after_registration(range(self.ranks)):
            self._say(message, body)
        self._say(m.WantTasks(2 * self.ranks))

    def _say(self, message: Any, body: Sequence[Any] = ()) -> None:
        if self.is_connected:
            self.out.append((message, body))

    def hear(self, message: Any, body: Sequence[Any]) -> None:
        if isinstance(message, m.GiveTasks):
            whole = b"".join(bytes(each) for each in body)
            pieces = packed.slices(whole, packed.unpack(message.lengths))
            for index, payload in zip(packed.unpack(message.indices), pieces, strict=True):
                task = message.group, index
                assert task not in self.waiting, "given twice"
                assert task not in self.running, "given while it runs"
                self.waiting[task] = bytes(payload)
                self.allowed[task] = message.ranks
        elif isinstance(message, m.CancelTasks):
            for index in packed.unpack(message.indices):
                if self.waiting.pop((message.group, index), None) is not None:
                    self._say(m.TasksReturned(message.group, packed.pack([index]), -1, "cancelled"))
        elif isinstance(message, m.ResultsRecorded):
            self.unrecorded.recorded(message.results)

    def step(self) -> None:
        """Start a task, or end some."""
        if self.waiting and len(self.running) < self.ranks:
            task = next(iter(self.waiting))
            self.running[task] = self.waiting.pop(task)
            self.stage.runs[self.running[task]] += 1
            self._say(m.TasksStarted(task[0], packed.pack([task[1]])))
        elif self.running:
            serial = next(iter(self.running))[0]
            ended = [task for task in self.running if task[0] == serial]
            names = [self.running.pop(task) for task in ended]
            failed = packed.pack(i for i, name in enumerate(names) if name.endswith(b"!"))
            body = b"".join(names)
            message = m.TaskResults(
                serial, 0, packed.pack(index for _, index in ended), failed,
                packed.pack(map(len, names)), self.stage.now, [len(body)],
            )  # fmt: skip
            self.unrecorded.note([Up(message, [body])])
            self._say(message, [body])


class JournalStage:
    """Use it with ``clock`` in place of the clock of ``ipmpi.client.tasks.submitter``: then a seed says all."""

    clock = SimpleNamespace(monotonic=lambda: 0.0)

    def __init__(self, seed: int, clients: int = 2, sets: int = 2, *, has_names: bool = False) -> None:
        self.has_names = has_names
        self.random = random.Random(seed)
        self.now = 0.0
        self.clock.monotonic = lambda: self.now
        self.store = MemoryStore()
        self.runs: Counter[bytes] = Counter()
        self.log: list[str] = []
        self._keys = itertools.count(1)
        self.kills = 0
        self.vanished: list[SimulatedClient] = []
        self._leases: list[int] = []
        """Vanished clients of which the controller does not know that."""
        self._start()
        self.clients = [self._new_client() for _ in range(clients)]
        self.sets = [SimulatedSet(self, self.random.randint(1, 3)) for _ in range(sets)]
        for each in self.sets:
            each.connect()

    # --- the controller --------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.registry, comeback = self._start_commands()
        self.farm = Farm(self.registry, self.random.getrandbits(40))
        self.farm.arguments.most = self.random.choice([0, 60, 200, 100_000])  # mostly, what waits is spilled
        keep = Keep(wall=lambda: self.now)
        self.journal = TaskJournal(self.farm, self.store, self.log.append, keep)
        self.restored: set[int] = set()
        sessions = SimpleNamespace(
            knows=lambda role: True,
            sets=frozenset(),
            restore=self._restore_session,
            continue_after=lambda key: None,
        )
        history = SimpleNamespace(clients=(), may_come=lambda *_: None)
        service = SimpleNamespace(sessions=sessions, journal=self.journal, comeback=comeback, history=history)
        restore(
            self.store.load(bodies=False), service, self.now,  # type: ignore[arg-type]
            self.log.append,
        )  # fmt: skip
        self.known_sets: frozenset[bytes] = sessions.sets

    def _start_commands(self) -> tuple[Registry, Any]:
        """Return the registry, and what commands wait for after a restart; here there are no commands."""
        return Registry(), SimpleNamespace(expect=lambda *_: None)

    def _restore_session(self, key: int, token: bytes, role: str) -> None:
        del token, role
        self.restored.add(key)

    def _new_client(self) -> SimulatedClient:
        key = next(self._keys)
        self.journal.began(
            SimpleNamespace(key=key, token=bytes([key]), role="tc", former=b"", holder="", only=None)
        )
        return SimulatedClient(key, self)

    def begin_set(self, token: bytes, former: bytes) -> int:
        key = next(self._keys)
        self.journal.began(
            SimpleNamespace(key=key, token=token, role="engine", former=former, holder="", only=None)
        )
        return key

    def new_client(self) -> SimulatedClient:
        """Another client comes."""
        self.clients.append(self._new_client())
        return self.clients[-1]

    def vanish(self, client: SimulatedClient) -> None:
        """A client is killed."""
        self.clients.remove(client)
        self.vanished.append(client)
        self._leases.append(client.key)

    def _lease_ends(self) -> None:
        key = self._leases.pop(0)
        if key in self.journal.named._clients:
            self.journal.client_lost(key, orderly=False)

    def kill(self) -> None:
        """Kill the controller, and start another."""
        self.kills += 1
        for each in [*self.clients, *self.sets]:
            each.is_connected = False
            each.out.clear()
            each.inbox.clear()
        self._start()
        self._leases = [client.key for client in self.vanished if client.key in self.restored]

    def connect(self, peer: SimulatedClient | SimulatedSet) -> None:
        if isinstance(peer, SimulatedSet):
            peer.connect()
        else:
            assert peer.key in self.restored, "a client comes back, and its session is not in the journal"
            peer.comes_back()

    def _from_client(self, client: SimulatedClient, message: Any, body: Sequence[Any]) -> None:
        try:
            if isinstance(message, m.SubmitTasks):
                self.journal.submit(client.key, message, body, 0)
            elif isinstance(message, m.DefineFunction):
                self.farm.define(client.key, message, body)
            elif isinstance(message, m.TasksFetched | m.TasksOpen | m.TaskOrigin | m.FollowTasks):
                self.journal.told(client.key, message)
        except KernelError as error:
            self._refuse(client, message.id, error)

    def _refuse(self, client: SimulatedClient, number: int, error: KernelError) -> None:
        client.hear(refusal(number, error), ())

    def _from_set(self, each: SimulatedSet, message: Any, body: Sequence[Any]) -> None:
        if isinstance(message, m.Register):
            self._register(each.key, message)
            self.journal.registered(each.key)
        elif isinstance(message, m.TaskResults):
            self.journal.results(each.key, message, body)
        elif isinstance(message, m.TasksHeld):
            self.journal.held(each.key, message)
        elif isinstance(message, m.WantTasks):
            self.farm.want_tasks(each.key, message.window)
        elif isinstance(message, m.TasksReturned):
            self.farm.returned(each.key, message)
        elif isinstance(message, m.TasksStarted):
            self.farm.blame.started(each.key, message)

    def _register(self, key: int, message: m.Register) -> None:
        self.registry.register(key, message)

    def flush(self) -> None:
        """The end of a turn."""
        for effect in self.journal.flush(self.now):
            if isinstance(effect, Send):
                for each in [*self.clients, *self.sets]:
                    if each.key == effect.to and each.is_connected:
                        each.inbox.append((effect.message, [bytes(part) for part in effect.body]))

    # --- the clock -------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Something happens."""
        chance = self.random.random
        self.now += 0.01 * chance()
        if self._leases and chance() < 0.02:
            self._lease_ends()
        peers = [*self.clients, *self.sets]
        peer = self.random.choice(peers)
        if not peer.is_connected:
            if chance() < 0.3:
                self.connect(peer)
            elif isinstance(peer, SimulatedSet):
                peer.step()
            return
        if peer.inbox and chance() < 0.5:
            peer.hear(*peer.inbox.popleft())
        elif peer.out and chance() < 0.7:
            for _ in range(self.random.randint(1, 3)):
                if peer.out:
                    message = peer.out.popleft()
                    if isinstance(peer, SimulatedSet):
                        self._from_set(peer, *message)
                    else:
                        self._from_client(peer, *message)
            if chance() < 0.8:
                self.flush()
        elif isinstance(peer, SimulatedSet):
            peer.step()
        else:
            peer.turn()
        if chance() < 0.1:
            self.flush()

    def deliver_all(self) -> None:
        """Let all messages arrive that are under way: those of sets and clients in one turn of the controller."""
        while True:
            for client in self.clients:
                client.turn()
            peers = [*self.sets, *self.clients]
            if not any(peer.out or peer.inbox for peer in peers):
                return
            for each in self.sets:
                while each.out:
                    self._from_set(each, *each.out.popleft())
            for client in self.clients:
                while client.out:
                    self._from_client(client, *client.out.popleft())
            self.flush()
            for peer in peers:
                while peer.inbox:
                    peer.hear(*peer.inbox.popleft())

    def settle(self, limit: int = 20_000) -> None:
        """Let everything come to its end: all are connected, and the disk has room."""
        self.store.is_full = False
        for _ in range(limit):
            self.turn()
            waits = any(each.out or each.inbox for each in [*self.clients, *self.sets])
            waits = waits or bool(self._leases) or any(client._later for client in self.clients)
            if not waits and not any(client.submitter.is_busy for client in self.clients):
                return
        raise AssertionError("tasks do not end")
