"""Tasks that wait at the root agent of a set (no I/O).

What came in one message stays one object, a *chunk*, of which pieces are handed out: indices, lengths and payloads
are copied as slices of the buffers that they came in, and no task is looked at by itself.
"""

from __future__ import annotations

import itertools
import math
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ... import limits
from ...errors import RemoteProtocolError
from ...protocol import packed
from ...protocol.frames import Buffer
from ...protocol.messages import GiveTasks, TaskOptions
from .runtimes import RuntimeEstimate, RuntimeEstimates

_WIDTH = 4
"""Bytes of one packed number."""


class GroupShare:
    """Tasks with the same options, as long as some of them are here.

    Attributes:
        chunks: those that wait.
        holders: rank -> indices of those that it was given and has not answered.
        wide: how many tasks on several ranks wait or run.
        stale: an earlier controller gave them, so nobody wants to hear of them.
    """

    __slots__ = ("chunks", "holders", "options", "runtime", "serial", "stale", "wide")

    def __init__(self, serial: int, options: TaskOptions, runtime: RuntimeEstimate) -> None:
        self.serial = serial
        self.options = options
        self.runtime = runtime
        self.chunks: dict[TaskChunk, None] = {}
        self.holders: dict[int, set[int]] = {}
        self.wide = 0
        self.stale = False


class GroupShares:
    """All groups of which something is here."""

    def __init__(self) -> None:
        self._groups: dict[int, GroupShare] = {}
        self._runtimes = RuntimeEstimates()

    def get(self, serial: int) -> GroupShare | None:
        """The group, if something of it is here."""
        return self._groups.get(serial)

    def open(self, serial: int, options: TaskOptions) -> GroupShare:
        """The group, which is made if it is new."""
        group = self._groups.get(serial)
        if group is None:
            group = self._groups[serial] = GroupShare(serial, options, self._runtimes.of(options))
        return group

    def __len__(self) -> int:
        return len(self._groups)

    def all(self) -> list[GroupShare]:
        """All of them."""
        return list(self._groups.values())

    def tidy(self, group: GroupShare) -> None:
        """Forget the group if nothing of it is left."""
        if not group.chunks and not group.holders and not group.wide:
            self._groups.pop(group.serial, None)

    def make_stale(self) -> None:
        """Nobody wants to hear of any of them any more."""
        for group in self._groups.values():
            group.stale = True


class TaskSlice(NamedTuple):
    """A part of a lot, on its way to a rank."""

    indices: array[int]
    message: GiveTasks
    body: Sequence[Buffer]


class TaskChunk:
    """The tasks of one message, of which those from ``start`` to ``end`` still wait.

    Raises:
        RemoteProtocolError: numbers of tasks, lengths and bytes do not agree.
    """

    __slots__ = ("_body", "_bounds", "_indices", "_lengths", "_sizes", "alone", "arrival", "end", "group", "start")

    def __init__(self, group: GroupShare, message: GiveTasks, body: Sequence[Buffer], arrival: int) -> None:
        self.group = group
        self.arrival = arrival
        self.alone = message.alone
        self._indices = packed.unpack(message.indices)
        self._lengths = message.lengths
        self._sizes = message.sizes
        self._body = body
        self._bounds: array[int] | None = None
        self.start, self.end = 0, len(self._indices)
        if not self._lengths:
            if self.end != 1:
                raise RemoteProtocolError(f"{self.end} tasks came with no lengths, and only one may")
            return
        self._bounds = array("Q", itertools.accumulate(packed.unpack(self._lengths), initial=0))
        whole = body[0] if len(body) == 1 else b"".join(body)
        self._body = [whole]
        if len(self._bounds) != self.end + 1 or self._bounds[-1] != len(whole):
            raise RemoteProtocolError(
                f"{self.end} tasks came with {len(self._bounds) - 1} lengths, of {self._bounds[-1]} bytes"
                f" together, and {len(whole)} bytes"
            )

    @property
    def is_large(self) -> bool:
        """Whether it is one task, whose body is asked for later."""
        return self._bounds is None

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return self.end - self.start

    def payload(self, position: int) -> Sequence[Buffer]:
        """The payload of one task."""
        if self._bounds is None:
            return self._body
        return [memoryview(self._body[0])[self._bounds[position] : self._bounds[position + 1]]]

    def indices(self) -> array[int]:
        """The tasks that wait."""
        return self._indices[self.start : self.end]

    def take(self, most: int, rank: int) -> TaskSlice:
        """Up to ``most`` tasks from the left, at least one, as a message to a rank."""
        start, end = self.start, min(self.start + most, self.end)
        body, sizes = self._body, self._sizes
        if self._bounds is not None:
            first = self._bounds[start]
            if self._bounds[end] - first > limits.TASK_BATCH:
                end = max(start + 1, bisect_right(self._bounds, first + limits.TASK_BATCH, start, end + 1) - 1)
            last = self._bounds[end]
            body, sizes = [memoryview(self._body[0])[first:last]], [last - first]
        self.start = end
        indices = self._indices[start:end]
        lengths = self._lengths[_WIDTH * start : _WIDTH * end]
        options = self.group.options
        message = GiveTasks(self.group.serial, options, packed.pack(indices), lengths, [rank], self.alone, sizes)
        return TaskSlice(indices, message, body)

    def cut(self, most: int) -> array[int]:
        """Up to ``most`` tasks from the right, which wait here no longer."""
        start = max(self.start, self.end - most)
        indices = self._indices[start : self.end]
        self.end = start
        return indices

    def remove(self, unwanted: set[int]) -> list[int]:
        """Take these tasks out; which of them were here."""
        found = [index for index in self.indices() if index in unwanted]
        if len(found) == self.waiting:
            self.start = self.end = 0
            self._body = ()
        elif found:
            keep = [p for p in range(self.start, self.end) if self._indices[p] not in unwanted]
            body = b"".join(buffer for p in keep for buffer in self.payload(p))
            lengths = packed.unpack(self._lengths)
            self._lengths = packed.pack(lengths[p] for p in keep)
            self._bounds = array("Q", itertools.accumulate((lengths[p] for p in keep), initial=0))
            self._indices = array("I", (self._indices[p] for p in keep))
            self._body = [body]
            self.start, self.end = 0, len(keep)
        return found


class SetQueue:
    """The chunks in the order in which they came: *open* ones for any rank, *bound* ones for some.

    Attributes:
        open_count: tasks that any rank may run.
        bound_count: tasks that only some may.
    """

    def __init__(self) -> None:
        self.open_count = 0
        self.bound_count = 0
        self._open: deque[TaskChunk] = deque()
        self._bound: dict[int, deque[TaskChunk]] = {}
        self._ranks: dict[TaskChunk, set[int]] = {}

    @property
    def count(self) -> int:
        """Tasks in all."""
        return self.open_count + self.bound_count

    @property
    def arrival(self) -> float:
        """When the first of the open ones came; infinite if there is none."""
        chunk = self._head(self._open)
        return math.inf if chunk is None else chunk.arrival

    @staticmethod
    def _head(chunks: deque[TaskChunk]) -> TaskChunk | None:
        while chunks:
            if chunks[0].waiting:
                return chunks[0]
            chunks.popleft()
        return None

    def add(self, chunk: TaskChunk, ranks: Iterable[int] = ()) -> None:
        """A chunk that any of ``ranks`` may run; none of them means all of the set."""
        chunk.group.chunks[chunk] = None
        allowed = set(ranks)
        if not allowed:
            self.open_count += chunk.waiting
            self._open.append(chunk)
            return
        self.bound_count += chunk.waiting
        self._ranks[chunk] = allowed
        for rank in allowed:
            self._bound.setdefault(rank, deque()).append(chunk)

    def bound_ranks(self) -> list[int]:
        """Ranks that something waits for that not all may run."""
        return list(self._bound)

    def first(self, rank: int) -> TaskChunk | None:
        """What the rank shall run next."""
        chunk = self._head(self._open)
        bound = self._bound.get(rank)
        if bound is not None:
            other = self._head(bound)
            if other is None:
                del self._bound[rank]
            elif chunk is None or other.arrival < chunk.arrival:
                return other
        return chunk

    def is_bound(self, chunk: TaskChunk) -> bool:
        """Whether only some ranks may run it."""
        return chunk in self._ranks

    def take(self, chunk: TaskChunk, most: int, rank: int) -> TaskSlice:
        """A piece of a lot, on its way to a rank."""
        piece = chunk.take(most, rank)
        self._gone(chunk, len(piece.indices))
        return piece

    def _gone(self, chunk: TaskChunk, tasks: int) -> None:
        if chunk in self._ranks:
            self.bound_count -= tasks
        else:
            self.open_count -= tasks
        if not chunk.waiting:
            self._ranks.pop(chunk, None)
            chunk.group.chunks.pop(chunk, None)

    def cancel(self, group: GroupShare, indices: set[int]) -> list[int]:
        """These tasks shall not be run; which of them waited here."""
        found: list[int] = []
        for chunk in list(group.chunks):
            removed = chunk.remove(indices)
            found += removed
            self._gone(chunk, len(removed))
        return found

    def cut(self, most: int) -> list[tuple[GroupShare, array[int]]]:
        """Up to ``most`` open tasks that came last, which wait here no longer."""
        taken: list[tuple[GroupShare, array[int]]] = []
        while most > 0 and self._open:
            chunk = self._open[-1]
            indices = chunk.cut(most)
            if indices:
                most -= len(indices)
                self._gone(chunk, len(indices))
                taken.append((chunk.group, indices))
            if not chunk.waiting:
                self._open.pop()
        return taken

    def leave(self, chunks: Iterable[TaskChunk]) -> list[tuple[GroupShare, array[int]]]:
        """All tasks of these chunks, which wait here no longer."""
        left = []
        for chunk in chunks:
            indices = chunk.cut(chunk.waiting)
            if indices:
                self._gone(chunk, len(indices))
                left.append((chunk.group, indices))
        return left

    def leave_bound(self) -> list[tuple[GroupShare, array[int]]]:
        """All tasks that not all ranks may run, which wait here no longer."""
        left = self.leave(list(self._ranks))
        self._bound.clear()
        return left

    def remove_rank(self, rank: int) -> list[tuple[GroupShare, array[int]]]:
        """The rank is gone: the tasks that no other may run, which wait here no longer."""
        orphans = []
        for chunk in self._bound.pop(rank, ()):
            ranks = self._ranks.get(chunk)
            if ranks is not None:
                ranks.discard(rank)
                if not ranks:
                    orphans.append(chunk)
        return self.leave(orphans)
