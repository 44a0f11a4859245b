"""Which groups have the arguments of their tasks in memory (no I/O but the store's).

With a journal, the arguments of what waits are there as well. So only some of them are kept in memory: what came
first, and what is being given. Others are read again when their turn comes. Without a journal, all are in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ... import limits
from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from ..effects import Send
from .groups import WAITING, TaskGroup, packed_range
from .taskqueue import QueueSlice


class Arguments(NamedTuple):
    """The arguments of a group: packed lengths, and all payloads."""

    lengths: bytes
    payload: bytes


class ArgumentMemory:
    """The arguments of all groups.

    Args:
        most: bytes of arguments of written groups that stay in memory.

    Attributes:
        read: reads the arguments of a group from the journal, by its serial, or raises JournalDamaged. None if
            there is none.
    """

    def __init__(self, most: int = limits.ARGUMENTS_IN_MEMORY) -> None:
        self.most = most
        self.read: Callable[[int], Arguments] | None = None
        self.size = 0
        """Bytes of arguments of written groups that are in memory."""
        self._due: dict[int, TaskGroup] = {}
        """Those with tasks that wait, in the order in which they came."""
        self._given: dict[int, TaskGroup] = {}
        """Those of which no task waits; some may come back."""

    def written(self, group: TaskGroup) -> None:
        """A group is in the journal."""
        size = group.memory
        if not size or not group.unfinished:
            return
        if self.size + size > self.most:
            self._make_room(size, self._given)
        if self.size + size > self.most:
            group.spill()
        else:
            self.size += size
            self._due[group.serial] = group

    def fetch(self, group: TaskGroup) -> None:
        """Have the arguments of a group in memory; raises JournalDamaged."""
        if not group.is_spilled or self.read is None:
            return
        group.fill(*self.read(group.serial))
        self.size += group.memory
        for others in (self._given, self._due):
            self._make_room(0, others)
        self._due[group.serial] = group

    def _make_room(self, size: int, groups: dict[int, TaskGroup]) -> None:
        """Spill groups until there is room: of those that were given the first, of the others the last."""
        while groups and self.size + size > self.most:
            serial = next(iter(groups) if groups is self._given else reversed(groups))
            group = groups.pop(serial)
            self.size -= group.memory
            group.spill()

    def given(self, group: TaskGroup) -> None:
        """Tasks of a group were given to an engine set."""
        if group.serial in self._due and group.states.find(WAITING) < 0:
            self._given[group.serial] = self._due.pop(group.serial)

    def wait_again(self, group: TaskGroup) -> None:
        """Tasks of a group have come back."""
        if group.serial in self._given:
            self._due[group.serial] = self._given.pop(group.serial)

    def ended(self, group: TaskGroup) -> None:
        """A group has ended."""
        if self._due.pop(group.serial, None) or self._given.pop(group.serial, None):
            self.size -= group.memory

    def message(self, key: int, piece: QueueSlice, backwards: bool) -> Send:
        """Return what gives tasks to the set ``key``, the last one first if ``backwards``; JournalDamaged."""
        group, start, stop, ranks, alone, _ = piece
        indices = packed_range(start, stop)
        if group.is_large:
            return Send(key, m.GiveTasks(group.serial, group.options, indices, b"", ranks, alone))
        self.fetch(group)
        payloads: Buffer
        if backwards and stop - start > 1:
            indices = packed.pack(range(stop - 1, start - 1, -1))
            lengths, payloads = group.parts_backwards(start, stop)
        else:
            lengths, payloads = group.parts(start, stop)
        message = m.GiveTasks(group.serial, group.options, indices, lengths, ranks, alone, [len(payloads)])
        return Send(key, message, [payloads])
