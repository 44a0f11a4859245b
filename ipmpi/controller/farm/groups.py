"""One group of tasks as the controller keeps it: a few arrays, no object per task (no I/O)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from ... import limits
from ...errors import ClientError
from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from .sets import Condition

# States of a task. Up to DROPPED it has not ended; from GIVEN to DROPPED an engine set has it.
WAITING: Final = 0
GIVEN: Final = 1
CANCELLING: Final = 2
"""Given, and the set was asked to cancel it if it has not started."""
INTERRUPTED: Final = 3
"""Given, and being interrupted; the client is told that it was aborted once it has ended."""
DROPPED: Final = 4
"""Given, but the client was told that it was aborted, or has disconnected."""
SUCCEEDED: Final = 5
FAILED: Final = 6
UNDONE: Final = 7

MARKS: Final = 8
"""Failures of a task before its last one whose marks are kept: their sets may not know that they are recorded."""

NUMBERS: Final = packed.pack(range(limits.TASKS_PER_MESSAGE))
"""The packed numbers from 0 on; those of a range are a slice of it."""

_LENGTH: Final = 4
# Shared by groups that have none, and never changed.
_NO_NUMBERS: Final = array("I")
_NO_FLAGS: Final = bytearray()
_NO_SIZES: Final[list[int]] = []


def packed_range(start: int, stop: int) -> bytes:
    """``packed.pack(range(start, stop))``."""
    return NUMBERS[_LENGTH * start : _LENGTH * stop]


def as_range(indices: bytes) -> tuple[int, int] | None:
    """Return start and stop if packed numbers are consecutive and valid, else None."""
    start = int.from_bytes(indices[:_LENGTH], "little")
    stop = start + len(indices) // _LENGTH
    if indices and stop <= limits.TASKS_PER_MESSAGE and indices == packed_range(start, stop):
        return start, stop
    return None


def for_engines(options: m.TaskOptions) -> m.TaskOptions:
    """Return options without those that only the controller needs."""
    return m.TaskOptions(
        options.operation, options.label[: limits.LABEL], options.functions, options.retries, options.priority,
        options.width, options.same_node, options.timeout, options.expected, options.conditional,
    )  # fmt: skip


class EndedGroup(NamedTuple):
    """The record of a group that has ended: states, and where its tasks ran."""

    label: str
    states: bytearray
    where: array[int]


class Tries(NamedTuple):
    """How many of its retries a task has used, and the mark of its last failure; then those of failures before."""

    used: int
    mark: int
    before: tuple[int, ...] = ()

    def again(self, mark: int) -> Tries:
        """Return what there is after one more failure."""
        return Tries(self.used + 1, mark, (*self.before, self.mark)[-MARKS:])

    @property
    def marks(self) -> set[int]:
        """Those of all failures that are remembered."""
        return {self.mark, *self.before}


class EndingEngine(NamedTuple):
    """An engine that was told to end: its set, its host, and the newest engine at that time."""

    key: int
    host: str
    newest: int


class TaskGroup:
    """The tasks of one group.

    Attributes:
        serial: number of the group between controller and engine sets.
        options: the options for engine sets (see :func:`for_engines`).
        is_large: whether this is one task whose body is sent separately.
        size: bytes of its arguments, if they are not with the client.
        is_spilled: whether they are in the journal only.
        states: the state of each task; ``started`` is 1 for those that ranks of its set have.
        where: the key of the set that has the task; once it has ended on an engine, that engine's incarnation. As
            ``started``, it is empty until a task is given or has ended.
        unfinished: number of tasks that have not ended, or that a set still has.
        children: by index, the groups that wait for that task.
        missing: number of tasks that this group waits for.
        only: ids of the engines on which its client may run tasks; None for all.
        repeats: by index, marks of failures of which their sets may tell again.
        follows: the task on whose engine it must run, if any; ``follow``: its incarnation, once known.
    """

    __slots__ = (
        "asked",
        "broken",
        "children",
        "client",
        "condition",
        "count",
        "endings",
        "follow",
        "follows",
        "id",
        "is_large",
        "is_spilled",
        "last_refusal",
        "lengths",
        "missing",
        "offsets",
        "only",
        "options",
        "payload",
        "priority",
        "rank",
        "rejected",
        "repeats",
        "serial",
        "size",
        "sizes",
        "started",
        "states",
        "stream",
        "strikes",
        "tries",
        "unfinished",
        "wanted",
        "where",
    )

    def __init__(
        self,
        serial: int,
        client: int,
        message: m.SubmitTasks,
        body: Sequence[Buffer] | None,
        options: m.TaskOptions,
    ) -> None:
        """``body``: None if it is in the journal only."""
        self.serial = serial
        self.client = client
        self.id = message.id
        self.options = options
        self.count = packed.count(message.lengths) or 1
        self.is_large = not message.lengths
        self.sizes = message.sizes if self.is_large else _NO_SIZES
        self.is_spilled = body is None
        if body is None:
            self.spill()
            self.size = sum(message.sizes)
        else:
            self.fill(message.lengths, b"".join(body))
            self.size = len(self.payload)
        self.states = bytearray(self.count)
        self.started = _NO_FLAGS
        self.where = _NO_NUMBERS
        self.unfinished = self.count
        self.rank: tuple[float, ...] = ()
        self.condition: Condition | None = None
        self.only: frozenset[int] | None = None
        self.children: dict[int, list[TaskGroup]] | None = None
        self.missing = 0
        self.follows = message.options.follow
        self.follow = 0
        # Rarely used, by index: retries used, engines lost, numbers of engines that rejected it.
        self.tries: dict[int, Tries] | None = None
        self.repeats: dict[int, set[int]] | None = None
        self.strikes: dict[int, int] | None = None
        self.endings: dict[int, list[EndingEngine]] | None = None
        self.rejected: dict[int, set[int]] | None = None
        self.last_refusal = ""
        # For a large task: the stream of its body, whether the body was requested again, who waits for it, and how
        # often it did not arrive.
        self.stream = 0
        self.asked = False
        self.wanted: tuple[int, Sequence[int]] | None = None
        self.broken = 0

    @property
    def memory(self) -> int:
        """Bytes of memory that its arguments take if they are not spilled, also to tell them apart."""
        return self.size if self.is_large else self.size + 2 * _LENGTH * self.count

    @property
    def is_movable(self) -> bool:
        """Whether any set could run these tasks."""
        return self.options.width == 1 and self.follows is None and self.condition is None and self.only is None

    def spill(self) -> None:
        """Keep the arguments in the journal only."""
        self.is_spilled = True
        self.payload = self.lengths = b""
        self.offsets = _NO_NUMBERS

    def fill(self, lengths: bytes, payload: bytes) -> None:
        """Have the arguments in memory; raises ClientError if the lengths are inconsistent."""
        self.offsets = _offsets(lengths, len(payload)) if lengths else _NO_NUMBERS
        self.lengths, self.payload = lengths, payload
        self.is_spilled = False

    def parts(self, start: int, stop: int) -> tuple[bytes, memoryview]:
        """Return packed lengths and payloads of consecutive tasks."""
        view = memoryview(self.payload)[self.offsets[start] : self.offsets[stop]]
        return self.lengths[_LENGTH * start : _LENGTH * stop], view

    def parts_backwards(self, start: int, stop: int) -> tuple[bytes, bytes]:
        """As :meth:`parts`, in reverse order."""
        view, offsets = memoryview(self.payload), self.offsets
        backwards = range(stop - 1, start - 1, -1)
        lengths = packed.pack(offsets[i + 1] - offsets[i] for i in backwards)
        return lengths, b"".join([view[offsets[i] : offsets[i + 1]] for i in backwards])

    def give(self, key: int, start: int, stop: int) -> None:
        """These tasks were given to a set."""
        self._begin()
        self.states[start:stop] = bytes((GIVEN,)) * (stop - start)
        self.started[start:stop] = bytes(stop - start)
        self.where[start:stop] = array("I", (key,)) * (stop - start)

    def _begin(self) -> None:
        """Have room for what is known of tasks that do not wait."""
        if not self.where:
            self.started = bytearray(self.count)
            self.where = array("I", bytes(_LENGTH * self.count))

    def end(self, start: int, stop: int, state: int, incarnation: int) -> None:
        """These tasks have ended on one engine."""
        self._begin()
        self.states[start:stop] = bytes((state,)) * (stop - start)
        self.where[start:stop] = array("I", (incarnation,)) * (stop - start)

    def all_given(self, key: int, start: int, stop: int) -> bool:
        """Return whether that set has all of these tasks, and none is being cancelled or dropped."""
        count = stop - start
        return (
            stop <= self.count
            and self.states.count(GIVEN, start, stop) == count
            and self.where[start:stop] == array("I", (key,)) * count
        )

    def is_given(self, key: int, index: int) -> bool:
        """Return whether that set has this task."""
        return 0 <= index < self.count and GIVEN <= self.states[index] <= DROPPED and self.where[index] == key

    def may_retry(self, index: int, mark: int) -> bool:
        """Return whether a task that has failed may run again; ``mark`` tells its failure from others."""
        used = self.tries[index].used if self.tries and index in self.tries else 0
        return used < self.options.retries or self._is_repeat(index, mark)

    def retry(self, index: int, mark: int) -> None:
        """A task has failed, and runs again."""
        is_repeat = self._is_repeat(index, mark)
        if is_repeat and self.repeats is not None:
            self.repeats[index].discard(mark)
        else:
            self.tries = self.tries or {}
            known = self.tries.get(index)
            self.tries[index] = known.again(mark) if known is not None else Tries(1, mark)

    def _is_repeat(self, index: int, mark: int) -> bool:
        """Whether a failure was counted before the controller was started again, which its set was not told."""
        return self.repeats is not None and mark in self.repeats.get(index, ())

    def held_by(self, key: int) -> list[int]:
        """Return the tasks that a set has."""
        return [i for i, k in enumerate(self.where) if k == key and _held(self.states[i])]

    def waiting(self) -> list[int]:
        """Return the tasks that wait."""
        return [index for index, state in enumerate(self.states) if state == WAITING]

    def given(self) -> list[int]:
        """Return the tasks that engine sets have, and whose results the client waits for."""
        if not any(state in self.states for state in (GIVEN, CANCELLING, INTERRUPTED)):
            return []  # true of most groups when a million tasks wait
        return [i for i, state in enumerate(self.states) if GIVEN <= state < DROPPED]

    def next_waiting(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first run of waiting tasks in a range; empty at ``stop`` if there is none."""
        states = self.states
        if states.count(WAITING, start, stop) == stop - start:
            return start, stop
        first = states.find(WAITING, start, stop)
        if first < 0:
            return stop, stop
        rest = states[first:stop]
        return first, stop - len(rest.lstrip(bytes((WAITING,))))


def _held(state: int) -> bool:
    return GIVEN <= state <= DROPPED


def _offsets(lengths: bytes, size: int) -> array[int]:
    """Return the start of each payload, and the end; raises ClientError if the lengths are inconsistent."""
    total = sum(numbers := packed.unpack(lengths))
    if total != size:
        raise ClientError(f"payloads of {total} bytes in a body of {size}: the client and its message disagree")
    return array("I", accumulate(numbers, initial=0))


def runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending indices as ranges."""
    found: list[tuple[int, int]] = []
    start = stop = -1
    for index in indices:
        if index != stop:
            if stop > start:
                found.append((start, stop))
            start = index
        stop = index + 1
    if stop > start:
        found.append((start, stop))
    return found
