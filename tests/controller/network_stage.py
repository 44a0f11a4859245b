"""The stage of :mod:`tests.controller.journal_stage` with a network that fails: the bytes of real connections.

Links are cut at any byte, in a handshake as well; one end may not notice; a peer may dial while its link is there;
the network is away for some seconds; the controller is killed and its disk is full. Sessions are resumed and begun
anew as in ``ipmpi.controller.sessions`` and ``ipmpi.transport.dial.dialled``, which do I/O.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ipmpi import limits
from ipmpi.controller.clientresults import has_results
from ipmpi.controller.comeback import ComeBack
from ipmpi.controller.commands.router import Router
from ipmpi.controller.effects import Decline, Effect, Forward, Send, refusal
from ipmpi.controller.farm.recovery import ends_in
from ipmpi.controller.forwarding import Forwarding, send_whole
from ipmpi.controller.interfaces import CLIENT_INTERFACES
from ipmpi.controller.registry import Registry
from ipmpi.errors import KernelError
from ipmpi.journal.rows import Change, DropGroup, EndRow, SetRow
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, DataReceived, Event, MessageReceived, Prepared
from ipmpi.protocol.frames import Buffer
from ipmpi.protocol.permissions import CONTROLLER_RECEIVES, RECEIVES
from ipmpi.transport.transfers import Transfers
from tests.controller.command_stage import CommandClient, CommandedSet
from tests.controller.journal_stage import JournalStage, SimulatedClient
from tests.journal.memory_store import MemoryStore

INTERFACES = {interface.role: interface for interface in CLIENT_INTERFACES}
UNACKNOWLEDGED = 4_000
"""Bytes after which an end waits for acknowledgements: few, so that it happens."""
LONGEST_PARTITION = 15.0
"""Seconds; sets that stay away for longer than RECOVERY lose their tasks, as is documented."""


class Violation(AssertionError):
    """Something happened that is promised not to happen."""


class CheckedStore(MemoryStore):
    """A journal that notices when an end of a task is recorded for the second time."""

    def __init__(self) -> None:
        super().__init__()
        self._ended: dict[int, dict[int, bool]] = {}
        """By serial and index: whether the result is there, which may come after the end, and once."""

    def commit(self, changes: Sequence[Change]) -> None:
        super().commit(changes)
        for change in changes:
            if isinstance(change, DropGroup):
                self._ended.pop(change.serial, None)
            elif isinstance(change, EndRow):
                known = self._ended.setdefault(change.serial, {})
                message: Any = m.decode(change.message)
                for index in ends_in(message):
                    if index in known and not (has_results(message) and not known[index]):
                        raise Violation(f"task {index} of group {change.serial} was recorded twice")
                    known[index] = has_results(message)


class Checked(Connection):
    """A connection that keeps what was said on it and has not been heard."""

    def __init__(self, table: frozenset[type[m.Message]]) -> None:
        super().__init__(table, unacknowledged=UNACKNOWLEDGED)
        self.said: deque[m.AnyMessage] = deque()

    def _queue_message(self, message: m.AnyMessage | Prepared, body: list[Buffer], stream: int) -> None:
        self.said.append(m.decode(message.header) if isinstance(message, Prepared) else message)
        super()._queue_message(message, body, stream)

    def hear(self, data: bytes, other: Checked) -> list[Event]:
        """What is in these bytes. Messages are those that the other end has said, in that order, each once."""
        found: list[Event] = []
        for event in self.receive_data(data):
            if isinstance(event, DataReceived):
                event = event._replace(data=bytes(event.data))
            if not isinstance(event, MessageReceived):
                found.append(event)
                continue
            if not other.said or other.said.popleft() != event.message:
                raise Violation(f"{event.message} was heard out of order, or twice, or was never said")
            body: list[Any] = [bytes(part) for part in event.body]
            found.append(MessageReceived(event.message, body, event.stream))
        return found


class Known:
    """A session, as the controller knows it."""

    def __init__(self, key: int, token: bytes, role: str, former: bytes = b"", restored: bool = False) -> None:
        self.key, self.token, self.role, self.former, self.restored = key, token, role, former, restored
        self.connection = Checked(CONTROLLER_RECEIVES[role])
        self.line: Line | None = None
        self.alone_since: float | None = None

    def wake(self) -> None:
        """What is to be sent is found by itself."""


class Line:
    """The network between a peer and the controller: its state, and the bytes under way in both directions.

    ``state``: 'down', 'hello' and 'welcome' (which are under way), 'up', 'void' (open, and nothing arrives).
    """

    def __init__(self, role: str, token: bytes) -> None:
        self.role = role
        self.token = token
        self.state = "down"
        self.near = Checked(RECEIVES[role])
        self.far: Known | None = None
        self.up = bytearray()
        self.down = bytearray()
        self.away_until = 0.0
        self.hello = 0
        self.welcome: tuple[Known, int, bool] | None = None

    def cut(self) -> None:
        """What is under way is lost."""
        self.up.clear()
        self.down.clear()
        self.state = "down"
        self.welcome = None


class _Out:
    """Stands for the queue in which a peer puts what it says."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def append(self, packet: tuple[m.AnyMessage, Sequence[Any]]) -> None:
        send_whole(self._line.near, *packet)


Peer = SimulatedClient | CommandClient | CommandedSet


class NetworkStage(JournalStage):
    """Everything of :class:`JournalStage`, and commands, over lines that fail.

    ``killed``: the steps in which the controller was killed. ``commands`` and ``failures``: how likely it is that
    a command is sent in a step, and that it fails.
    """

    def __init__(self, seed: int, clients: int = 2, sets: int = 2, commanding: int = 2) -> None:
        self.lines: dict[Peer, Line] = {}
        self.sessions: dict[bytes, Known] = {}
        self.by_key: dict[int, Known] = {}
        self.killed: list[int] = []
        self._engines: list[int] = []
        self.faults: Counter[str] = Counter()
        self.steps = 0
        self.is_calm = False
        self._is_due = False
        self._partitioned: set[int] = set()
        super().__init__(seed, 0, 0)
        # Worlds differ: in some, links last; in some, the controller hears much before it does anything.
        self._rate = self.random.choice([0.1, 0.5, 1.0, 1.0])
        self._eager = self.random.choice([0.1, 0.5, 0.9])
        self._dying = self.random.choice([0.0, 0.2])
        self.commands = self.random.choice([0.0, 0.02, 0.05, 0.1])
        self.failures = self.random.choice([0.0, 0.1])
        self.clients, self.sets = [], []
        for _ in range(clients):
            client, line = SimulatedClient(0, self), Line("tc", b"")
            client.out = _Out(line)  # type: ignore[assignment]
            self.clients.append(client)
            self._begins(client, line)
        self.commanding: list[CommandClient] = []
        for _ in range(commanding):
            line = Line("mec", b"")
            self.commanding.append(CommandClient(self, line))
            self._begins(self.commanding[-1], line)
        for number in range(sets):
            each, line = CommandedSet(self, number, self.random.randint(1, 3)), Line("engine", b"")
            each.out, each.is_connected = _Out(line), True  # type: ignore[assignment]
            self.sets.append(each)
            self.lines[each] = line
        self.peers = list(self.lines)

    def _begins(self, client: SimulatedClient | CommandClient, line: Line) -> None:
        """The session of a client has begun before it submits anything."""
        self.lines[client] = line
        line.welcome = self._admit(line)
        self._welcomed(client, line)

    @property
    def engines(self) -> list[int]:
        """All engines, once their sets know their ids and are in the journal; else none. Then these stay."""
        if not self._engines:
            written = {row.token for row in self.store.contents.sets}
            if all(each.ids and self.lines[each].token in written for each in self.sets):
                found = sorted(engine for each in self.sets for engine in each.ids)
                self._engines = found if found == list(self.router.registry.ids()) else []
        return self._engines

    # --- the controller --------------------------------------------------------------------------------------

    def _start(self) -> None:
        if not isinstance(self.store, CheckedStore):
            self.store = CheckedStore()
        self.sessions, self.by_key = {}, {}
        self._partitioned.clear()
        super()._start()
        self._is_due = True

    def _start_commands(self) -> tuple[Registry, Any]:
        self.router = Router(self.random.getrandbits(40))
        self.comeback: Any = ComeBack(self.router.resumed, self._late, self._send, INTERFACES)  # type: ignore[arg-type]
        self._transfers = Transfers()
        stalled: Any = frozenset()
        by_key: Any = self.by_key
        self._forwarding = Forwarding(
            by_key, self._transfers, stalled, self.router, self._forwarded, lambda *_: None, lambda *_: None,
            self.log.append,
        )  # fmt: skip
        return self.router.registry, self.comeback

    def _forwarded(self, source: int, stream: int, complete: bool) -> None:
        self.router.forward_ended(source, stream, complete)
        self._is_due = True

    def _register(self, key: int, message: m.Register) -> None:
        self.router.register(key, message)

    def _restore_session(self, key: int, token: bytes, role: str) -> None:
        self.sessions[token] = self.by_key[key] = Known(key, token, role, restored=True)

    def kill(self) -> None:
        self.kills += 1
        self.killed.append(self.steps)
        if self.random.random() < self._dying:  # with a set that nobody has heard of, and that never comes back
            self.store.contents.sets.append(SetRow(next(self._keys), self.random.randbytes(16)))
        for line in self.lines.values():
            line.cut()
            line.far = None
        self._start()

    def _admit(self, line: Line) -> tuple[Known, int, bool]:
        """Answer a Hello: the session, how much of it has arrived, and whether it is resumed."""
        known = self.sessions.get(line.token) if line.token else None
        resumed = known is not None and not known.restored
        if known is None:
            if line.role != "engine" and line.token:
                raise Violation("the controller has forgotten the session of a client")
            is_back = line.role == "engine" and line.token in self.known_sets
            token = line.token if is_back else self.random.randbytes(16)
            known = Known(next(self._keys), token, line.role, line.token, restored=is_back)
            self.sessions[known.token] = self.by_key[known.key] = known
        elif resumed:
            known.connection.resume(line.hello)
        else:
            known.connection = Checked(CONTROLLER_RECEIVES[known.role])
        if not resumed:
            self._transfers.endpoint_lost(known)
            self.journal.began(
                SimpleNamespace(
                    key=known.key, token=known.token, role=known.role, former=line.token, holder="", only=None
                )
            )
        known.line, known.alone_since = line, None
        line.up.clear()
        line.down.clear()
        return known, known.connection.received, resumed

    def _welcomed(self, peer: Peer, line: Line) -> None:
        assert line.welcome is not None
        known, received, resumed = line.welcome
        line.welcome, line.state, line.far = None, "up", known
        if resumed:
            line.near.resume(received)
            return
        line.near = Checked(RECEIVES[line.role])
        had, line.token = line.token, known.token
        peer.key = known.key
        if isinstance(peer, CommandedSet):
            peer.welcomed(bool(had))
        elif isinstance(peer, CommandClient) and had:
            peer.goes_on()
        elif isinstance(peer, SimulatedClient) and had:
            peer.submitter.go_on()

    def _end_orphans(self) -> None:
        """End sessions of sets whose Welcome was lost: nobody comes back for them."""
        for known in list(self.sessions.values()):
            line = known.line
            if known.role != "engine" or line is None or line.token == known.token or line.state == "welcome":
                continue
            if known.alone_since is None:
                known.alone_since = self.now
            elif self.now > known.alone_since + limits.LEASE_AFTER_CLOSE:
                del self.sessions[known.token], self.by_key[known.key]
                self.farm.set_lost(known.key, "it did not come back")
                self.router.set_lost(known.key, "it did not come back")
                self.journal.set_lost(known.key)
                self.comeback.ended(known)
                self._transfers.endpoint_lost(known)
                self._is_due = True

    def _heard(self, known: Known, event: Event) -> None:
        known.restored = False
        self._is_due = True
        if not isinstance(event, MessageReceived):
            self._transfers.handle(known, event)
        elif not self.comeback.takes(known, event):
            self._take(known, event)

    def _late(self, known: Any, event: MessageReceived) -> None:
        """Something that was held back."""
        if known.key in self.by_key:
            self._take(known, event)

    def _take(self, known: Known, event: MessageReceived) -> None:
        """Handle a message, as ``ipmpi.controller.service`` does."""
        message, peer = event.message, SimpleNamespace(key=known.key)
        if isinstance(message, m.Result):
            self.router.result(known.key, message, event.body, event.stream)
        elif isinstance(message, m.Output):
            self.router.output(known.key, message)
        elif known.role == "engine":
            self._from_set(peer, message, event.body)  # type: ignore[arg-type]
        elif known.role == "tc":
            self._from_client(peer, message, event.body)  # type: ignore[arg-type]
        elif isinstance(message, m.BodyAgain):
            self.router.body_again(known.key, message, event.stream)
        elif not isinstance(message, m.CommandOrigin):  # who it is, for the history
            assert isinstance(message, m.Command), message
            try:
                self.router.command(known.key, message, event.body, event.stream)
            except KernelError as error:
                if event.stream:
                    known.connection.refuse(event.stream)
                self._send(known.key, refusal(message.id, error))

    def _refuse(self, client: SimulatedClient, number: int, error: KernelError) -> None:
        self._send(client.key, refusal(number, error))

    def _send(self, key: int, message: m.AnyMessage, body: Sequence[Any] = ()) -> None:
        if key in self.by_key:
            send_whole(self.by_key[key].connection, message, [bytes(part) for part in body])

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._send(effect.to, effect.message, effect.body)
        elif isinstance(effect, Forward):
            self._forwarding.forward(effect)
        elif isinstance(effect, Decline) and effect.source in self.by_key:
            self.by_key[effect.source].connection.refuse(effect.stream)

    def flush(self) -> None:
        self._is_due = False
        self.comeback.due(self.now)
        for effect in [*self.journal.flush(self.now), *self.router.flush(self.now)]:
            self._perform(effect)

    # --- the network -----------------------------------------------------------------------------------------

    def _step(self, peer: Peer, line: Line) -> None:
        """Something happens between a peer and the controller, or in the peer."""
        chance = self.random.random
        if line.state == "down":
            if self.now >= line.away_until and chance() < 0.3:
                line.hello = line.near.received
                line.state = "hello"
        elif line.state == "hello":
            if line.up and chance() < 0.3:
                self._to_controller(line)  # what the old link had under way
            elif chance() < 0.6:
                line.welcome, line.state = self._admit(line), "welcome"
                self._is_due = True
        elif line.state == "welcome":
            if chance() < 0.6:
                self._welcomed(peer, line)
        elif line.state == "void":
            if chance() < 0.1:
                line.cut()
        elif line.down and chance() < 0.5:
            assert line.far is not None
            data = self._some(line.down)
            for event in line.near.hear(data, line.far.connection):
                if isinstance(peer, SimulatedClient):
                    assert isinstance(event, MessageReceived)
                    peer.hear(event.message, event.body)
                else:
                    peer.event(event)
        elif line.up and chance() < 0.7:
            self._to_controller(line)
        self._write(line)
        if isinstance(peer, CommandedSet):
            if chance() < 0.5:
                peer.step()
        else:
            peer.turn()

    def _to_controller(self, line: Line) -> None:
        known = line.far
        if known is None or known.line is not line:
            line.up.clear()
            return
        for event in known.connection.hear(self._some(line.up), line.near):
            self._heard(known, event)

    def _some(self, wire: bytearray) -> bytes:
        """Bytes that arrive now: mostly all, else any number of them."""
        size = len(wire) if self.random.random() < 0.8 else self.random.randint(1, len(wire))
        data = bytes(wire[:size])
        del wire[:size]
        return data

    def _write(self, line: Line) -> None:
        """Both ends write what they have to say."""
        ends = [(line.near, line.up)] if line.state in ("up", "void") else []
        known = line.far if line.welcome is None else line.welcome[0]
        if known is not None and line.state in ("up", "void", "welcome"):
            ends.append((known.connection, line.down))
        for end, wire in ends:
            if self.random.random() < 0.1:
                end.acknowledge()
            for buffer in end.data_to_send():
                if line.state != "void":
                    wire += buffer

    def _fail(self) -> None:
        """Perhaps something goes wrong."""
        draw = self.random.random() / self._rate
        if draw < 0.05:
            peer = self.random.choice(self.peers)
            line = self.lines[peer]
            if draw < 0.02:
                self._count("links cut", line.state != "down")
                if line.state == "up" and line.up and self.random.random() < 0.5:
                    self._to_controller(line)  # a part still arrives
                line.cut()
            elif draw < 0.03:
                if self._count("dialled beside a link", line.state == "up"):
                    line.hello, line.state = line.near.received, "hello"
                    line.down.clear()
            elif draw < 0.04:
                if self._count("half-open", line.state == "up"):
                    line.state = "void"
                    line.up.clear()
                    line.down.clear()
            elif draw < 0.043 and id(peer) not in self._partitioned and line.state == "up":
                self._count("partitions", True)
                self._partitioned.add(id(peer))
                line.cut()
                line.away_until = self.now + self.random.uniform(1.0, LONGEST_PARTITION)
        elif draw < 0.053:
            self._count("kills", True)
            self.kill()
        elif draw < 0.06:
            self._count("disk full or not", True)
            self.store.is_full = not self.store.is_full
        elif draw < 0.07:
            self.now += self.random.random()  # time passes

    def _count(self, what: str, happens: bool) -> bool:
        self.faults[what] += happens
        return happens

    # --- the clock -------------------------------------------------------------------------------------------

    def turn(self) -> None:
        chance = self.random.random
        self.steps += 1
        self.now += 0.01 * chance()
        if not self.is_calm:
            self._fail()
        elif chance() < 0.02:
            self.now += chance()
        peer = self.random.choice(self.peers)
        self._step(peer, self.lines[peer])
        if self.steps % 16 == 0:
            self._end_orphans()
        deadlines = self.journal.next_deadline(self.now), self.comeback.next_deadline()
        if any(each is not None and self.now >= each for each in deadlines) or (
            self._is_due and chance() < self._eager
        ):
            self.flush()

    def settle(self, limit: int = 20_000) -> None:
        self.store.is_full = False
        self.is_calm = True
        for number in range(limit):
            self.turn()
            busy = [client.submitter.is_busy for client in self.clients] if number % 50 == 0 else [True]
            if not any(busy) and not any(client.is_busy for client in self.commanding):
                return
        raise Violation("tasks or commands do not end")
