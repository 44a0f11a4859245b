"""Task items at the rank that runs them.

The agent sends batches, and revokes items in the control block. Results are stored in that block one by one, so
that the agent can take them during a later long item. It is notified when the queue is empty, when a batch has
ended, when there are many results, or some time after the last notification, not for each item.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from ... import limits
from ...serialize import Buffer
from .controlblock import (
    CLAIMED,
    CURRENT,
    RESULT_BYTES,
    RESULTS,
    RING,
    SERIALS,
    SINCE,
    SLOTS,
    SWAPS_WRITES,
    TAKEN,
    TAKEN_BYTES,
    ControlBlock,
)
from .interrupts import Interrupts
from .outcomes import FAILED, HIT, LARGE, SKIPPED, Outcome, Payload, packed_failure
from .taskrunner import Program, TaskRunner

_FLUSH: Final = int(limits.TASK_RESULT_WAITS * 1e9)
_BATCH: Final = 1_000_000
"""Nanoseconds after the last notification within which the end of a batch is not reported."""
_PIECES: Final = 64 * limits.KIB
_ROOM_AGAIN: Final = 0.0005
"""Seconds between two checks whether the agent has taken results."""
_MASK: Final = SERIALS - 1

Item = tuple[int, Program, Payload, bool]
"""Serial number, what runs it, its arguments, and whether it is the last of its batch."""

_SKIPPED: Final[Outcome] = (SKIPPED, b"")


class ItemRunner:
    """The queue of items, and the loop that runs them.

    Args:
        runner: runs an item.
        interrupts: records which item was interrupted.
        ring: notifies the agent of results.
        send_large: sends a result that does not fit into the control block: serial number, seconds, segments.
    """

    def __init__(
        self,
        runner: TaskRunner,
        block: ControlBlock,
        interrupts: Interrupts,
        ring: Callable[[], None],
        send_large: Callable[[int, float, Sequence[Buffer]], None],
    ) -> None:
        self._runner = runner
        self._process = runner.process
        self._block = block
        self._interrupts = interrupts
        self._ring = ring
        self._send_large = send_large
        self._waiting: deque[Item] = deque()
        self._results = 0
        self._bytes = 0
        self._most_results = self._most_bytes = 0
        """End of the free room when it was last checked."""
        self._rang_at = 0

    @property
    def has_items(self) -> bool:
        """Whether items wait."""
        return bool(self._waiting)

    def give(self, items: Iterable[Item]) -> None:
        """Append items."""
        self._waiting.extend(items)

    def work(self, may_go_on: Callable[[], bool]) -> None:
        """Run items while there are any and ``may_go_on()`` is true."""
        waiting, interrupts, process = self._waiting, self._interrupts, self._process
        words, revoked, lock = self._block.words, self._block.revoked, self._block.lock
        run, clock, install_if_replaced = self._runner.run, time.monotonic_ns, interrupts.install_if_replaced
        before, size = clock(), 0
        while waiting and may_go_on():
            install_if_replaced()
            serial, program, payload, is_last = waiting.popleft()
            outcome: Outcome | None = None
            try:
                words[SINCE] = before
                words[CLAIMED] = words[CURRENT] = serial
                with lock:
                    pass  # a fence
                outcome = _SKIPPED if revoked[serial & _MASK] else run(program, payload)
                if process.is_child:
                    process.leave_if_child()
                words[CURRENT] = 0
            except KeyboardInterrupt:
                # No second one can come so soon.
                words[CURRENT] = 0
            now = clock()
            seconds = (now - before) * 1e-9
            before = now
            if outcome is None:
                outcome = (FAILED, packed_failure(KeyboardInterrupt()))
            payload = b""  # free large arguments before the next item
            if outcome[0] == LARGE:
                segments: Any = outcome[1]
                self._send_large(serial, seconds, segments)
                del segments
                outcome, before = None, clock()
                continue
            size += self._leave(serial, outcome, seconds, interrupts.hit == serial)
            since = now - self._rang_at
            if since >= _FLUSH or size >= _PIECES or (since >= _BATCH and is_last):
                self._tell()
                size = 0
        if self._block.words[TAKEN] != self._results:
            self._tell()

    def _tell(self) -> None:
        self._rang_at = time.monotonic_ns()
        self._ring()

    def _leave(self, serial: int, outcome: Outcome, seconds: float, hit: bool) -> int:
        """Store a result in the control block; return its size."""
        kind, data = outcome
        if isinstance(data, str):
            data = data.encode()
        size = len(data)
        block, results, end = self._block, self._results, self._bytes + size
        words = block.words
        if results >= self._most_results or end > self._most_bytes:
            self._make_room(results, end)
        slot = results % SLOTS
        block.serials[slot] = serial
        block.kinds[slot] = kind | HIT if hit else kind
        block.lengths[slot] = size
        block.seconds[slot] = seconds
        if size:
            block.put(self._bytes, data)
        self._bytes = words[RESULT_BYTES] = end
        if SWAPS_WRITES:
            block.fence()
        self._results = words[RESULTS] = results + 1
        if SWAPS_WRITES:
            block.fence()
        return size

    def _make_room(self, results: int, end: int) -> None:
        """Wait until there is a slot for this result, and room for its payload up to ``end``."""
        words = self._block.words
        while True:
            self._most_results, self._most_bytes = words[TAKEN] + SLOTS, words[TAKEN_BYTES] + RING
            if results < self._most_results and end <= self._most_bytes:
                return
            self._tell()
            time.sleep(_ROOM_AGAIN)
