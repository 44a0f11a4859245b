"""One rank of a simulated set: it runs what it is given, and answers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ipmpi.protocol import messages as m, packed
from ipmpi.protocol.frames import Buffer
from ipmpi.protocol.operations import Failed

if TYPE_CHECKING:
    from simulated_set import SimulatedSet

LATENCY = 0.0003
FLUSH = 0.005
Task = tuple[int, int]


def payload_of(index: int) -> bytes:
    """Of any length, and telling."""
    return b"" if index % 5 == 0 else str(index).encode()


def failure(name: str, text: str = "on purpose") -> bytes:
    return packed.pack_failure(Failed(name, text, f"Traceback of {text}"), [])


class Part:
    """One rank's part of a task of several ranks."""

    def __init__(self, message: m.RunTogether) -> None:
        self.message = message
        self.task = (message.group, message.index)
        self.left = False


class SimulatedRank:
    """Does one thing after the other: what is in its inbox, then the tasks that it was given."""

    def __init__(self, owner: SimulatedSet, number: int) -> None:
        self.set = owner
        self.number = number
        self.alive = True
        self.items: deque[Task] = deque()
        self.inbox: deque[Part | str] = deque()
        self.running: Any = None
        self.holds: Task | None = None
        self.began = 0.0
        self.done: dict[int, list[tuple[int, bool]]] = {}
        self.busy: Counter[int] = Counter()

    def up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        self.set.later(LATENCY, lambda: self.set.from_rank(self.number, message, body))

    def receive(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        if not self.alive:
            return
        match message:
            case m.GiveTasks():
                indices = packed.unpack(message.indices)
                if message.lengths:
                    lengths = packed.unpack(message.lengths)
                    payloads = [bytes(piece) for piece in packed.slices(b"".join(body), lengths)]
                    assert payloads == [payload_of(index) for index in indices]
                    assert sum(message.sizes) == sum(lengths)
                self.items.extend((message.group, index) for index in indices)
            case m.TakeBackTasks():
                taken: dict[int, list[int]] = {}
                for _ in range(min(message.count, len(self.items))):
                    group, index = self.items.pop()
                    taken.setdefault(group, []).append(index)
                self._returned(taken, "taken")
            case m.CancelTasks():
                self._cancel(message)
            case m.RunTogether():
                self.inbox.append(Part(message))
            case m.LeaveTogether():
                self._leave((message.group, message.index), "PeerError")
            case m.DeliverTogether():
                assert self.holds == (message.group, message.index)
                self.holds = None
                self.up(self._results(message.group, [(message.index, True)], 0.0))
            case _:
                raise AssertionError(message)
        self.go_on()

    def _returned(self, tasks: dict[int, list[int]], why: str) -> None:
        for group, indices in tasks.items():
            self.up(m.TasksReturned(group, packed.pack(indices), self.number, why))

    def _cancel(self, message: m.CancelTasks) -> None:
        tasks = {(message.group, index) for index in packed.unpack(message.indices)}
        queued = [task for task in self.items if task in tasks]
        self.items = deque(task for task in self.items if task not in tasks)
        if queued:
            self._returned({message.group: [index for _, index in queued]}, "cancelled")
        if isinstance(self.running, tuple) and self.running in tasks:
            if message.interrupt:
                self._item_ended(self.running, ok=False)
            else:
                self._returned({message.group: [self.running[1]]}, "running")
        if message.interrupt:
            for task in tasks:
                self._leave(task, "KeyboardInterrupt")

    def _leave(self, task: Task, error: str) -> None:
        if self.holds == task:
            self.holds = None
        if isinstance(self.running, Part) and self.running.task == task:
            self.part_ended(self.running, error)
        for job in self.inbox:
            if isinstance(job, Part) and job.task == task:
                job.left = True

    def go_on(self) -> None:
        """Begin the next thing."""
        if self.running is not None or not self.alive:
            return
        self.began = self.set.now
        if self.inbox:
            job = self.running = self.inbox.popleft()
            if isinstance(job, Part):
                self.set.join(self, job)
            else:
                self.set.later(float(job), self._command_ended)
        elif self.items:
            task = self.running = self.items.popleft()
            began = self.began
            seconds = self.set.duration(*task)
            self.set.later(
                seconds, lambda: self.running is task and self.began == began and self._item_ended(task)
            )

    def _command_ended(self) -> None:
        if self.alive:
            self.running = None
            self.set.later(LATENCY, lambda: self.set.command_answered(self.number))
            self.go_on()

    def _item_ended(self, task: Task, ok: bool = True) -> None:
        if not self.alive:
            return
        seconds = self.set.now - self.began
        self.running = None
        self.set.busy += seconds
        self.set.ran[task] += 1
        group, index = task
        chance = self.set.chance.random()
        if chance < self.set.refusals:
            self._returned({group: [index]}, "refused")
        elif chance < 2 * self.set.refusals:
            self.up(m.LargeTaskResult(group, index, self.number, seconds, [200_000]))
        else:
            self.busy[group] += seconds
            self.done.setdefault(group, []).append((index, ok))
            if sum(map(len, self.done.values())) == 1:
                self.set.later(FLUSH, self.flush)
        if not self.items:
            self.flush()
        self.go_on()

    def flush(self) -> None:
        if self.alive:
            for group, done in self.done.items():
                self.up(self._results(group, done, self.busy[group]))
            self.done.clear()
            self.busy.clear()

    def _results(self, group: int, done: list[tuple[int, bool]], busy: float) -> m.TaskResults:
        failed = packed.pack(position for position, (_, ok) in enumerate(done) if not ok)
        indices = packed.pack(index for index, _ in done)
        return m.TaskResults(group, self.number, indices, failed, packed.pack([0] * len(done)), busy, [0])

    def part_ended(self, part: Part, error: str = "") -> None:
        if not self.alive or self.running is not part:
            return
        self.running = None
        body = [failure(error)] if error else []
        seconds = self.set.now - self.began
        sizes = [len(body[0])] if body else []
        if not error and part.message.ranks[0] == self.number:
            self.holds = part.task
        self.up(m.TogetherEnded(*part.task, self.number, not error, seconds, sizes), body)
        self.go_on()
