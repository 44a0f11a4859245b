"""The node agent's records of the task items of a rank.

The control block (:mod:`ipmpi.engine.rank.controlblock`) tells whether a revoked item may have begun; the agent
never waits for the rank.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, repeat
from typing import NamedTuple

from ... import limits
from ...protocol import rankmessages as rm
from ...protocol.frames import Buffer
from ..rank.controlblock import (
    BELL,
    CLAIMED,
    CURRENT,
    RESULT_BYTES,
    RESULTS,
    SERIALS,
    SINCE,
    SLOTS,
    TAKEN,
    TAKEN_BYTES,
    ControlBlock,
)
from ..rank.outcomes import HIT, SKIPPED, Outcome, overruled

_MASK = SERIALS - 1


class ItemBatch:
    """The common properties of tasks of one group that came in one message.

    Attributes:
        group: the controller's number of the group.
        operation: the encoded operation that runs them.
        timeout: seconds that each may run, or None.
        label: their name in displays.
        end: one more than their last serial number, if these are consecutive; else 0.
    """

    __slots__ = ("end", "group", "label", "operation", "timeout")

    def __init__(self, group: int, operation: bytes, timeout: float | None, label: str = "") -> None:
        self.group = group
        self.operation = operation
        self.timeout = timeout
        self.label = label
        self.end = 0


Item = tuple[ItemBatch, int]
"""A task: its batch, and its index in its group."""

Finished = tuple[ItemBatch, int, Outcome, float]
"""A task that has run: its batch, index, outcome, and run time in seconds."""


class ResultRun(NamedTuple):
    """Consecutive tasks of one batch that have run and have values.

    Attributes:
        given: their batch.
        indices: their indices in the group.
        lengths: bytes of each pickled value.
        data: the concatenated values.
        seconds: their total run time.
    """

    given: ItemBatch
    indices: list[int]
    lengths: list[int]
    data: bytes
    seconds: float


class ItemBook:
    """The items of one rank.

    Args:
        send: sends a message to the rank.
        interrupt: interrupts what runs there, if it has this serial number.
    """

    def __init__(
        self,
        block: ControlBlock,
        send: Callable[[rm.ToRank, Sequence[Buffer], tuple[int, ...]], None],
        interrupt: Callable[[int], bool],
    ) -> None:
        self._block = block
        self._send = send
        self._interrupt = interrupt
        self._next = 1
        self._held: dict[int, Item] = {}
        """By serial number, in the order of execution."""
        self._collected_at = 0.0
        self._verdict: tuple[int, BaseException] | None = None
        self._cancelled: set[int] = set()
        """Items that were claimed when they were to be cancelled."""

    def new_serial(self) -> int:
        """Return the next serial number of items and parts."""
        serial = self._next
        self._next += 1
        self._block.revoked[serial & _MASK] = 0
        return serial

    # --- adding and removing--------------------------------------------------------------------------------

    def give(self, given: ItemBatch, indices: Sequence[int], lengths: bytes, body: Sequence[Buffer]) -> None:
        """Send items with small arguments; ``lengths`` and ``body`` are passed on. ``given`` must be new."""
        first = self._next
        self._next = given.end = end = first + len(indices)
        revoked, at = self._block.revoked, first & _MASK
        if at + len(indices) <= SERIALS:
            revoked[at : at + len(indices)] = bytes(len(indices))
        else:
            for serial in range(first, end):
                revoked[serial & _MASK] = 0
        self._held.update(zip(range(first, end), zip(repeat(given), indices), strict=False))
        if end > first:
            self._send(rm.RunItems(first, given.operation, lengths), body, ())

    def give_large(self, given: ItemBatch, index: int, sizes: list[int], descriptor: int) -> None:
        """Send an item whose arguments are in an anonymous file."""
        serial = self.new_serial()
        self._held[serial] = given, index
        self._send(rm.RunItem(serial, given.operation, sizes), (), (descriptor,))

    def take_back(self, count: int) -> tuple[list[Item], list[Finished]]:
        """Revoke up to ``count`` items that have not begun, the last first; return them, and what has run."""
        last = list(islice(reversed(self._held), max(0, count)))
        finished, _ = self._revoke(last)
        return [item for serial in last if (item := self._held.pop(serial, None)) is not None], finished

    def remove(self, group: int, indices: set[int]) -> tuple[list[Item], list[Item], list[Finished]]:
        """Revoke tasks of a group; return those that waited, those that run (one at most), and what has run."""
        wanted = [s for s, (given, index) in self._held.items() if given.group == group and index in indices]
        finished, current = self._revoke(wanted)
        running = []
        if current:
            self._cancelled.add(current)
            running.append(self._held[current])
        return [self._held.pop(serial) for serial in wanted if serial in self._held], running, finished

    def _revoke(self, serials: list[int]) -> tuple[list[Finished], int]:
        """Revoke items; return what has run, and the serial number of one that may be running.

        Items that have begun are removed from ``serials``.
        """
        if not serials:
            return [], 0
        revoked = self._block.revoked
        for serial in serials:
            revoked[serial & _MASK] = 1
        self._block.fence()
        claimed = self._block.words[CLAIMED]
        finished = self.collect()
        # Items begin in the order of their numbers, so these have begun. One with a large result may have ended: a
        # packet will say so. The claimed one may have been revoked in time: then it comes back as skipped.
        begun = {serial for serial in serials if serial <= claimed and serial in self._held}
        serials[:] = [serial for serial in serials if serial not in begun]
        return finished, claimed if claimed in begun else 0

    def clear(self) -> None:
        """Remove all items; those that wait are not run."""
        self._revoke(list(self._held))
        self._held.clear()

    # --- running items -------------------------------------------------------------------------------------

    def running(self) -> tuple[int, Item | None, float]:
        """Return the serial number of the running item, the item, and when it began (time.monotonic)."""
        words = self._block.words
        current = words[CURRENT]
        item = self._held.get(current)
        return (current, item, words[SINCE] * 1e-9) if item is not None else (0, None, 0.0)

    def overrule(self, serial: int, verdict: BaseException) -> bool:
        """Interrupt an item if it runs, so that it fails with ``verdict``; return whether it ran."""
        self._verdict = serial, verdict
        return self._interrupt(serial)

    def verdict_on(self, serial: int) -> BaseException | None:
        """Return the exception that was set by :meth:`overrule`, or None."""
        return self._verdict[1] if self._verdict is not None and self._verdict[0] == serial else None

    def serial_of(self, item: Item) -> int:
        """Return the serial number of an item, or 0 if the rank does not have it."""
        return next((serial for serial, held in self._held.items() if held == item), 0)

    def shortest_timeout(self) -> float | None:
        """Return the shortest timeout of the items; None if none has one."""
        given = {item[0] for item in self._held.values()}
        return min((one.timeout for one in given if one.timeout is not None), default=None)

    @property
    def is_active(self) -> bool:
        """Whether there are items that have not finished."""
        return bool(self._held)

    @property
    def has_finished(self) -> bool:
        """Return whether :meth:`collect` would return results."""
        return bool(self._block.words[RESULTS] != self._block.words[TAKEN])

    @property
    def age(self) -> float:
        """Seconds since the last :meth:`collect`."""
        return time.monotonic() - self._collected_at

    def ended(self, serial: int) -> Item | None:
        """Remove an item whose end the rank has reported by a message."""
        return self._held.pop(serial, None)

    def _left(self) -> tuple[int, int]:
        """Return the number of the first result that was not collected, and of the next one to come."""
        words = self._block.words
        words[BELL] = 0
        self._block.fence()
        self._collected_at = time.monotonic()
        first, end = words[TAKEN], words[RESULTS]
        self._block.fence()
        return first, end

    def take_runs(self) -> tuple[list[ResultRun], bool]:
        """Return the results since the last call, and whether it stopped at one that needs :meth:`collect`.

        Those are tasks that have no value, were revoked, or were sent singly: a few. All others are processed by
            loops
        in C.
        """
        first, end = self._left()
        runs: list[ResultRun] = []
        while first < end:
            run = self._take_run(first, end)
            if run is None:
                return runs, True
            runs.append(run)
            first += len(run.indices)
        return runs, False

    def _take_run(self, first: int, end: int) -> ResultRun | None:
        """Return the results from ``first`` on, before ``end``, of tasks of one batch."""
        block, held, words = self._block, self._held, self._block.words
        at = first % SLOTS
        item = held.get(block.serials[at])
        if item is None or not item[0].end:
            return None
        given = item[0]
        most = min(end - first, SLOTS - at, given.end - block.serials[at], limits.TASKS_PER_MESSAGE)
        serials = block.serials[at : at + most].tolist()
        count = bisect_left(serials, given.end)
        serials, slots = serials[:count], slice(at, at + count)
        lengths = block.lengths[slots].tolist()
        size = sum(lengths)
        indices = [item[1] for serial in serials if (item := held.get(serial)) is not None]
        if len(indices) < count or size > limits.TASK_BATCH or any(block.kinds[slots]):
            return None
        start = words[TAKEN_BYTES]
        data, seconds = block.get(start, start + size), sum(block.seconds[slots])
        deque(map(held.pop, serials, repeat(None)), maxlen=0)
        words[TAKEN_BYTES] = start + size
        words[TAKEN] = first + count
        return ResultRun(given, indices, lengths, data, seconds)

    def collect(self) -> list[Finished]:
        """Return what has run since the last call."""
        block = self._block
        words = block.words
        first, end = self._left()
        if first == end:
            return []
        start = words[TAKEN_BYTES]
        data = block.get(start, words[RESULT_BYTES])
        serials, kinds, lengths, seconds = block.serials, block.kinds, block.lengths, block.seconds
        found: list[Finished] = []
        at, pop = 0, self._held.pop
        for result in range(first, end):
            slot = result % SLOTS
            stop = at + lengths[slot]
            kind, serial = kinds[slot], serials[slot]
            item = pop(serial, None)
            if item is not None:
                outcome: Outcome = (kind, data[at:stop])
                if kind >= SKIPPED:
                    outcome = self._final(serial, outcome)
                found.append((item[0], item[1], outcome, seconds[slot]))
            at = stop
        words[TAKEN_BYTES] = start + at
        words[TAKEN] = end
        return found

    def _final(self, serial: int, outcome: Outcome) -> Outcome:
        """Return the outcome of an item that was skipped or interrupted."""
        kind, data = outcome
        if kind == SKIPPED:
            cancelled = serial in self._cancelled
            self._cancelled.discard(serial)
            return SKIPPED, b"cancelled" if cancelled else b"taken"
        self._cancelled.discard(serial)
        outcome = kind & ~HIT, data
        verdict = self.verdict_on(serial)
        return outcome if verdict is None else overruled(outcome, verdict)
