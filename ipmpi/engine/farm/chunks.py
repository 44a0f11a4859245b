"""Tasks that wait at the root agent of a set (no I/O).

The tasks of one message form a *chunk*, from which slices are given to ranks: indices, lengths and payloads are
slices of the message's buffers, and no task is processed by itself.
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
    """The part of a group of tasks that this set has.

    Attributes:
        chunks: the waiting tasks.
        holders: rank -> indices of the tasks that it was given and has not completed.
        wide: number of gang tasks that wait or run.
        stale: an earlier controller sent them, so their results are dropped.
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
    """All groups of which this set has tasks."""

    def __init__(self) -> None:
        self._groups: dict[int, GroupShare] = {}
        self._runtimes = RuntimeEstimates()

    def get(self, serial: int) -> GroupShare | None:
        """Return the group; None if the set has no task of it."""
        return self._groups.get(serial)

    def open(self, serial: int, options: TaskOptions) -> GroupShare:
        """Return the group, which is created if necessary."""
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
        """Remove the group if it has no tasks left."""
        if not group.chunks and not group.holders and not group.wide:
            self._groups.pop(group.serial, None)

    def make_stale(self) -> None:
        """Mark all groups as stale."""
        for group in self._groups.values():
            group.stale = True


class TaskSlice(NamedTuple):
    """A part of a chunk that is sent to a rank."""

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
        """Whether it is one task whose body is requested later."""
        return self._bounds is None

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return self.end - self.start

    def payload(self, position: int) -> Sequence[Buffer]:
        """Return the payload of one task."""
        if self._bounds is None:
            return self._body
        return [memoryview(self._body[0])[self._bounds[position] : self._bounds[position + 1]]]

    def indices(self) -> array[int]:
        """The tasks that wait."""
        return self._indices[self.start : self.end]

    def take(self, most: int, rank: int) -> TaskSlice:
        """Remove up to ``most`` tasks from the front, at least one, and return them for a rank."""
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
        """Remove up to ``most`` tasks from the end, and return their indices."""
        start = max(self.start, self.end - most)
        indices = self._indices[start : self.end]
        self.end = start
        return indices

    def remove(self, unwanted: set[int]) -> list[int]:
        """Remove these tasks; return those that were in it."""
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
    """The chunks in order of arrival: *open* ones for any rank, *bound* ones for certain ranks.

    Attributes:
        open_count: number of tasks that any rank may run.
        bound_count: number of those that only certain ranks may run.
    """

    def __init__(self) -> None:
        self.open_count = 0
        self.bound_count = 0
        self._open: deque[TaskChunk] = deque()
        self._bound: dict[int, deque[TaskChunk]] = {}
        self._ranks: dict[TaskChunk, set[int]] = {}

    @property
    def count(self) -> int:
        """Number of all tasks."""
        return self.open_count + self.bound_count

    @property
    def arrival(self) -> float:
        """When the first open chunk arrived; infinite if there is none."""
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
        """Add a chunk that any of ``ranks`` may run; empty: all ranks."""
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
        """Return the ranks that have bound chunks."""
        return list(self._bound)

    def first(self, rank: int) -> TaskChunk | None:
        """Return the chunk from which the rank must run next, or None."""
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
        """Return whether only certain ranks may run it."""
        return chunk in self._ranks

    def take(self, chunk: TaskChunk, most: int, rank: int) -> TaskSlice:
        """Remove a slice of a chunk, for a rank."""
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
        """Remove tasks that are cancelled; return those that waited here."""
        found: list[int] = []
        for chunk in list(group.chunks):
            removed = chunk.remove(indices)
            found += removed
            self._gone(chunk, len(removed))
        return found

    def cut(self, most: int) -> list[tuple[GroupShare, array[int]]]:
        """Remove and return up to ``most`` open tasks, the latest first."""
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
        """Remove and return all tasks of these chunks."""
        left = []
        for chunk in chunks:
            indices = chunk.cut(chunk.waiting)
            if indices:
                self._gone(chunk, len(indices))
                left.append((chunk.group, indices))
        return left

    def leave_bound(self) -> list[tuple[GroupShare, array[int]]]:
        """Remove and return all bound tasks."""
        left = self.leave(list(self._ranks))
        self._bound.clear()
        return left

    def remove_rank(self, rank: int) -> list[tuple[GroupShare, array[int]]]:
        """Remove a lost rank; remove and return the tasks that no other rank may run."""
        orphans = []
        for chunk in self._bound.pop(rank, ()):
            ranks = self._ranks.get(chunk)
            if ranks is not None:
                ranks.discard(rank)
                if not ranks:
                    orphans.append(chunk)
        return self.leave(orphans)
