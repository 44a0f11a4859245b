"""An engine set in one process, and a controller that remembers what it is told.

Agent threads' code and pipes are real, in one loop; main threads are threads, or the test's own where it needs
signals.
"""

from __future__ import annotations

import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import cloudpickle

from ipmpi import serialize
from ipmpi.engine.namespace import Namespace
from ipmpi.engine.proxy import Proxy
from ipmpi.engine.rank import Rank
from ipmpi.engine.uplink import link_up
from ipmpi.protocol import messages as m, operations as o, packed
from ipmpi.protocol.connection import Connection, DataReceived, Event, MessageReceived, StreamAborted
from ipmpi.protocol.frames import Buffer, split
from ipmpi.protocol.states import CONTROLLER_RECEIVES, FROM_ABOVE, RECEIVES
from ipmpi.transport.link import Link
from ipmpi.transport.loop import Loop
from ipmpi.transport.pipes import UnixPipe

PATIENCE = 5.0
Answer = TypeVar("Answer")
Said = TypeVar("Said")


class End:
    """One end of the link between controller and rank 0."""

    def __init__(self, loop: Loop, sock: socket.socket, may_receive: Any, heard: Callable[[Event], None]) -> None:
        self.connection = Connection(may_receive, resumable=False)
        self.link = Link(
            loop, UnixPipe(sock), self.connection, heard, lambda reason, orderly, error: None, watch=False
        )

    def wake(self) -> None:
        self.link.wake()


class FakeTeams:
    """Communicators that are only names; a part can wait in one, until it is called out."""

    def __init__(self) -> None:
        self.joined: list[tuple[tuple[int, ...], int]] = []
        self.left = threading.Event()
        self.text = ""

    def join(self, ranks: Sequence[int], serial: int) -> FakeTeams:
        self.joined.append((tuple(ranks), serial))
        return self

    def leave(self, text: str) -> None:
        self.text = text
        self.left.set()

    def end(self) -> None:
        self.left.clear()


class SmallSet:
    """``size`` ranks on one node, joined by ``FakeTeams``."""

    def __init__(self, size: int, *, own_thread: bool = False) -> None:
        self.loop = Loop()
        self.said: SimpleQueue[tuple[Any, list[bytes]]] = SimpleQueue()
        self.back: list[tuple[Any, list[bytes]]] = []
        """What was said and not asked for yet."""
        self._streams: dict[int, tuple[Any, bytearray]] = {}
        self.takes_streams = True
        self.stopped: list[str] = []
        self.teams = [FakeTeams() for _ in range(size)]
        self.ranks = [
            Rank(Namespace(n), lambda name: None, n, lambda n=n: self.teams[n])  # type: ignore[misc]
            for n in range(size)
        ]
        self.proxies = [self._proxy(n, size) for n in range(size)]
        self.sockets: list[socket.socket] = []
        self._groups = 0
        self._only_on: dict[int, Sequence[int]] = {}
        self._given: dict[int, tuple[m.TaskOptions, list[bytes]]] = {}
        ours, theirs = socket.socketpair()
        self._all_sockets = [ours, theirs]
        self.controller = End(self.loop, ours, CONTROLLER_RECEIVES["engine"], self._hear)
        self.end = End(self.loop, theirs, RECEIVES["engine"], self.proxies[0].from_above)
        self.proxies[0].above = self.end
        for number in range(1, size):
            above, below = socket.socketpair()
            self.sockets.append(below)
            self._all_sockets += above, below
            self.proxies[0].add_child(UnixPipe(above))
            link_up(self.proxies[number], UnixPipe(below), FROM_ABOVE)
        for rank in self.ranks[1:] if own_thread else self.ranks:
            rank.interrupts._thread = None  # a signal would hit the test
        work: list[Callable[[], None]] = [rank.run for rank in (self.ranks[1:] if own_thread else self.ranks)]
        self.threads = [threading.Thread(target=call, daemon=True) for call in (*work, self.loop.run)]
        for thread in self.threads:
            thread.start()
        complete = threading.Event()
        self.proxies[0].on_complete = complete.set
        for proxy in self.proxies[1:]:
            self.do(proxy.register)
        assert size == 1 or complete.wait(PATIENCE)
        self.do(self.proxies[0].register)
        self.hears(m.Register)
        self.tell(m.Registered(list(range(size))))

    def _proxy(self, number: int, size: int) -> Proxy:
        own = m.EngineInfo(number, number, "host", 100 + number)
        return Proxy(
            self.loop, self.ranks[number], own, "MPI", "3", size - 1 if number == 0 else 0, lambda text: None,
            lambda reason, orphaned: self.stopped.append(reason), joined=True, leaders=[0] * size,
        )  # fmt: skip

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
        for rank in self.ranks:
            rank.stop()
        self.loop.stop()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
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
            small.ranks[0].interrupt_all()
            small.ranks[0].stop()

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    small.ranks[0].install_signals()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        small.ranks[0].run()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    if problems:
        raise problems[0]
