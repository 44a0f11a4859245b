"""The ranks of a set and their tasks, in the scheduler of the root agent (no I/O)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from ...protocol import packed
from ...protocol.messages import GiveTasks, RunTogether, TasksStarted
from .chunks import GroupShare
from .effects import Down, Up
from .gangtask import GangTask

_NONE: Final[frozenset[int]] = frozenset()


class GivenTasks(NamedTuple):
    """Tasks that were sent together. A large one runs when its body has arrived, perhaps after later ones."""

    group: GroupShare
    indices: Collection[int]
    is_large: bool


class RankState:
    """One rank.

    Attributes:
        items: its tasks that have not ended; ``count`` of them in all.
        progress: when it last finished one, or began to work on them.
        asked: when it was last asked to return some.
        alone: its task may kill its process, so it gets no others.
        commands: number of commands without a reply; the first was sent at ``commanded``.
        busy_for_long: its command takes so long that the set is scheduled without it.
        task: its gang task.
        batches: the tasks in the order in which they were sent, as far as they are left.
        is_held: it does not return from a task that should have ended.
    """

    __slots__ = (
        "alone",
        "asked",
        "batches",
        "busy_for_long",
        "commanded",
        "commands",
        "count",
        "is_held",
        "items",
        "node",
        "number",
        "out",
        "progress",
        "reserved",
        "task",
    )

    def __init__(self, number: int, node: int) -> None:
        self.number = number
        self.node = node
        self.items: dict[GroupShare, set[int]] = {}
        self.count = 0
        self.progress = 0.0
        self.asked = -math.inf
        self.alone = False
        self.commands = 0
        self.commanded: float | None = None
        self.busy_for_long = False
        self.reserved = False
        self.is_held = False
        self.batches: deque[GivenTasks] = deque()
        self.task: GangTask | None = None
        self.out = False

    @property
    def is_free(self) -> bool:
        """Whether it accepts tasks."""
        return not (self.commands or self.reserved or self.alone or self.is_held or self.task is not None)

    def backlog(self) -> float:
        """Estimated seconds for its tasks; infinite if unknown."""
        total = 0.0
        for group, indices in self.items.items():
            seconds = group.runtime.seconds
            if seconds is None:
                return math.inf
            total += len(indices) * seconds
        return total

    def parted(self) -> list[tuple[GroupShare, set[int], set[int]]]:
        """Return for each group the tasks that may have begun, and the others."""
        began = self._may_run()
        return [
            (group, began.get(group, set()), held.difference(began.get(group, ())))
            for group, held in self.items.items()
        ]

    def _may_run(self) -> dict[GroupShare, set[int]]:
        """Return its tasks that may have begun: it runs one batch after the other."""
        found: dict[GroupShare, set[int]] = {}
        for batch in self.batches:
            left = self.items.get(batch.group, set()).intersection(batch.indices)
            if left:
                found.setdefault(batch.group, set()).update(left)
                if not batch.is_large:
                    break
        return found

    def busy_until(self, now: float) -> float:
        """Return when it will be idle, by estimate."""
        until = now
        if self.commands:
            # Without an estimate, expect as much time to come as has passed.
            until = now + (now - self.commanded if self.commanded is not None else 0.01)
        if self.task is not None:
            until = max(until, self.task.expected_end(now))
        if self.count:
            passed, backlog = now - self.progress, self.backlog()
            until = max(until, now + (passed if backlog < passed or backlog == math.inf else backlog - passed))
        return until


class RankTable:
    """All ranks, and which of them accept tasks.

    Attributes:
        states: the states by rank.
        idle: idle ranks, in the order in which they became idle.
        touched: ranks with tasks that may have room for more; to be checked when there are more.
        many: ranks with more than one task.
        available: number of ranks that are neither reserved nor busy with a long command.
    """

    def __init__(self) -> None:
        self.states: dict[int, RankState] = {}
        self.idle: dict[int, None] = {}
        self.touched: dict[int, None] = {}
        self.many: set[int] = set()
        self.available = 0

    def add(self, nodes: Mapping[int, int]) -> None:
        """Add ranks; ``nodes`` has the lowest rank on the node of each."""
        for number in sorted(nodes, reverse=True):
            if number not in self.states:
                self.states[number] = RankState(number, nodes[number])
                self.available += 1
                self.refresh(self.states[number])

    def remove(self, number: int) -> RankState | None:
        """Remove a lost rank, and return its state."""
        state = self.states.pop(number, None)
        if state is not None:
            self.available -= not state.out
            self.idle.pop(number, None)
            self.touched.pop(number, None)
            self.many.discard(number)
        return state

    def get(self, numbers: Iterable[int]) -> list[RankState]:
        """Return the states of those of these ranks that exist."""
        return [state for number in numbers if (state := self.states.get(number)) is not None]

    def tasks(self) -> dict[int, set[int]]:
        """Return the tasks of all ranks, by group."""
        found: dict[int, set[int]] = {}
        for state in self.states.values():
            if state.task is not None:
                found.setdefault(state.task.group.serial, set()).add(state.task.index)
            for group, indices in state.items.items():
                found.setdefault(group.serial, set()).update(indices)
        return found

    def refresh(self, state: RankState) -> None:
        """Update the indexes; call it after each change of a rank."""
        number = state.number
        if not state.is_free:
            self.idle.pop(number, None)
            self.touched.pop(number, None)
        elif state.count:
            self.idle.pop(number, None)
            self.touched[number] = None
        else:
            self.idle.setdefault(number)
            self.touched.pop(number, None)
        if state.count > 1:
            self.many.add(number)
        else:
            self.many.discard(number)
        out = state.reserved or state.busy_for_long or state.is_held
        self.available += state.out - out
        state.out = out

    def put(
        self, state: RankState, group: GroupShare, indices: Collection[int], alone: bool, now: float,
        *, is_large: bool = False,
    ) -> None:  # fmt: skip
        """A rank was given tasks."""
        batches = state.batches
        while batches and state.items.get(batches[0].group, _NONE).isdisjoint(batches[0].indices):
            batches.popleft()
        batches.append(GivenTasks(group, indices, is_large))
        held = state.items.get(group)
        if held is None:
            held = state.items[group] = group.holders[state.number] = set()
        held.update(indices)
        if not state.count:
            state.progress = now
        state.count += len(indices)
        state.alone = alone
        self.refresh(state)

    def drop(self, state: RankState, group: GroupShare, indices: Collection[int]) -> bool:
        """Remove tasks of a rank; return False if it had none of them."""
        held = state.items.get(group)
        if held is None:
            return False
        before = len(held)
        held.difference_update(indices)
        if len(held) == before:
            return False
        state.count -= before - len(held)
        if not held:
            del state.items[group]
            group.holders.pop(state.number, None)
        if not state.count:
            state.alone = False
            state.batches.clear()
        self.refresh(state)
        return True


def started(effects: Iterable[Down | Up]) -> list[Up]:
    """Return messages to the controller to send before these tasks, which may kill this process."""
    found: dict[int, list[bytes]] = {}
    for message in (effect.message for effect in effects if isinstance(effect, Down)):
        if isinstance(message, GiveTasks):
            found.setdefault(message.group, []).append(message.indices)
        elif isinstance(message, RunTogether):
            found.setdefault(message.group, []).append(packed.pack([message.index]))
    return [Up(TasksStarted(group, b"".join(indices))) for group, indices in found.items()]
