"""A set whose ranks, controller and clock are simulated, around the real Farm; it checks all that the Farm says.

Messages take ``LATENCY`` each way between rank 0 and any rank, and between rank 0 and the controller.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from simulated_rank import LATENCY, Part, SimulatedRank, Task, payload_of

from ipmpi import limits
from ipmpi.engine.farm.scheduler import Down, SetScheduler, Up
from ipmpi.protocol import messages as m, packed
from ipmpi.protocol.frames import Buffer


class SimulatedSet:
    """The whole of it.

    Args:
        nodes: rank -> leader of its node.
        duration: of a task, by group and index.
        seed: of all that is random.
        failures: how likely a rank fails in a task of several.
        refusals: how likely a task is refused, and how likely its result is large.
    """

    def __init__(
        self,
        nodes: dict[int, int],
        duration: Callable[[int, int], float],
        seed: int = 0,
        failures: float = 0.0,
        refusals: float = 0.0,
        joined: bool = True,
    ) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.duration, self.failures, self.refusals = duration, failures, refusals
        self.nodes = nodes
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self._wake = float("inf")
        self.ranks = {number: SimulatedRank(self, number) for number in nodes}
        self.busy = 0.0
        self.ran: Counter[Task] = Counter()
        self.messages: Counter[str] = Counter()
        # What the Farm knows.
        self.commands: Counter[int] = Counter()
        self.reserved: set[int] = set()
        self.has: dict[int, set[Task]] = {number: set() for number in nodes}
        self.alone: set[int] = set()
        self.teams: dict[Task, tuple[list[int], int]] = {}
        self.awaited: dict[Task, set[int]] = {}
        self.joined: dict[int, list[tuple[SimulatedRank, Part]]] = {}
        """By the number of their communicator."""
        self.serials: dict[int, list[int]] = {}
        self.spoilt: set[int] = set()
        self.began_at: dict[Task, float] = {}
        # The controller.
        self.window = 0
        self.options: dict[int, m.TaskOptions] = {}
        self.queue: deque[tuple[int, list[int], list[int], bool]] = deque()
        self.given: set[Task] = set()
        self.bound: dict[Task, list[int]] = {}
        self.ends: dict[Task, str] = {}
        self.cancelled: set[Task] = set()
        self.ended_at = 0.0
        self.farm = SetScheduler(joined)
        self.farm.add_ranks(nodes)
        self.pump()

    # --- time --------------------------------------------------------------------------------------------------

    def later(self, seconds: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def run(self, until: float = 1e9) -> None:
        """Let time pass until nothing happens any more, or the clock shows so much."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        if until < 1e9:
            self.now = until

    def pump(self) -> None:
        said: set[tuple[int, int]] = set()
        for effect in self.farm.decide(self.now):
            self.messages[type(effect.message).__name__] += 1
            if isinstance(effect.message, m.TasksStarted):
                said.update((effect.message.group, index) for index in packed.unpack(effect.message.indices))
            elif isinstance(effect.message, m.GiveTasks):
                group = effect.message.group
                assert said.issuperset((group, index) for index in packed.unpack(effect.message.indices))
            if isinstance(effect, Up):
                self.later(LATENCY, lambda effect=effect: self.to_controller(effect.message))
            else:
                self.check(effect)
                for number in effect.ranks:
                    rank = self.ranks[number]
                    self.later(LATENCY, lambda rank=rank, e=effect: rank.receive(e.message, e.body))
        deadline = self.farm.next_deadline()
        if deadline is not None and deadline < self._wake:
            assert deadline > self.now, "it would be woken again and again"
            self._wake = deadline
            self.later(max(0.0, deadline - self.now), lambda: self._woken(deadline))

    def _woken(self, deadline: float) -> None:
        if self._wake == deadline:
            self._wake = float("inf")
            self.pump()

    # --- what the farm says ------------------------------------------------------------------------------------

    def check(self, effect: Down) -> None:
        message = effect.message
        assert set(effect.ranks) <= self.has.keys(), "a message to a rank that is lost"
        if isinstance(message, m.GiveTasks):
            (number,) = effect.ranks
            assert message.ranks == [number]
            self._check_free(number)
            tasks = {(message.group, index) for index in packed.unpack(message.indices)}
            assert tasks
            assert tasks <= self.given
            for task in tasks:
                assert number in (self.bound.get(task) or self.nodes)
            assert number not in self.alone
            assert not message.alone or (len(tasks) == 1 and not self.has[number])
            assert not self.has[number] & tasks
            if message.alone:
                self.alone.add(number)
            self.has[number] |= tasks
        elif isinstance(message, m.RunTogether):
            self._check_together(message, effect)
        elif isinstance(message, m.LeaveTogether):
            team = self.teams.get((message.group, message.index))
            if team is not None:  # its last part may just have been lost
                self.spoilt.add(team[1])
        elif isinstance(message, m.DeliverTogether):
            task = (message.group, message.index)
            assert effect.ranks == message.ranks == [self.teams.pop(task)[0][0]]
            assert not self.awaited.pop(task)
            self.has[effect.ranks[0]].add(task)

    def _check_free(self, number: int) -> None:
        assert not self.commands[number], "tasks for a rank that has a command"
        assert number not in self.reserved, "tasks for a rank that is reserved"
        assert not any(number in awaited for awaited in self.awaited.values()), "it runs a task with others"

    def _check_together(self, message: m.RunTogether, effect: Down) -> None:
        task, options = (message.group, message.index), message.options
        assert task in self.given
        assert effect.ranks == message.ranks == message.for_ranks
        assert len(set(message.ranks)) == options.width
        for number in message.ranks:
            self._check_free(number)
            assert not self.has[number], "a rank that has other tasks"
        if options.same_node:
            assert len({self.nodes[number] for number in message.ranks}) == 1
        assert self.serials.setdefault(message.serial, message.ranks) == message.ranks
        assert message.serial not in self.spoilt, "a communicator that something may still be on its way in"
        assert message.large or bytes(effect.body[0]) == payload_of(message.index)
        self.teams[task] = (message.ranks, message.serial)
        self.awaited[task] = set(message.ranks)
        self.began_at[task] = self.now

    def from_rank(self, number: int, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """A message has arrived at rank 0."""
        if number not in self.has:
            return
        self.messages[type(message).__name__ + " from ranks"] += 1
        has = self.has[number]
        match message:
            case m.TaskResults():
                has -= {(message.group, index) for index in packed.unpack(message.indices)}
                self.farm.results(message, body, self.now)
            case m.LargeTaskResult():
                has.discard((message.group, message.index))
                self.farm.result(message, self.now)
                self.later(LATENCY, lambda: self.to_controller(message))
            case m.TasksReturned():
                if message.why != "running":
                    has -= {(message.group, index) for index in packed.unpack(message.indices)}
                self.farm.returned(message, self.now)
            case m.TogetherEnded():
                self._part_ended((message.group, message.index), number, message.ok)
                self.farm.together_ended(message, body, self.now)
        if not has:
            self.alone.discard(number)
        self.pump()

    def _part_ended(self, task: Task, number: int, ok: bool) -> None:
        self.awaited[task].discard(number)
        if not ok:
            self.spoilt.add(self.teams[task][1])
        if not self.awaited[task] and self.teams[task][1] in self.spoilt:
            del self.awaited[task], self.teams[task]

    # --- tasks on several ranks ----------------------------------------------------------------------------------

    def join(self, rank: SimulatedRank, part: Part) -> None:
        """A rank has begun its part; all go on when all are there."""
        if part.left:
            self.later(0.0, lambda: rank.part_ended(part, "PeerError"))
            return
        there = self.joined.setdefault(part.message.serial, [])
        there.append((rank, part))
        if len(there) < len(part.message.ranks):
            return
        del self.joined[part.message.serial]
        seconds = self.duration(*part.task)
        failing = [pair for pair in there if self.chance.random() < self.failures]
        for pair in there:
            member, its_part = pair
            if pair in failing:
                when = seconds * self.chance.random()
                self.later(when, lambda r=member, p=its_part: r.part_ended(p, "ValueError"))
            elif not failing or self.chance.random() < 0.3:  # the others wait, until they are told to leave
                self.later(seconds, lambda r=member, p=its_part: r.part_ended(p))

    # --- what happens to it ------------------------------------------------------------------------------------

    def command(self, numbers: Iterable[int], seconds: float) -> None:
        numbers = [number for number in numbers if number in self.has]
        self.commands.update(numbers)
        self.farm.command_given(numbers, self.now)
        for number in numbers:

            def arrive(rank: SimulatedRank = self.ranks[number]) -> None:
                rank.inbox.append(str(seconds))
                rank.go_on()

            self.later(LATENCY, arrive)
        self.pump()

    def command_answered(self, number: int) -> None:
        if number in self.has:
            self.commands[number] -= 1
            self.farm.command_answered([number], self.now)
            self.pump()

    def reserve(self, numbers: Iterable[int], on: bool) -> None:
        numbers = set(numbers)
        self.reserved = self.reserved | numbers if on else self.reserved - numbers
        self.farm.reserve(numbers, on, self.now)
        self.pump()

    def lose(self, number: int) -> None:
        """A rank dies; rank 0 hears of it after all that it had said."""
        rank = self.ranks[number]
        if rank.alive:
            rank.alive = False
            self.later(LATENCY, lambda: self._lost(number))

    def _lost(self, number: int) -> None:
        del self.has[number]
        for task, awaited in list(self.awaited.items()):
            if number in awaited or number == self.teams[task][0][0]:
                self._part_ended(task, number, ok=False)
        self.reserved.discard(number)
        self.farm.remove_ranks([number], self.now)
        self.pump()

    # --- the controller ----------------------------------------------------------------------------------------

    def submit(
        self, group: int, indices: Iterable[int], ranks: Sequence[int] = (), alone: bool = False, **options: Any
    ) -> None:
        if group not in self.options:
            self.options[group] = m.TaskOptions(options.pop("operation", b"%d" % group), "f", **options)
        self.queue.append((group, list(indices), list(ranks), alone))
        self.fill()

    def fill(self) -> None:
        while self.queue and len(self.given) < self.window:
            group, indices, ranks, alone = self.queue.popleft()
            most = min(self.window - len(self.given), limits.TASKS_PER_MESSAGE)
            now, rest = indices[:most], indices[most:]
            if rest:
                self.queue.appendleft((group, rest, ranks, alone))
            now = [index for index in now if (group, index) not in self.cancelled]
            if now:
                self._give(group, now, ranks, alone)

    def _give(self, group: int, indices: list[int], ranks: list[int], alone: bool) -> None:
        tasks = [(group, index) for index in indices]
        self.given.update(tasks)
        if ranks:
            self.bound.update(dict.fromkeys(tasks, ranks))
        payloads = [payload_of(index) for index in indices]
        message = m.GiveTasks(
            group,
            self.options[group],
            packed.pack(indices),
            packed.pack(map(len, payloads)),
            ranks,
            alone,
            [sum(map(len, payloads))],
        )
        self.to_farm(self.farm.give, message, [b"".join(payloads)])

    def to_farm(self, method: Callable[..., None], message: m.AnyMessage, *rest: Any) -> None:
        def arrive() -> None:
            self.messages[type(message).__name__ + " from above"] += 1
            method(message, *rest, self.now)
            self.pump()

        self.later(LATENCY, arrive)

    def cancel(self, tasks: Iterable[Task], interrupt: bool) -> None:
        by_group: dict[int, list[int]] = {}
        for group, index in tasks:
            self.cancelled.add((group, index))
            by_group.setdefault(group, []).append(index)
        for group, indices in by_group.items():
            self.to_farm(self.farm.cancel, m.CancelTasks(group, packed.pack(indices), interrupt))

    def take_back(self, count: int) -> None:
        self.to_farm(self.farm.take_back, m.TakeBackTasks(count))

    def to_controller(self, message: m.AnyMessage) -> None:
        match message:
            case m.WantTasks():
                self.window = message.window
            case m.TaskResults():
                failed = set(packed.unpack(message.failed))
                for position, index in enumerate(packed.unpack(message.indices)):
                    self.end((message.group, index), "failed" if position in failed else "done")
            case m.LargeTaskResult():
                self.end((message.group, message.index), "large")
            case m.TasksReturned():
                self._returned(message)
            case m.TasksStarted():
                return  # that it comes before the tasks is seen where they are sent
            case _:
                raise AssertionError(message)
        self.fill()

    def _returned(self, message: m.TasksReturned) -> None:
        if message.why == "running":
            return
        again: list[int] = []
        for index in packed.unpack(message.indices):
            task = (message.group, index)
            bound = self.bound.get(task, [])
            usable = not bound or any(self.ranks[number].alive for number in bound)
            if message.why in ("taken", "lost") and task not in self.cancelled and usable:
                self.given.remove(task)
                again.append(index)
                if bound:
                    self.queue.append((message.group, [again.pop()], bound, False))
            else:
                self.end(task, message.why)
        if again:
            self.queue.appendleft((message.group, again, [], message.why == "lost"))

    def end(self, task: Task, how: str) -> None:
        """A task has ended: it had been given, and had not ended before."""
        self.given.remove(task)
        assert task not in self.ends
        self.ends[task] = how
        self.ended_at = self.now
