"""A program in memory: real tickers and real agreements, with every interleaving that a processor allows.

Each rank is a thread of which one runs at a time; it hands over before each access to shared memory. What a side
writes is seen by the other one at some later time, at a fence at the latest, as on processors with store buffers.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from ipmpi.engine.agent.agreement import Agreement, Stage
from ipmpi.engine.rank.controlblock import RECEIVED, SENT, STEP
from ipmpi.protocol import messages as m, rankmessages as rm
from ipmpi.steering.ticking import Ticker

MOST = 30_000
"""Turns after which a simulation is stuck."""


class Words:
    """One side's view of the shared words."""

    def __init__(self, memory: dict[int, int], pause: Callable[[], None]) -> None:
        self._memory = memory
        self._pause = pause
        self._unseen: dict[int, int] = {}

    def __getitem__(self, word: int) -> int:
        self._pause()
        return self._unseen.get(word, self._memory.get(word, 0))

    def __setitem__(self, word: int, value: int) -> None:
        self._pause()
        self._unseen[word] = value

    def flush(self) -> None:
        """Let the other side see all that was written."""
        self._memory.update(self._unseen)
        self._unseen.clear()


class Ended(Exception):
    """The simulation is over."""


class SimulatedRank:
    """A rank in a thread of its own."""

    def __init__(self, program: SimulatedProgram, number: int, steps: int, node: SimulatedNode) -> None:
        self.program, self.number, self.steps, self.node = program, number, steps, node
        self.memory: dict[int, int] = {}
        self.words = Words(self.memory, self.hand_over)
        self.packets: deque[Any] = deque()
        self.commands: deque[Any] = deque()
        self.entered = -1
        """The last step that it has begun."""
        self.performed: list[tuple[int, int]] = []
        self.stopped: rm.Stop | None = None
        self.is_over = False
        self._turn = threading.Semaphore(0)
        self._ticker: Ticker | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def turn(self) -> None:
        """Let it run up to its next access."""
        if not self.is_over:
            if self.program.random.random() < 0.3:
                self.words.flush()
            self._turn.release()
            self.program.baton.acquire()

    def hand_over(self) -> None:
        self.program.baton.release()
        self._turn.acquire()
        if self.program.is_over:
            raise Ended

    @contextmanager
    def _fence(self) -> Iterator[None]:
        if self.program.has_fences:
            self.words.flush()
        yield

    def __enter__(self) -> None:
        if self.program.has_fences:
            self.words.flush()

    def __exit__(self, *_error: object) -> None:
        """A lock of the ticker."""

    # --- as its ticker sees the agent ---

    def hear(self) -> bool:
        while not self.packets:
            self.hand_over()
        message = self.packets.popleft()
        assert self._ticker is not None
        self.words[RECEIVED] = self.words[RECEIVED] + 1
        if isinstance(message, rm.RunCommand):
            self.commands.append(message)
        else:
            self._ticker.handlers[type(message)](message)
        return True

    def say(self, message: rm.ToAgent) -> bool:
        self.node.heard.append((self, message))
        return True

    def perform(self) -> bool:
        if not self.commands:
            return False
        command = self.commands.popleft()
        assert self._ticker is not None
        self.performed.append((command.number, self._ticker.count))
        kind, _, count = command.method.partition(" ")
        if kind == "pause":
            self._ticker.is_paused, self._ticker.hold_at = True, -1
        elif kind == "resume":
            self._ticker.is_paused, self._ticker.hold_at = False, -1
        elif kind == "step":
            self._ticker.is_paused, self._ticker.hold_at = False, self._ticker.count + int(count)
        self.say(rm.CommandDone(command.number, True, b"", 0))
        return True

    def wait(self) -> None:
        while not self.packets:
            self.hand_over()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            ticker = self._ticker = Ticker(self.words, self, self.wait, lambda stop: None)  # type: ignore[arg-type]
            ticker.agent = self
            for step in range(self.steps):
                ticker.tick(step)
                self.entered = step
                # A step needs of its neighbours what they send at its beginning.
                while any(other.entered < step and not other.is_over for other in self.program.near(self)):
                    self.hand_over()
            ticker.last_tick()
            self.entered = self.steps
            self.node.heard.append((self, rm.Leaving("")))
        except Ended:
            pass
        self.is_over = True
        self.program.baton.release()


class SimulatedNode:
    """An agent with some ranks, and agents below."""

    def __init__(self, program: SimulatedProgram, above: SimulatedNode | None) -> None:
        self.program, self.above = program, above
        self.children: list[SimulatedNode] = []
        if above is not None:
            above.children.append(self)
        self.local: dict[int, SimulatedRank] = {}
        self.heard: deque[tuple[SimulatedRank, Any]] = deque()
        self.inbox: deque[tuple[SimulatedNode, Any]] = deque()
        self.agreement = Agreement(self, above is None)
        self._views: dict[SimulatedRank, Words] = {}

    def handle(self) -> None:
        """Handle one message."""
        sources = [queue for queue in (self.heard, self.inbox) if queue]
        if not sources:
            return
        source, message = self.program.random.choice(sources).popleft()
        if isinstance(message, rm.Holds):
            self.agreement.rank_holds(source.number, message.round)
        elif isinstance(message, rm.Leaving):
            del self.local[source.number]
            self.agreement.gone(source.number)
            self.program.lost(source.number)
        elif isinstance(message, rm.CommandDone):
            self.program.answered(source.number, message.number)
        elif source is self.above:
            self.agreement.from_above(message)
        else:
            self.agreement.from_below(source, message)

    def send(self, rank: SimulatedRank, message: Any) -> Words:
        """Give a rank a packet; return the agent's view of its memory."""
        words = self._views.setdefault(rank, Words(rank.memory, self.program.others_run))
        rank.packets.append(message)
        words[SENT] = words[SENT] + 1
        self.program.others_run()
        words.flush()
        return words

    def below(self) -> list[Hashable]:
        return list(self.children)

    def ranks(self) -> list[int]:
        return list(self.local)

    def tell(self, peer: Hashable, message: m.AnyMessage) -> None:
        assert isinstance(peer, SimulatedNode)
        peer.inbox.append((self, message))

    def tell_above(self, message: m.AnyMessage) -> None:
        assert self.above is not None
        self.above.inbox.append((self, message))

    def hold_ranks(self, round_: int) -> int | None:
        found = []
        for rank in self.local.values():
            at = self.send(rank, rm.HoldHere(round_))[STEP]
            found.append((at >> 1) + (not at & 1))
        return max(found, default=None)

    def stop_ranks_at(self, round_: int, step: int) -> None:
        for rank in self.local.values():
            self.send(rank, rm.StopAtStep(round_, step))

    def let_go(self, message: m.GoOn) -> None:
        for rank in self.local.values():
            self.send(rank, rm.LetGo(message.round, message.resume))

    def all_hold(self) -> None:
        self.program.all_hold()


class SimulatedProgram:
    """A program of several nodes."""

    def __init__(self, seed: int, ranks: int = 5, steps: int = 12, has_fences: bool = True) -> None:
        self.random = random.Random(seed)
        self.has_fences = has_fences
        self.baton = threading.Semaphore(0)
        self.is_over = False
        self._is_inside = False
        self.nodes = [SimulatedNode(self, None)]
        for _ in range(self.random.randrange(4)):
            self.nodes.append(SimulatedNode(self, self.random.choice(self.nodes)))
        self.ranks: list[SimulatedRank] = []
        for number in range(ranks):
            node = self.random.choice(self.nodes)
            rank = SimulatedRank(self, number, steps, node)
            node.local[number] = rank
            self.ranks.append(rank)
        self.numbers = 0
        self.methods: dict[int, str] = {}
        self.waiting: list[tuple[int, list[int]]] = []
        self.outstanding: dict[int, set[int]] = {}
        self.given: dict[int, list[int]] = {}
        self.agreed: dict[int, int] = {}

    def near(self, rank: SimulatedRank) -> list[SimulatedRank]:
        """The ranks that exchange data with this one."""
        count = len(self.ranks)
        return [self.ranks[(rank.number + by) % count] for by in (-1, 1)] if count > 1 else []

    def others_run(self) -> None:
        """Some ranks get on, while an agent is in the middle of something."""
        if not self._is_inside:
            self._is_inside = True
            for _ in range(self.random.choice((0, 0, 1, 3, 9))):
                self.random.choice(self.ranks).turn()
            self._is_inside = False

    def command(self, method: str, ranks: list[int] | None = None) -> int:
        """A client asks for something."""
        self.numbers += 1
        self.methods[self.numbers] = method
        wanted = ranks if ranks is not None else [rank.number for rank in self.ranks]
        self.waiting.append((self.numbers, wanted))
        root = self.nodes[0].agreement
        if root.stage is Stage.FREE:
            root.begin()
        elif root.stage is Stage.HOLDING:
            self.all_hold()
        return self.numbers

    def all_hold(self) -> None:
        waiting, self.waiting = self.waiting, []
        for number, wanted in waiting:
            there = [rank for rank in self.ranks if rank.number in wanted and rank.number in rank.node.local]
            self.given[number] = [rank.number for rank in there]
            self.agreed[number] = self.nodes[0].agreement.step
            if there:
                self.outstanding[number] = {rank.number for rank in there}
            for rank in there:
                rank.node.send(rank, rm.RunCommand(number, self.methods[number], b""))
        self._look()

    def answered(self, rank: int, number: int) -> None:
        self.outstanding.get(number, set()).discard(rank)
        if not self.outstanding.get(number):
            self.outstanding.pop(number, None)
        self._look()

    def lost(self, rank: int) -> None:
        for number in list(self.outstanding):
            self.answered(rank, number)

    def _look(self) -> None:
        if self.nodes[0].agreement.stage is Stage.HOLDING and not self.outstanding and not self.waiting:
            self.nodes[0].agreement.go_on()

    def run(self, chance: float, choose: Callable[[], str | None]) -> None:
        """Run until all ranks have ended; now and then, do what ``choose`` says."""
        try:
            for _ in range(MOST):
                if all(rank.is_over for rank in self.ranks) and not any(n.heard or n.inbox for n in self.nodes):
                    return
                if self.random.random() < chance and (method := choose()):
                    some = [rank.number for rank in self.ranks if self.random.random() < 0.5]
                    everybody = method != "look" or self.random.random() < 0.5
                    self.command(method, None if everybody else some)
                if self.random.random() < 0.4:
                    self.random.choice(self.nodes).handle()
                else:
                    self.random.choice(self.ranks).turn()
            raise AssertionError(f"stuck: {[(r.number, r.entered, r.is_over) for r in self.ranks]}")
        finally:
            self.is_over = True
            for rank in self.ranks:
                rank.turn()
