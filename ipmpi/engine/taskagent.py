"""The agent thread's part in the tasks of one rank (layer L4).

It hands items to the main thread, and sends their results up many at a time. No timer runs while the rank is idle,
nor while it works on a long item and nothing else is to be told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .. import limits
from ..errors import TaskAborted, TaskTimeout
from ..protocol import messages as m, packed
from ..protocol.frames import Buffer, size_of
from ..transport.loop import Loop, Timer
from .batches import items_of, reports, returned, single
from .itemqueue import FLUSH, Finished, Given, Item
from .rank import Rank
from .taskrunner import LARGE, packed_failure

_BODIES = 2
"""Large arguments that a rank asks for at a time: those of the task that runs, and of the next one."""

_SHORTEST_CHECK = 0.005
_CHECK_AGAIN = 1.0
"""Seconds after which a task that went on after its time was over is interrupted again."""


class Way(Protocol):
    """Where an agent's messages go: to the rank above, or to the farm of the set."""

    def report(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """Send a message of this rank's."""

    def report_large(self, message: m.TaskResult, body: Sequence[Buffer], sent: Callable[[], None]) -> None:
        """Send a large result; ``sent`` is called once, when its buffers are not needed any more."""


class TaskAgent:
    """Task items of this rank.

    Args:
        interrupt: called when an interrupt was sent, to see to it that it is heard.
    """

    def __init__(self, loop: Loop, rank: Rank, number: int, way: Way, interrupt: Callable[[], None]) -> None:
        self._loop = loop
        self._rank = rank
        self._items = rank.items
        self._number = number
        self._way = way
        self._sent_interrupt = interrupt
        self._new: list[Item] = []
        self._large: deque[tuple[Given, int]] = deque()
        self._awaited: dict[tuple[int, int], Given] = {}
        self._here: set[tuple[int, int]] = set()
        self._watch_timer: Timer | None = None
        self._deadline_timer: Timer | None = None
        self._overruled: tuple[Item, BaseException] | None = None
        """The item that was told to end, and what it fails with."""
        self._given_up: set[tuple[int, int]] = set()
        """Items whose end was told although they still run."""
        self._properties = rank.namespace.properties_version
        self._retired = False
        self._items.on_finished = lambda: loop.call_now(self._collect)

    # --- what comes from above -----------------------------------------------------------------------------

    def give(self, message: m.GiveTasks, body: Sequence[Buffer]) -> None:
        """Tasks to run."""
        if self._retired:
            return
        program = self._rank.runner.program(message.options.operation)
        if message.lengths:
            self._queue(items_of(message, body, program))
            return
        for index in packed.unpack(message.indices):
            given = Given(message.group, program, message.options.timeout, index, message.options.label)
            self._large.append((given, index))
        self._ask()

    def take_back(self, count: int) -> None:
        """Return what would run last."""
        self._hand_over()
        items: list[Item] = []
        while self._large and len(items) < count:
            given, index = self._large.pop()
            items.append((given, index, b""))
        self._give_up(items + self._items.take_back(count - len(items)), "taken")

    def cancel(self, group: int, indices: set[int], *, interrupt: bool) -> None:
        """Do not run these tasks, or interrupt them."""
        self._hand_over()
        found, running = self._items.remove(group, indices)
        large = [(given, index) for given, index in self._large if given.group == group and index in indices]
        if large:
            self._large = deque(one for one in self._large if one not in large)
        for index in sorted(indices):
            given = self._awaited.pop((group, index), None)
            if given is not None:
                large.append((given, index))
        self._give_up(found + [(given, index, b"") for given, index in large], "cancelled")
        for item in running:
            if not interrupt:
                self._tell(returned([item], self._number, "running"))
            else:
                self._overrule(item, TaskAborted("the task was cancelled while it ran"))

    def waits_for(self, group: int, index: int) -> bool:
        """Whether the body of this task was asked for and is still wanted."""
        return (group, index) in self._awaited

    def body_arrived(self, group: int, index: int, body: list[Buffer]) -> None:
        """The body that was asked for."""
        given = self._awaited.pop((group, index), None)
        if given is not None and not self._retired:
            self._here.add((group, index))
            self._queue([(given, index, body)])

    def body_broken(self, group: int, index: int) -> None:
        """The body that was asked for will not come."""
        given = self._awaited.pop((group, index), None)
        if given is not None:
            self._give_up([(given, index, b"")], "broken")

    def retire(self) -> None:
        """This engine was ended: nothing runs here, and nothing is told any more."""
        self._retired = True
        self._new.clear()
        self._large.clear()
        self._awaited.clear()
        self._items.clear()

    def command_answered(self) -> None:
        """A command has ended here."""
        version = self._rank.namespace.properties_version
        if version != self._properties:
            self._properties = version
            self._way.report(m.PropertiesChanged([self._number]), ())

    # --- items ---------------------------------------------------------------------------------------------

    def _queue(self, items: list[Item]) -> None:
        # After the others' share has been sent: once user code runs here, it also has the GIL.
        if items:
            self._new += items
            self._loop.call_at_turn_end(self._hand_over)

    def _hand_over(self) -> None:
        items, self._new = self._new, []
        if not items:
            return
        self._rank.give(items)
        self._watch()
        timeouts = {item[0].timeout for item in items}
        for timeout in timeouts:
            if timeout is not None:
                self._check_at(self._loop.now() + timeout)

    def _ask(self) -> None:
        """Ask for the bodies of large tasks, but not for more than are soon needed."""
        while self._large and len(self._awaited) + len(self._here) < _BODIES:
            given, index = self._large.popleft()
            self._awaited[given.group, index] = given
            self._way.report(m.WantTaskBody(given.group, index, [self._number]), ())

    def _give_up(self, items: list[Item], why: str) -> None:
        for given, index, _ in items:
            self._here.discard((given.group, index))
        self._tell(returned(items, self._number, why))
        self._ask()

    def _tell(self, found: Sequence[tuple[m.AnyMessage, Sequence[Buffer]]]) -> None:
        for message, body in found:
            self._way.report(message, body)

    # --- results -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """See to it that no result waits behind a long item."""
        if self._watch_timer is None:
            self._watch_timer = self._loop.call_later(FLUSH, self._watch_due)

    def _watch_due(self) -> None:
        self._watch_timer = None
        # Where nothing has happened for so long, the item that runs is a long one: its end is reported at once.
        if self._items.has_finished or self._items.age < FLUSH:
            self._collect()

    def _collect(self) -> None:
        """Report what has run."""
        finished = self._came_back(self._items.collect())
        if self._items.is_active:
            self._watch()
        if not finished:
            return
        found, large = reports(finished, self._number)
        if self._retired:
            for _ in large:
                self._items.release()
            return
        if self._here:
            self._here.difference_update((given.group, index) for given, index, _, _ in finished)
        self._tell(found)
        for given, index, (_, body), seconds in large:
            self.send_large(given.group, index, body, seconds)
        self._ask()

    def _came_back(self, finished: list[Finished]) -> list[Finished]:
        """Leave out those whose end was told before."""
        if not self._given_up:
            return finished
        late = [one for one in finished if (one[0].group, one[1]) in self._given_up]
        for given, index, (kind, _), _ in late:
            self._given_up.discard((given.group, index))
            if kind == LARGE:
                self._items.release()
        if late:
            self._way.report(m.TaskHolds(self._number, ""), ())
        return [one for one in finished if one not in late]

    def send_large(self, group: int, index: int, body: list[Buffer], seconds: float) -> None:
        """Send a large result; the main thread waits for that."""
        sizes = [size_of([buffer]) for buffer in body]
        message = m.TaskResult(group, index, self._number, seconds, sizes)
        self._way.report_large(message, body, self._items.release)

    # --- tasks that have to end ------------------------------------------------------------------------------

    def _overrule(self, item: Item, verdict: BaseException) -> None:
        """Interrupt an item, again if it was before; give it up when it has had time enough to end."""
        if self._items.overrule(item, verdict):
            self._sent_interrupt()
            if self._overruled is None or self._overruled[0] is not item:
                self._overruled = item, verdict
                self._loop.call_later(limits.TASK_GRACE, lambda: self._give_up_on(item))

    def _give_up_on(self, item: Item) -> None:
        overruled = self._overruled
        current, started = self._items.running()
        if overruled is None or overruled[0] is not item or current is not item or self._retired:
            return
        given, index, _ = item
        self._given_up.add((given.group, index))
        self._here.discard((given.group, index))
        self._way.report(m.TaskHolds(self._number, given.label), ())
        failure = packed_failure(not_ending(overruled[1]))
        self._tell([single(given.group, index, self._number, False, failure, self._loop.now() - started)])

    # --- timeouts ------------------------------------------------------------------------------------------

    def _check_at(self, when: float) -> None:
        """Look at what runs at ``when``, if not before."""
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
        item, started = self._items.running()
        if item is not None and item[0].timeout is not None:
            if now - started >= item[0].timeout:
                self._overrule(item, timed_out(item[0].timeout))
                self._check_at(now + _CHECK_AGAIN)
            else:
                self._check_at(started + item[0].timeout)
        shortest = self._items.shortest_timeout()
        if shortest is not None:
            self._check_at(now + shortest)


def timed_out(timeout: float) -> TaskTimeout:
    """What a task fails with that ran for too long."""
    return TaskTimeout(f"the task ran for longer than its timeout of {timeout:g} seconds, and was interrupted")


def not_ending(verdict: BaseException) -> BaseException:
    """The same about a task that did not end when it was interrupted."""
    return type(verdict)(
        f"{verdict}; it has not ended {limits.TASK_GRACE:g} seconds later, and this engine gets no other task"
        " until it does (queue_status() shows what holds it)"
    )
