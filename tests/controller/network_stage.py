"""Controller, journal, clients and engine sets over a network that fails, on one clock; a seed says all.

Links are cut at any byte, in a handshake as well; one end may not notice; a peer may dial while its link is there;
the network is away for some seconds; the controller is killed and its disk is full; ranks, engine sets and clients
are killed. Who comes back does so as in ``ipmpi.transport.dial.dialled``, which does I/O.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

from ipmpi.journal.rows import ReservedRow, UsedRow
from ipmpi.protocol import messages as m
from ipmpi.protocol.permissions import RECEIVES
from tests.controller.agent_stage import StageSet
from tests.controller.command_stage import CommandClient
from tests.controller.controller_stage import ControllerStage
from tests.controller.network_lines import Checked, Known, Line, Violation
from tests.controller.rank_stage import Run, StageRank
from tests.controller.task_stage import StageTask, TaskClient

LONGEST_PARTITION = 15.0
"""Seconds; sets that stay away for longer than RECOVERY lose their tasks, as is documented."""
LONGEST_STANDSTILL = 10_000
"""Turns without faults in which no command, task or request ends, and after which none will: some 150 seconds."""
LOSSES = 8
"""How many ranks, sets, and clients are killed at most, each."""

Peer = TaskClient | CommandClient | StageSet


class NetworkStage(ControllerStage):
    """Everything there is.

    ``commands`` and ``failures``: how likely it is that a command is sent in a step, and that it fails.
    ``deaths``: how likely it is that somebody is killed. ``struck``: how often an engine was lost that had a task.
    ``has_forgotten``: whether a controller was killed that could not write what it had done.
    """

    def __init__(self, seed: int, clients: int = 2, sets: int = 2, commanding: int = 2) -> None:
        self.lines: dict[Peer, Line] = {}
        self.peers: list[Peer] = []
        self.sets: list[StageSet] = []
        self.all_sets: list[StageSet] = []
        self.faults: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.by_name: dict[str, StageTask] = {}
        self.is_calm = self.has_forgotten = False
        self._partitioned: set[int] = set()
        super().__init__(seed)
        # Worlds differ: in some, links last; in some, the controller hears much before it does anything.
        choice = self.random.choice
        self._rate = choice([0.1, 0.5, 1.0, 1.0])
        self._eager = choice([0.1, 0.5, 0.9])
        self._dying = choice([0.0, 0.2])
        self.commands = choice([0.0, 0.02, 0.05, 0.1])
        self.failures = choice([0.0, 0.1])
        self.requests = choice([0.0, 0.01, 0.03])
        self.large = choice([0.0, 0.1, 0.4])
        self.deaths = choice([0.0, 0.0, 0.002, 0.005])
        self._on_loss = choice(["shrink", "shrink", "restart", "abort"])
        self.clients: list[TaskClient] = []  # type: ignore[assignment]
        self.vanished: list[TaskClient] = []  # type: ignore[assignment]
        self.commanding: list[CommandClient] = []
        self.all_commanding: list[CommandClient] = []
        for _ in range(clients):
            self.add_task_client()
        for _ in range(commanding):
            self.add_command_client()
        for _ in range(sets):
            self.add_set()

    # --- who there is ----------------------------------------------------------------------------------------

    def add_task_client(self, *, detach: bool = True) -> TaskClient:
        line = Line("tc", b"")
        client = TaskClient(self, line, detach=detach)
        self.clients.append(client)
        self._begins(client, line)
        return client

    def add_command_client(self) -> CommandClient:
        line = Line("mec", b"")
        client = CommandClient(self, line)
        self.commanding.append(client)
        self.all_commanding.append(client)
        self._begins(client, line)
        return client

    def _begins(self, client: TaskClient | CommandClient, line: Line) -> None:
        """The session of a client has begun, and was written, before it submits anything."""
        self.store.is_full = False
        self._joins(client, line)
        line.welcome = self.admit(line)
        self._welcomed(client, line)

    def add_set(self) -> StageSet:
        line = Line("engine", b"")
        each = StageSet(self, line, len(self.all_sets), self.random.randint(1, 3), self._on_loss)
        self.sets.append(each)
        self.all_sets.append(each)
        self._joins(each, line)
        return each

    def _joins(self, peer: Peer, line: Line) -> None:
        self.lines[peer] = line
        self.peers.append(peer)

    def _leaves(self, peer: Peer) -> None:
        """The processes of a peer have ended: its link breaks, and nobody comes back."""
        line = self.lines.pop(peer)
        self.peers.remove(peer)
        if line.state == "up" and line.up and self.random.random() < 0.5:
            self._to_controller(line)  # what it had sent may still arrive
        line.cut()

    def task_begins(self, name: str, rank: StageRank) -> Run:
        run = Run(name, rank, self.steps)
        self.by_name[name].runs.append(run)
        self.runs[name.encode()] += 1
        return run

    def has_killed(self, since: int, until: int) -> bool:
        """Return whether the controller was killed between these steps."""
        return any(since <= step <= until for step in self.killed)

    @property
    def engines(self) -> list[int]:
        """The engines that clients know: those that have got their ids, also if they were lost just now."""
        return [rank.engine for each in self.sets if self._is_known(each) for rank in each.ranks]

    def _is_known(self, each: StageSet) -> bool:
        """Whether clients know its engines, and the journal has it; else it would be a stranger."""
        token = self.lines[each].token
        each.is_written = each.is_written or any(row.token == token for row in self.store.contents.sets)
        return each.is_written and bool(each.ids) and not each.is_gone

    # --- the controller --------------------------------------------------------------------------------------

    def kill(self) -> None:
        for line in self.lines.values():
            line.cut()
            line.far = None
        self._partitioned.clear()
        lost = any(isinstance(change, ReservedRow) for change in self.journal._changes.all())
        strangers = self._note_what_is_forgotten()
        self.has_forgotten = self.has_forgotten or strangers or lost
        self.restart(with_a_stranger=self.random.random() < self._dying)

    def _note_what_is_forgotten(self) -> bool:
        """Neither retries nor sets that join are written while the disk is full; sets not in their first 20 ms.

        Returns whether there are such sets.
        """
        used = {change.serial for change in self.journal._changes.all() if isinstance(change, UsedRow)}
        known = {row.token for row in self.store.contents.sets}
        strangers = [each for each in self.sets if self.lines[each].token not in known]
        for each in strangers:
            each.unknown_to.append(self.steps)
        for task in self.by_name.values() if used else ():
            state = self.journal._clients.get(task.client.key)
            kept = state.groups.get(task.ref.group) if state is not None else None
            if kept is not None and kept.serial in used:
                task.forgotten.append(self.steps)
        return bool(strangers)

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
        peer.welcomed(bool(had))

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
                line.welcome, line.state = self.admit(line), "welcome"
        elif line.state == "welcome":
            if chance() < 0.6:
                self._welcomed(peer, line)
        elif line.state == "void":
            if chance() < 0.1:
                line.cut()
        elif line.down and chance() < 0.5:
            if line.far is None:
                line.cut()
            else:
                for event in line.near.hear(self._some(line.down), line.far.connection):
                    peer.event(event)
        elif line.up and chance() < 0.7:
            self._to_controller(line)
        self._write(line)
        peer.turn()
        if isinstance(peer, StageSet) and peer.is_gone:
            self._lose(peer)

    def _to_controller(self, line: Line) -> None:
        known = line.far
        if known is None or known.line is not line:
            line.up.clear()
            return
        for event in known.connection.hear(self._some(line.up), line.near):
            self.heard(known, event)

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

    # --- faults ----------------------------------------------------------------------------------------------

    def _fail(self) -> None:
        """Perhaps something goes wrong."""
        if self.deaths and self.random.random() < self.deaths:
            self._somebody_dies()
        draw = self.random.random() / self._rate
        if draw < 0.05:
            self._link_fails(self.random.choice(self.peers), draw)
        elif draw < 0.053:
            self._count("kills", True)
            self.kill()
        elif draw < 0.06:
            self._count("disk full or not", True)
            self.store.is_full = not self.store.is_full
        elif draw < 0.07:
            self.now += self.random.random()  # time passes

    def _link_fails(self, peer: Peer, draw: float) -> None:
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

    def _somebody_dies(self) -> None:
        kind = self.random.choice(["ranks", "ranks", "sets", "clients"])
        if self.faults[f"{kind} killed"] >= LOSSES:
            return
        if kind == "clients":
            self.client_dies(self.random.choice([*self.clients, *self.commanding]))
            return
        each = self.random.choice(self.sets)
        if each.is_ending or not each.ids:
            return
        self._count(f"{kind} killed", True)
        if kind == "ranks":
            self.random.choice(each.living).dies(alone=True)
        else:
            each.is_killed()
            self._lose(each)

    def client_dies(self, client: TaskClient | CommandClient) -> None:
        """A client is killed, and another one comes."""
        self._count("clients killed", True)
        client.vanished = self.steps
        self._leaves(client)
        if isinstance(client, TaskClient):
            self.clients.remove(client)
            self.vanished.append(client)
            self.add_task_client(detach=self.random.random() < 0.5)
        else:
            self.commanding.remove(client)
            self.add_command_client()

    def _lose(self, each: StageSet) -> None:
        """The processes of a set have ended: others are started."""
        self._leaves(each)
        self.sets.remove(each)
        self.add_set()

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
            self.look_for_orphans(self._tokens())
        if self.time_passes() or (self._is_due and chance() < self._eager):
            self.flush()

    def _tokens(self) -> set[bytes]:
        """The sessions that peers have, or that are on their way to them."""
        coming = [line.welcome[0].token for line in self.lines.values() if line.welcome is not None]
        return {line.token for line in self.lines.values()} | set(coming)

    def calm(self) -> None:
        """Nothing fails any more."""
        self.store.is_full = False
        self.is_calm = True

    def calm_down(self) -> None:
        """Nothing fails any more; let commands end, requests be answered, and sets hear what is reserved."""
        self.calm()
        self._turn_until(lambda: not (self._is_due or self._have_requests), 20, "requests are not answered")

    def _turn_until(self, is_over: Callable[[], bool], every: int, violation: str) -> None:
        """Go on as long as something ends, and look in each ``every``-th turn whether it is over.

        Hundreds of commands may wait for one engine, which runs one after the other: the turns are counted since
        something has ended for the last time. There is less and less to end, so this comes to its end.
        """
        left, since = self._open_ends, 0
        for number in itertools.count():
            self.turn()
            if number % every == 0 and is_over():
                return
            if (now_left := self._open_ends) < left:
                left, since = now_left, number
            elif number - since >= LONGEST_STANDSTILL:
                raise Violation(violation)

    @property
    def _open_ends(self) -> int:
        """How many commands and requests clients have under way, and how many tasks have not ended."""
        clients = [*self.clients, *self.commanding]
        commands = sum(not sent.future.done() for client in self.commanding for sent in client.sent)
        tasks = sum(not task.ending.heard for client in self.clients for task in client.tasks.values())
        return commands + tasks + sum(not each.done() for client in clients for each in client.requests)

    @property
    def _have_requests(self) -> bool:
        if self.orphans or any(client.is_waiting for client in self.clients):
            return True
        if any(client.is_busy for client in self.commanding):
            return True
        for each in self.sets:
            far = self.lines[each].far
            if each.is_ending or not each.ids or far is None or self.comeback.next_deadline() is not None:
                return True
            if any(isinstance(said, m.ReserveRanks | m.EndSet) for said in far.connection.said):
                return True
            if any(isinstance(said, m.RanksLost) for said in self.lines[each].near.said):
                return True
        return False

    @property
    def orphans(self) -> list[Known]:
        """Sessions of peers that are gone, of which the controller does not know that."""
        tokens = self._tokens()
        return [known for known in self.sessions.values() if known.token not in tokens]

    def settle(self) -> None:
        """Let everything come to its end."""
        self.calm()
        self._turn_until(lambda: not self.is_busy, 50, "tasks, commands or requests do not end")

    @property
    def is_busy(self) -> bool:
        return bool(self.orphans) or any(client.is_busy for client in [*self.clients, *self.commanding])
