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
from ipmpi.controller.effects import Send, refusal
from ipmpi.controller.farm.recovery import ends_in
from ipmpi.errors import KernelError
from ipmpi.journal.rows import Change, DropGroup, EndRow
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection
from ipmpi.protocol.events import MessageReceived
from ipmpi.protocol.permissions import CONTROLLER_RECEIVES, RECEIVES
from tests.controller.journal_stage import JournalStage, SimulatedClient, SimulatedSet
from tests.journal.memory_store import MemoryStore

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
        self._ended: dict[int, set[int]] = {}

    def commit(self, changes: Sequence[Change]) -> None:
        super().commit(changes)
        for change in changes:
            if isinstance(change, DropGroup):
                self._ended.pop(change.serial, None)
            elif isinstance(change, EndRow):
                known = self._ended.setdefault(change.serial, set())
                message: Any = m.decode(change.message)
                for index in ends_in(message):
                    if index in known:
                        raise Violation(f"task {index} of group {change.serial} was recorded twice")
                    known.add(index)


class End:
    """One end of a session: a real connection, and what was said on it and has not been heard."""

    def __init__(self, table: frozenset[type[m.Message]]) -> None:
        self.connection = Connection(table, unacknowledged=UNACKNOWLEDGED)
        self.said: deque[m.AnyMessage] = deque()

    def say(self, message: m.AnyMessage, body: Sequence[Any]) -> None:
        self.said.append(message)
        self.connection.send(message, body)

    def hear(self, data: bytes, other: End) -> list[MessageReceived]:
        """The messages in these bytes: those that the other end has said, in that order, each once."""
        found = []
        for event in self.connection.receive_data(data):
            assert isinstance(event, MessageReceived)
            if not other.said or other.said.popleft() != event.message:
                raise Violation(f"{event.message} was heard out of order, or twice, or was never said")
            found.append(MessageReceived(event.message, [bytes(part) for part in event.body], 0))  # type: ignore[list-item]
        return found


class Known:
    """A session, as the controller knows it."""

    def __init__(self, key: int, token: bytes, role: str, restored: bool = False) -> None:
        self.key, self.token, self.role, self.restored = key, token, role, restored
        self.end = End(CONTROLLER_RECEIVES[role])
        self.line: Line | None = None
        self.alone_since: float | None = None


class Line:
    """The network between a peer and the controller: its state, and the bytes under way in both directions.

    ``state``: 'down', 'hello' and 'welcome' (which are under way), 'up', 'void' (open, and nothing arrives).
    """

    def __init__(self, role: str, token: bytes) -> None:
        self.role = role
        self.token = token
        self.state = "down"
        self.near = End(RECEIVES[role])
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
        self._line.near.say(*packet)


class NetworkStage(JournalStage):
    """Everything of :class:`JournalStage` over lines that fail."""

    def __init__(self, seed: int, clients: int = 2, sets: int = 2) -> None:
        self.lines: dict[SimulatedClient | SimulatedSet, Line] = {}
        self.sessions: dict[bytes, Known] = {}
        self.faults: Counter[str] = Counter()
        self.steps = 0
        self.is_calm = False
        self._is_due = False
        self._partitioned: set[int] = set()
        super().__init__(seed, 0, 0)
        # Worlds differ: in some, links last; in some, the controller hears much before it does anything.
        self._rate = self.random.choice([0.1, 0.5, 1.0, 1.0])
        self._eager = self.random.choice([0.1, 0.5, 0.9])
        self.clients = [self._join(SimulatedClient(0, self)) for _ in range(clients)]
        self.sets = [self._join(SimulatedSet(self, self.random.randint(1, 3))) for _ in range(sets)]

    def _join(self, peer: Any) -> Any:
        role = "engine" if isinstance(peer, SimulatedSet) else "tc"
        line = self.lines[peer] = Line(role, b"")
        peer.out = _Out(line)
        peer.is_connected = True
        if role == "tc":  # its session has begun before it submits anything
            line.welcome = self._admit(line)
            self._welcomed(peer, line)
        return peer

    # --- the controller --------------------------------------------------------------------------------------

    def _start(self) -> None:
        if not isinstance(self.store, CheckedStore):
            self.store = CheckedStore()
        self.sessions = {}
        self._partitioned.clear()
        super()._start()
        self._is_due = True

    def _restore_session(self, key: int, token: bytes, role: str) -> None:
        self.sessions[token] = Known(key, token, role, restored=True)

    def kill(self) -> None:
        self.kills += 1
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
            known = Known(next(self._keys), self.random.randbytes(16), line.role)
            self.sessions[known.token] = known
        elif resumed:
            known.end.connection.resume(line.hello)
        else:
            known.end = End(CONTROLLER_RECEIVES[known.role])
        if not resumed:
            self.journal.began(
                SimpleNamespace(
                    key=known.key, token=known.token, role=known.role, former=line.token, holder="", only=None
                )
            )
        known.line, known.alone_since = line, None
        line.up.clear()
        line.down.clear()
        return known, known.end.connection.received, resumed

    def _welcomed(self, peer: SimulatedClient | SimulatedSet, line: Line) -> None:
        assert line.welcome is not None
        known, received, resumed = line.welcome
        line.welcome, line.state, line.far = None, "up", known
        if resumed:
            line.near.connection.resume(received)
            return
        line.near = End(RECEIVES[line.role])
        had, line.token = line.token, known.token
        peer.key = known.key
        if isinstance(peer, SimulatedSet):
            peer.welcomed(bool(had))
        elif had:
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
                del self.sessions[known.token]
                self.farm.set_lost(known.key, "it did not come back")
                self.journal.set_lost(known.key)
                self._is_due = True

    def _heard(self, known: Known, peer: SimulatedClient | SimulatedSet, event: MessageReceived) -> None:
        known.restored = False
        self._is_due = True
        real, peer.key = peer.key, known.key
        try:
            if isinstance(peer, SimulatedSet):
                self._from_set(peer, event.message, event.body)
            else:
                self._from_client(peer, event.message, event.body)
        finally:
            peer.key = real

    def _refuse(self, client: SimulatedClient, number: int, error: KernelError) -> None:
        known = self.lines[client].far
        assert known is not None
        known.end.say(refusal(number, error), ())

    def flush(self) -> None:
        by_key = {known.key: known for known in self.sessions.values()}
        self._is_due = False
        for effect in self.journal.flush(self.now):
            if isinstance(effect, Send) and effect.to in by_key:
                by_key[effect.to].end.say(effect.message, [bytes(part) for part in effect.body])

    # --- the network -----------------------------------------------------------------------------------------

    def _step(self, peer: SimulatedClient | SimulatedSet, line: Line) -> None:
        """Something happens between a peer and the controller, or in the peer."""
        chance = self.random.random
        if line.state == "down":
            if self.now >= line.away_until and chance() < 0.3:
                line.hello = line.near.connection.received
                line.state = "hello"
        elif line.state == "hello":
            if line.up and chance() < 0.3:
                self._to_controller(peer, line)  # what the old link had under way
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
            for event in line.near.hear(data, line.far.end):
                peer.hear(event.message, event.body)
        elif line.up and chance() < 0.7:
            self._to_controller(peer, line)
        self._write(line)
        if isinstance(peer, SimulatedSet):
            if chance() < 0.5:
                peer.step()
        else:
            peer.turn()

    def _to_controller(self, peer: SimulatedClient | SimulatedSet, line: Line) -> None:
        known = line.far
        if known is None or known.line is not line:
            line.up.clear()
            return
        for event in known.end.hear(self._some(line.up), line.near):
            self._heard(known, peer, event)

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
            ends.append((known.end, line.down))
        for end, wire in ends:
            if self.random.random() < 0.1:
                end.connection.acknowledge()
            for buffer in end.connection.data_to_send():
                if line.state != "void":
                    wire += buffer

    def _fail(self) -> None:
        """Perhaps something goes wrong."""
        draw = self.random.random() / self._rate
        if draw < 0.05:
            peer = self.random.choice([*self.clients, *self.sets])
            line = self.lines[peer]
            if draw < 0.02:
                self._count("links cut", line.state != "down")
                if line.state == "up" and line.up and self.random.random() < 0.5:
                    self._to_controller(peer, line)  # a part still arrives
                line.cut()
            elif draw < 0.03:
                if self._count("dialled beside a link", line.state == "up"):
                    line.hello, line.state = line.near.connection.received, "hello"
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
        peer = self.random.choice([*self.clients, *self.sets])
        self._step(peer, self.lines[peer])
        if self.steps % 16 == 0:
            self._end_orphans()
        deadline = self.journal.next_deadline(self.now)
        if (deadline is not None and self.now >= deadline) or (self._is_due and chance() < self._eager):
            self.flush()

    def settle(self, limit: int = 20_000) -> None:
        self.store.is_full = False
        self.is_calm = True
        for number in range(limit):
            self.turn()
            if number % 50 == 0 and not any(client.submitter.is_busy for client in self.clients):
                return
        raise Violation("tasks do not end")
