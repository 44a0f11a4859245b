"""An engine set in one process, and a controller that remembers what it is told.

Agents, links, sockets and shared memory are real. The agents are in one loop; ranks are threads, or the test's own
where it needs signals.
"""

from __future__ import annotations

import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NoReturn, TypeVar

import cloudpickle

from ipmpi import serialize
from ipmpi.engine.agent.peeragent import PeerAgent
from ipmpi.engine.agent.taskagent import TaskAgent
from ipmpi.engine.agent.uplink import link_up
from ipmpi.engine.rank.interrupts import SIGNAL
from ipmpi.errors import PeerError
from ipmpi.protocol import messages as m, operations as o, packed, rankmessages as rm
from ipmpi.protocol.connection import Connection, DataReceived, Event, MessageReceived, StreamAborted
from ipmpi.protocol.frames import Buffer, split
from ipmpi.protocol.permissions import CONTROLLER_RECEIVES, FROM_ABOVE, RECEIVES
from ipmpi.transport.link import Link
from ipmpi.transport.loop import Loop
from tests.node import Node
from tests.socketpipe import SocketPipe

PATIENCE = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.Signals(SIGNAL))
Answer = TypeVar("Answer")
Said = TypeVar("Said")


class End:
    """One end of the link between controller and rank 0."""

    def __init__(self, loop: Loop, sock: socket.socket, may_receive: Any, heard: Callable[[Event], None]) -> None:
        self.connection = Connection(may_receive, resumable=False)
        self.link = Link(
            loop, SocketPipe(sock), self.connection, heard, lambda reason, orderly, error: None, watch=False
        )

    def wake(self) -> None:
        self.link.wake()


class FakeTeams:
    """Communicators that are only names; a part can wait in one, until it is called out."""

    def __init__(self) -> None:
        self.joined: list[tuple[tuple[int, ...], int]] = []
        self.why: Callable[[], str | None] = lambda: None
        """Why the part that runs shall not go on, as the rank says."""

    def join(self, ranks: Sequence[int], serial: int, has_lost: bool) -> FakeTeams:
        assert not has_lost
        self.joined.append((tuple(ranks), serial))
        return self

    def renew(self, ranks: Sequence[int], serial: int, has_lost: bool) -> FakeTeams:
        assert not has_lost
        assert (tuple(ranks), serial) in self.joined
        return self

    def wait(self) -> NoReturn:
        """Wait for other ranks, as inside MPI, until it is pointless."""
        until = time.monotonic() + PATIENCE
        while (text := self.why()) is None:
            assert time.monotonic() < until
            time.sleep(0.001)
        raise PeerError(text)

    def end(self) -> None:
        pass


class SmallSet:
    """``size`` ranks, joined by ``FakeTeams``.

    Args:
        one_node: whether they have one agent; else each has its own, and the others' are below that of rank 0.
        own_thread: whether the test's own thread will be that of rank 0, see :func:`in_main_thread`.
    """

    def __init__(self, size: int, *, one_node: bool = False, own_thread: bool = False) -> None:
        self.loop = Loop()
        self.said: SimpleQueue[tuple[Any, list[bytes]]] = SimpleQueue()
        self.back: list[tuple[Any, list[bytes]]] = []
        """What was said and not asked for yet."""
        self._streams: dict[int, tuple[Any, bytearray]] = {}
        self.takes_streams = True
        self.stopped: list[str] = []
        """Why the agent at the root has told its node to end."""
        self.log: list[str] = []
        self.teams = [FakeTeams() for _ in range(size)]
        self._groups = 0
        self._only_on: dict[int, Sequence[int]] = {}
        self._given: dict[int, tuple[m.TaskOptions, list[bytes]]] = {}
        self._own_thread = own_thread
        leaders = [0] * size if one_node else list(range(size))
        self._ready = threading.Semaphore(0)
        self.nodes = [self._node(leader, leaders) for leader in sorted(set(leaders))]
        self.agents = [node.agent for node in self.nodes]
        self.ranks = [rank for node in self.nodes for rank in node.ranks.values()]
        self.local = [local for node in self.nodes for local in node.local.values()]
        ours, theirs = socket.socketpair()
        self._all_sockets = [ours, theirs]
        self.controller = End(self.loop, ours, CONTROLLER_RECEIVES["engine"], self._hear)
        self.end = End(self.loop, theirs, RECEIVES["engine"], self.agents[0].from_above)
        self.agents[0].above = self.end
        for agent in self.agents[1:]:
            above, below = socket.socketpair()
            self._all_sockets += above, below
            self.agents[0].add_peer(SocketPipe(above))
            link_up(agent, SocketPipe(below), FROM_ABOVE)
        for node in self.nodes:
            node.start()
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        complete = threading.Event()
        self.agents[0].on_complete = complete.set
        self._thread.start()
        for _ in self.nodes:
            assert self._ready.acquire(timeout=PATIENCE)
        for agent in self.agents[1:]:
            self.do(agent.register)
        assert len(self.agents) == 1 or complete.wait(PATIENCE)
        self.do(self.agents[0].register)
        self.hears(m.Register)
        self.tell(m.Registered(list(range(size))))

    def _node(self, leader: int, leaders: list[int]) -> Node:
        return Node(
            self.loop,
            [rank for rank, its in enumerate(leaders) if its == leader],
            len(set(leaders)) - 1 if leader == 0 else 0,
            self.log.append,
            lambda reason, orphaned: None if leader else self.stopped.append(reason),
            self._ready.release,
            joined=True,
            leaders=leaders,
            make_teams=self._make_teams,
            in_main_thread=0 if self._own_thread else -1,
        )

    def _make_teams(self, number: int, left: Callable[[], str | None]) -> FakeTeams:
        self.teams[number].why = left
        return self.teams[number]

    def tasks(self, rank: int) -> TaskAgent:
        """The agent's side of a rank's items."""
        return self.local[rank].tasks

    def die(self, rank: int) -> None:
        """The process of a rank ends."""
        for node in self.nodes:
            if rank in node.ranks:
                node.die(rank)

    def lose_node(self, rank: int) -> None:
        """The agent of this rank's node is gone."""
        (node,) = [node for node in self.nodes if rank in node.ranks]
        above = node.agent.above
        assert isinstance(above, PeerAgent)
        assert above.link is not None
        self.do(lambda: above.link.close("the test cuts it"))  # type: ignore[union-attr]

    def do(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call that is made in the loop."""
        answers: SimpleQueue[Answer] = SimpleQueue()
        self.loop.call_threadsafe(lambda: answers.put(call()))
        return answers.get(timeout=PATIENCE)

    def when(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so."""
        until = time.monotonic() + PATIENCE
        while not self.do(holds):
            assert time.monotonic() < until

    def close(self) -> None:
        for local in self.local:
            self.do(lambda local=local: local.stop(rm.Stop("the test is over")))  # type: ignore[misc]
        for node in self.nodes:
            node.close(PATIENCE)
        self.loop.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        for local in self.local:
            local.break_off()
        self.loop.close()
        for sock in self._all_sockets:
            sock.close()

    # --- the controller's part -----------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        connection = self.controller.connection
        if isinstance(event, MessageReceived):
            if event.stream:
                self._streams[event.stream] = event.message, bytearray()
                if self.takes_streams:
                    connection.grant(event.stream, 1 << 60)
            else:
                self.said.put((event.message, [bytes(part) for part in event.body]))
        elif isinstance(event, DataReceived):
            message, data = self._streams[event.stream]
            data += event.data
            if event.last:
                parts: list[Buffer] = split(memoryview(data), message.sizes)
                self.said.put((message, [bytes(part) for part in parts]))
        elif isinstance(event, StreamAborted):
            self.said.put(("aborted", []))

    def take_streams(self) -> None:
        """Give streams that wait the credit that they need."""
        for number in self._streams:
            self.controller.connection.grant(number, 1 << 60)
        self.controller.wake()

    def tell(self, message: Any, body: Sequence[Buffer] = ()) -> None:
        def send() -> None:
            self.controller.connection.send(message, body)
            self.controller.wake()

        self.do(send)

    def hears(self, kind: type[Said], accept: Callable[[Said], bool] = lambda message: True) -> Said:
        """The first message of a kind that the controller has heard or will hear."""
        return self.hears_all(kind, accept)[0]

    def hears_all(
        self, kind: type[Said], accept: Callable[[Said], bool] = lambda message: True
    ) -> tuple[Said, list[bytes]]:
        """That, and its body."""
        for entry in self.back:
            if isinstance(entry[0], kind) and accept(entry[0]):
                self.back.remove(entry)
                return entry
        until = time.monotonic() + PATIENCE
        while True:
            try:
                entry = self.said.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                raise AssertionError(f"no {kind} came, but {self.back}") from None
            if isinstance(entry[0], kind) and accept(entry[0]):
                return entry
            self.back.append(entry)

    def define(self, function: Callable[..., Any]) -> bytes:
        """Define a function; its key."""
        self._groups += 1
        key = self._groups.to_bytes(16, "big")
        data = cloudpickle.dumps(function)
        self.tell(m.DefineFunction(key, 0, len(data), [len(data)]), [data])
        return key

    def options(self, function: Callable[..., Any], depend: bytes = b"", **options: Any) -> m.TaskOptions:
        """The options of calls of a function."""
        key = self.define(function)
        operation = o.CallTaskOperation(key, together=options.get("width", 1) > 1, depend=depend)
        return m.TaskOptions(o.encode(operation), "label", [key], **options)

    def give(self, options: m.TaskOptions, arguments: Sequence[tuple[Any, ...]], ranks: Sequence[int] = ()) -> int:
        """Give a group of tasks; its number."""
        self._groups += 1
        payloads = [pickle.dumps((args, {}), 5) for args in arguments]
        self._given[self._groups] = options, payloads
        self._send(self._groups, range(len(payloads)), ranks)
        return self._groups

    def _send(self, group: int, indices: Sequence[int], ranks: Sequence[int] = ()) -> None:
        options, payloads = self._given[group]
        self._only_on[group] = ranks
        lengths = packed.pack([len(payloads[index]) for index in indices])
        body = b"".join([payloads[index] for index in indices])
        message = m.GiveTasks(group, options, packed.pack(indices), lengths, list(ranks), False, [len(body)])
        self.tell(message, [body])

    def give_large(self, options: m.TaskOptions, ranks: Sequence[int] = ()) -> int:
        """Announce a large task; its group."""
        self._groups += 1
        self.tell(m.GiveTasks(self._groups, options, packed.pack([0]), b"", list(ranks)))
        return self._groups

    def results(self, group: int, count: int) -> dict[int, Any]:
        """The results of a group: values, or what was raised. What is taken back is given again."""
        found: dict[int, Any] = {}
        both: Any = m.TaskResults | m.TasksReturned
        while len(found) < count:
            message, body = self.hears_all(both, lambda message: message.group == group)
            if isinstance(message, m.TasksReturned):
                assert message.why == "taken", message
                self._send(group, packed.unpack(message.indices), self._only_on.get(group, ()))
                continue
            failed = set(packed.unpack(message.failed))
            data = packed.slices(b"".join(body), packed.unpack(message.lengths))
            for position, (index, payload) in enumerate(zip(packed.unpack(message.indices), data, strict=True)):
                assert index not in found
                found[index] = _failure(payload) if position in failed else _value(payload)
        return found

    def returned(self, group: int, why: str) -> tuple[int, list[int]]:
        """The rank and the tasks of what is returned next."""
        message = self.hears(m.TasksReturned, lambda message: message.group == group)
        assert message.why == why, message
        return message.rank, list(packed.unpack(message.indices))

    def command(self, number: int, ranks: list[int], operation: o.Operation, body: object = None) -> None:
        """Send a command."""
        segments = [] if body is None else serialize.dumps(body)
        sizes = [memoryview(segment).nbytes for segment in segments]
        self.tell(m.Dispatch(number, ranks, "method", o.encode(operation), sizes), segments)


def _value(payload: memoryview) -> Any:
    return pickle.loads(payload) if len(payload) else None


def _failure(payload: memoryview) -> o.Failed:
    return packed.unpack_failure(payload)[0]


def in_main_thread(small: SmallSet, work: Callable[[], None]) -> None:
    """Do ``work`` in another thread, while the calling one is the main thread of rank 0, with its signals."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)
        finally:
            small.do(lambda: small.local[0].stop(rm.Stop("the test is over")))

    before = {number: signal.getsignal(number) for number in SIGNALS}
    small.ranks[0].install_signals()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        small.ranks[0].run()
        thread.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if problems:
        raise problems[0]
