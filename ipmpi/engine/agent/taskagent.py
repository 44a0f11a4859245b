"""The tasks of one rank, in its node agent.

It sends the rank items, and their results up, many at a time. No timer runs while the rank is idle, nor while it
runs a long item and no results wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from ... import limits
from ...errors import TaskAborted, TaskTimeout
from ...protocol import messages as m, packed, rankmessages as rm
from ...protocol.frames import Buffer
from ...transport.loop import Loop, Timer
from ..rank.outcomes import packed_failure
from .batches import report_of, reports, returned, single
from .itembook import Finished, Item, ItemBatch, ItemBook
from .largestreams import LargeAnswer

_BODIES = 2
"""Large arguments requested at a time: those of the running task and of the next one."""

_SHORTEST_CHECK = 0.005
_CHECK_AGAIN = 1.0
"""Seconds after which a task that continues after its timeout is interrupted again."""


class ReportChannel(Protocol):
    """Receives messages about tasks: the agent above, or the scheduler of the set."""

    def report(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """Send a message of a rank."""

    def report_large(self, message: m.LargeTaskResult, answer: LargeAnswer) -> None:
        """Send a large result."""


class TaskAgent:
    """Task items of one rank."""

    def __init__(self, loop: Loop, items: ItemBook, number: int, channel: ReportChannel) -> None:
        self._loop = loop
        self._items = items
        self._number = number
        self._channel = channel
        self._large: deque[Item] = deque()
        self._awaited: dict[tuple[int, int], ItemBatch] = {}
        self._here: set[tuple[int, int]] = set()
        self._watch_timer: Timer | None = None
        self._deadline_timer: Timer | None = None
        self._overruled: tuple[int, BaseException] | None = None
        """The item that was interrupted, and the exception that it fails with."""
        self._given_up: set[tuple[int, int]] = set()
        """Items that were reported as ended although they still run."""
        self._retired = False

    # --- from above ----------------------------------------------------------------------------------------

    def give(self, message: m.GiveTasks, body: Sequence[Buffer]) -> None:
        """Tasks to run."""
        if self._retired:
            return
        options = message.options
        given = ItemBatch(message.group, options.operation, options.timeout, options.label)
        indices = packed.unpack(message.indices)
        if message.lengths:
            self._items.give(given, indices, message.lengths, body)
            self._given(given)
            return
        self._large.extend((given, index) for index in indices)
        self._ask()

    def take_back(self, count: int) -> None:
        """Return ``count`` items to the scheduler, from the end of the queue."""
        items: list[Item] = []
        while self._large and len(items) < count:
            items.append(self._large.pop())
        taken, finished = self._items.take_back(count - len(items))
        self._report(finished)
        self._give_up(items + taken, "taken")

    def cancel(self, group: int, indices: set[int], *, interrupt: bool) -> None:
        """Remove these tasks from the queue; with ``interrupt``, also interrupt them."""
        found, running, finished = self._items.remove(group, indices)
        self._report(finished)
        large = [(given, index) for given, index in self._large if given.group == group and index in indices]
        if large:
            self._large = deque(one for one in self._large if one not in large)
        for index in sorted(indices):
            given = self._awaited.pop((group, index), None)
            if given is not None:
                large.append((given, index))
        self._give_up(found + large, "cancelled")
        for item in running:
            if not interrupt:
                self._tell(returned([item], self._number, "running"))
            else:
                serial = self._items.serial_of(item)
                self._overrule(serial, TaskAborted("the task was cancelled while it ran"))

    def waits_for(self, group: int, index: int) -> bool:
        """Whether the body of this task was asked for and is still wanted."""
        return (group, index) in self._awaited

    def body_arrived(self, group: int, index: int, sizes: list[int], descriptor: int) -> None:
        """The body that was asked for, in a file in memory."""
        given = self._awaited.pop((group, index), None)
        if given is not None and not self._retired:
            self._here.add((group, index))
            self._items.give_large(given, index, sizes, descriptor)
            self._given(given)

    def body_broken(self, group: int, index: int, why: str) -> None:
        """The body that was asked for will not come; ``why`` is for the user."""
        given = self._awaited.pop((group, index), None)
        if given is not None:
            self._give_up([(given, index)], "broken", f"The last time: {why}.")

    def retire(self) -> None:
        """The engine was ended: it runs no tasks, and sends no results."""
        self._retired = True
        for timer in (self._watch_timer, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        self._large.clear()
        self._awaited.clear()
        self._items.clear()

    # --- items ---------------------------------------------------------------------------------------------

    def _given(self, given: ItemBatch) -> None:
        self._watch()
        if given.timeout is not None:
            self._check_at(self._loop.now() + given.timeout)

    def _ask(self) -> None:
        """Request the bodies of the next large tasks."""
        while self._large and len(self._awaited) + len(self._here) < _BODIES:
            given, index = self._large.popleft()
            self._awaited[given.group, index] = given
            self._channel.report(m.WantTaskBody(given.group, index, [self._number]), ())

    def _give_up(self, items: list[Item], why: str, text: str = "") -> None:
        for given, index in items:
            self._here.discard((given.group, index))
        self._tell(returned(items, self._number, why, text))
        self._ask()

    def _tell(self, found: Sequence[tuple[m.AnyMessage, Sequence[Buffer]]]) -> None:
        for message, body in found:
            self._channel.report(message, body)

    # --- results -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Start a timer, so that no result waits behind a long item."""
        if self._watch_timer is None:
            self._watch_timer = self._loop.call_later(limits.TASK_RESULT_WAITS, self._watch_due)

    def _watch_due(self) -> None:
        self._watch_timer = None
        # Without results for this time, the running item is a long one: its end is reported at once.
        if self._items.has_finished or self._items.age < limits.TASK_RESULT_WAITS:
            self.collect()

    def collect(self) -> None:
        """Report what has run."""
        runs, are_more = ([], True) if self._given_up else self._items.take_runs()
        if not self._retired:
            self._tell([report_of(run, self._number) for run in runs])
        if are_more:
            self._report(self._items.collect())
        if self._items.is_active:
            self._watch()

    def _report(self, finished: list[Finished]) -> None:
        finished = self._came_back(finished)
        if not finished or self._retired:
            return
        if self._here:
            self._here.difference_update((given.group, index) for given, index, _, _ in finished)
        self._tell(reports(finished, self._number))
        self._ask()

    def _came_back(self, finished: list[Finished]) -> list[Finished]:
        """Leave out items that were already reported as ended."""
        if not self._given_up:
            return finished
        late = [one for one in finished if (one[0].group, one[1]) in self._given_up]
        for given, index, _, _ in late:
            self._let_go(given.group, index)
        return [one for one in finished if one not in late]

    def _let_go(self, group: int, index: int) -> bool:
        """Return whether this item, which has ended now, was already reported as ended."""
        if (group, index) not in self._given_up:
            return False
        self._given_up.discard((group, index))
        self._channel.report(m.TaskHolds(self._number, ""), ())
        return True

    def large_result(self, message: rm.ItemDone, answer: LargeAnswer) -> None:
        """An item has ended with a large result, which is arriving."""
        self.collect()
        item = self._items.ended(message.serial)
        if item is None or self._retired:
            answer.drop()
            return
        given, index = item
        self._here.discard((given.group, index))
        if self._let_go(given.group, index):
            answer.drop()
        elif message.hit and isinstance(verdict := self._items.verdict_on(message.serial), TaskTimeout):
            answer.drop()
            failure = packed_failure(verdict)
            self._tell([single(given.group, index, self._number, False, failure, message.seconds)])
        else:
            self.send_large(given.group, index, answer, message.seconds)
        self._ask()

    def send_large(self, group: int, index: int, answer: LargeAnswer, seconds: float) -> None:
        """Send a large result."""
        message = m.LargeTaskResult(group, index, self._number, seconds, answer.sizes)
        self._channel.report_large(message, answer)

    # --- tasks that have to end ------------------------------------------------------------------------------

    def _overrule(self, serial: int, verdict: BaseException) -> None:
        """Interrupt an item, repeatedly; report it as ended if it does not end in time."""
        if self._items.overrule(serial, verdict) and (self._overruled is None or self._overruled[0] != serial):
            self._overruled = serial, verdict
            self._loop.call_later(limits.TASK_GRACE, lambda: self._give_up_on(serial))

    def _give_up_on(self, serial: int) -> None:
        self.collect()
        overruled = self._overruled
        current, item, started = self._items.running()
        if overruled is None or overruled[0] != serial or current != serial or item is None or self._retired:
            return
        given, index = item
        self._given_up.add((given.group, index))
        self._here.discard((given.group, index))
        self._channel.report(m.TaskHolds(self._number, given.label), ())
        failure = packed_failure(not_ending(overruled[1]))
        self._tell([single(given.group, index, self._number, False, failure, self._loop.now() - started)])

    # --- timeouts ------------------------------------------------------------------------------------------

    def _check_at(self, when: float) -> None:
        """Check the running item at ``when`` or earlier."""
        timer = self._deadline_timer
        if timer is not None and timer.when > when:
            timer.cancel()
            timer = None
        if timer is None:
            delay = max(_SHORTEST_CHECK, when - self._loop.now())
            self._deadline_timer = self._loop.call_later(delay, self._check)

    def _check(self) -> None:
        self._deadline_timer = None
        now = self._loop.now()
        serial, item, started = self._items.running()
        if item is not None and item[0].timeout is not None:
            if now - started >= item[0].timeout:
                self._overrule(serial, timed_out(item[0].timeout))
                self._check_at(now + _CHECK_AGAIN)
            else:
                self._check_at(started + item[0].timeout)
        shortest = self._items.shortest_timeout()
        if shortest is not None:
            self._check_at(now + shortest)


def timed_out(timeout: float) -> TaskTimeout:
    """Return the exception of a task that exceeded its timeout."""
    return TaskTimeout(f"the task ran for longer than its timeout of {timeout:g} seconds, and was interrupted")


def not_ending(verdict: BaseException) -> BaseException:
    """Return the exception of a task that did not end when it was interrupted."""
    return type(verdict)(
        f"{verdict}; it has not ended {limits.TASK_GRACE:g} seconds later, and this engine gets no other task"
        " until it does (queue_status() shows what holds it)"
    )
