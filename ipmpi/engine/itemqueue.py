"""Task items of one rank, between the agent thread that brings them and the main thread that runs them (layer L3).

Both ends of the queue are used: the main thread takes items from the left, and what is taken back goes from the
right. Results wait for the agent thread, which sends many at once. It is asked to when the queue is empty, when a
batch of tasks has ended, when much has come together, or when the last time was a while ago, not for each item.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Final

from .. import limits
from .interrupts import Interrupts
from .taskrunner import FAILED, LARGE, Outcome, Payload, Program, TaskRunner, overruled, packed_failure

FLUSH: Final = 0.005
"""Seconds that a result may wait for others."""
_BATCH: Final = 0.001
"""The end of a batch is reported at once, except so soon after the one before."""
_PIECES: Final = 64 * limits.KIB


class Given:
    """Tasks of one group that came together: what they have in common.

    Attributes:
        group: the controller's number of the group.
        program: what runs them.
        timeout: seconds that each may run, or None.
        last: index of the last of them.
        label: what displays call them.
    """

    __slots__ = ("group", "label", "last", "program", "timeout")

    def __init__(self, group: int, program: Program, timeout: float | None, last: int, label: str = "") -> None:
        self.label = label
        self.group = group
        self.program = program
        self.timeout = timeout
        self.last = last


Item = tuple[Given, int, Payload]
"""A task: what it shares with others, its index in its group, its arguments."""

Finished = tuple[Given, int, Outcome, float]
"""A task that has run: its index, what became of it, and the seconds it took."""


class ItemQueue:
    """Items that wait, and those that have run.

    Args:
        runner: runs an item.
        interrupts: is told which item runs.
        on_finished: called in the main thread when :meth:`collect` should be called.
    """

    def __init__(self, runner: TaskRunner, interrupts: Interrupts, on_finished: Callable[[], None]) -> None:
        self._runner = runner
        self._process = runner.process
        self._interrupts = interrupts
        self.on_finished = on_finished
        self._waiting: deque[Item] = deque()
        self._finished: deque[Finished] = deque()
        self._lock = threading.Lock()
        """Held while an item changes its state from waiting to running, or leaves the queue otherwise."""
        self._current: Item | None = None
        self._started = 0.0
        self._collected_at = 0.0
        self._asked = False
        self._sent: SimpleQueue[None] = SimpleQueue()
        self._verdict: tuple[Given, int, BaseException] | None = None

    # --- the agent thread ----------------------------------------------------------------------------------

    def give(self, items: Iterable[Item]) -> bool:
        """Append items; True if none waited, so that the main thread may have to be woken."""
        with self._lock:
            was_empty = not self._waiting
            self._waiting.extend(items)
        return was_empty

    def take_back(self, count: int) -> list[Item]:
        """Up to ``count`` items that have not started, the last first."""
        with self._lock:
            return [self._waiting.pop() for _ in range(min(count, len(self._waiting)))]

    def remove(self, group: int, indices: set[int]) -> tuple[list[Item], list[Item]]:
        """Take these tasks of a group out of the queue: those that waited, and the one that runs if it is one.

        What is in neither list has run, and :meth:`collect` tells or has told of it.
        """
        with self._lock:
            found = [item for item in self._waiting if item[0].group == group and item[1] in indices]
            if found:
                kept = [item for item in self._waiting if item[0].group != group or item[1] not in indices]
                self._waiting.clear()
                self._waiting.extend(kept)
            current = self._current
            runs = current is not None and current[0].group == group and current[1] in indices
            return found, [current] if runs and current is not None else []

    def clear(self) -> None:
        """Forget what waits."""
        with self._lock:
            self._waiting.clear()

    def running(self) -> tuple[Item | None, float]:
        """The item that runs now, and since when (time.monotonic)."""
        with self._lock:
            return self._current, self._started

    def overrule(self, item: Item, verdict: BaseException) -> bool:
        """Interrupt an item if it runs; when it ends, ``verdict`` is what it failed with. Whether it ran."""
        self._verdict = (item[0], item[1], verdict)
        return self._interrupts.send(item)

    def shortest_timeout(self) -> float | None:
        """The shortest time that an item which waits may run, if any has a limit."""
        with self._lock:
            given = {item[0] for item in self._waiting}
        return min((one.timeout for one in given if one.timeout is not None), default=None)

    def collect(self) -> list[Finished]:
        """What has run since the last call."""
        self._asked = False
        self._collected_at = time.monotonic()
        finished = self._finished
        return [finished.popleft() for _ in range(len(finished))]

    @property
    def is_active(self) -> bool:
        """Whether more will be finished."""
        return bool(self._waiting) or self._current is not None

    @property
    def has_finished(self) -> bool:
        """Whether :meth:`collect` would find anything."""
        return bool(self._finished)

    @property
    def age(self) -> float:
        """Seconds since the last :meth:`collect`."""
        return time.monotonic() - self._collected_at

    def release(self) -> None:
        """A large result has been sent: the main thread may go on."""
        self._sent.put(None)

    # --- the main thread -----------------------------------------------------------------------------------

    @property
    def has_items(self) -> bool:
        """Whether items wait."""
        return bool(self._waiting)

    def work(self, may_go_on: Callable[[], bool]) -> None:
        """Run items as long as there are any, and ``may_go_on`` says so."""
        waiting, finished, interrupts = self._waiting, self._finished, self._interrupts
        run, lock, clock = self._runner.run, self._lock, time.monotonic
        install_if_replaced, process = interrupts.install_if_replaced, self._process
        before, size = clock(), 0
        while may_go_on():
            install_if_replaced()
            item: Item | None = None
            outcome: Outcome | None = None
            try:
                with lock:
                    if not waiting:
                        break
                    item = waiting.popleft()
                    self._started = before
                    self._current = item
                    interrupts.current = item
                outcome = run(item[0].program, item[2])
                interrupts.current = self._current = None
            except KeyboardInterrupt:
                # No second one can come so soon.
                interrupts.current = self._current = None
            if process.is_child:
                process.leave_if_child()
            if item is None:
                continue
            if outcome is None or interrupts.hit is item:
                outcome = self._judged(item, outcome)
            now = clock()
            finished.append((item[0], item[1], outcome, now - before))
            before = now
            if outcome[0] == LARGE:
                item = outcome = None  # the agent thread has them; when it has sent them, nobody should
                self._ask()
                self.hold()
                before, size = clock(), 0
                continue
            size += len(outcome[1])
            since = now - self._collected_at
            if since >= FLUSH or size >= _PIECES or (since >= _BATCH and item[1] == item[0].last):
                self._ask()
                size = 0
        item = outcome = interrupts.hit = None  # large arguments must not live until the next item comes
        if finished:
            self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self.on_finished()

    def hold(self) -> None:
        """Wait until a large result has been sent, since its arrays may be those of the namespace."""
        self._sent.get()

    def _judged(self, item: Item, outcome: Outcome | None) -> Outcome:
        if outcome is None:
            outcome = (FAILED, packed_failure(KeyboardInterrupt()))
        verdict = self._verdict
        if verdict is None or verdict[0] is not item[0] or verdict[1] != item[1]:
            return outcome
        return overruled(outcome, verdict[2])
