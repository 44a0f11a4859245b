"""The main thread of an engine: it runs user code, and nothing else (layer L3).

Signals, plots and MPI programs expect the main thread. The agent thread, which owns all traffic, hands it jobs,
which are done in their order: commands, and parts of tasks that several ranks run together. While there is none it
works on a queue of task items. So a command waits for the end of one item at most.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple

from .. import limits
from ..protocol import operations
from ..protocol.frames import Buffer, size_of
from .interrupts import Interrupts
from .itemqueue import Item, ItemQueue
from .namespace import Answer, Namespace
from .taskrunner import LARGE, TaskRunner
from .together import Part, Performer, Teams


class Job(NamedTuple):
    """An operation, and whom to tell of the answer (called in the main thread)."""

    method: str
    operation: bytes
    body: Sequence[Buffer]
    done: Callable[[Answer], None]


class _Wake:
    """A job that is nothing: there are new items."""


_WAKE = _Wake()


class Rank:
    """The namespace and the thread that works on it.

    Args:
        on_signal: called for SIGINT, SIGTERM or SIGUSR1 from outside, with the signal's name.
        number: this rank's number in its set.
        make_teams: called in the main thread when the first task on several ranks comes.

    Attributes:
        runner: knows the functions of tasks.
        items: the task items.
        performer: runs parts of tasks on several ranks.
        interrupts: what the main thread does now.
    """

    def __init__(
        self,
        namespace: Namespace,
        on_signal: Callable[[str], None],
        number: int = 0,
        make_teams: Callable[[], Teams | None] = lambda: None,
    ) -> None:
        self.namespace = namespace
        self.interrupts = Interrupts()
        self.runner = TaskRunner(namespace)
        self.items = ItemQueue(self.runner, self.interrupts, lambda: None)
        self.performer = Performer(self.runner, self.interrupts, number, make_teams)
        self._on_signal = on_signal
        self._inbox: SimpleQueue[Job | Part | _Wake | None] = SimpleQueue()
        self._commands = 0
        self._parts = 0
        self._interrupt_next = False
        self._lock = threading.Lock()
        """Held while a command changes its state from waiting to running."""

    @property
    def is_busy(self) -> bool:
        """Whether user code runs now, or the main thread waits for other ranks."""
        return self.interrupts.current is not None or self.performer.is_joining

    @property
    def is_wanted(self) -> bool:
        """Whether something waits for the main thread, while that waits for its own large answer to go out."""
        return self._commands > 0 or self._parts > 0 or self.items.has_items

    # --- the agent thread ----------------------------------------------------------------------------------

    def submit(self, job: Job | Part) -> None:
        """Queue a command, or a part of a task (any thread)."""
        with self._lock:
            if isinstance(job, Job):
                self._commands += 1
            else:
                self._parts += 1
        self._inbox.put(job)

    def give(self, items: Iterable[Item]) -> None:
        """Queue task items, to be run while there are no jobs."""
        if self.items.give(items):
            self._inbox.put(_WAKE)

    def stop(self) -> None:
        """Let :meth:`run` return after what runs now (any thread)."""
        self._inbox.put(None)
        self.items.release()

    def interrupt(self) -> None:
        """KeyboardInterrupt in the command that runs now, if one does; never in a task.

        A command that has been handed over and not started, or waits for a task item to end, is answered as if it
        had been interrupted at once.
        """
        with self._lock:
            current = self.interrupts.current
            if isinstance(current, Job):
                self.interrupts.send(current)
            elif self._commands:
                self._interrupt_next = True

    def interrupt_all(self) -> None:
        """KeyboardInterrupt in whatever runs now."""
        current = self.interrupts.current
        if current is not None:
            self.interrupts.send(current)

    # --- the main thread -----------------------------------------------------------------------------------

    def install_signals(self) -> None:
        """Take SIGINT, SIGTERM, and SIGUSR1: job scripts have it sent when the end of the job is near."""
        signal.signal(signal.SIGINT, self._sigint)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._told)

    def _sigint(self, _number: int, _frame: FrameType | None) -> None:
        if not self.interrupts.arrived():
            self._on_signal("SIGINT")

    def _told(self, number: int, _frame: FrameType | None) -> None:
        self._on_signal(signal.Signals(number).name)

    def run(self) -> None:
        """Work until :meth:`stop`."""
        inbox, items = self._inbox, self.items
        while True:
            if items.has_items:
                items.work(inbox.empty)
            job = inbox.get()
            if job is None:
                return
            if isinstance(job, Job):
                self._do(job)
            elif isinstance(job, Part):
                self._perform(job)
            job = None  # large arguments must not live until the next command comes

    def _do(self, job: Job) -> None:
        answer = self._run(job)
        done = job.done
        del job
        self.runner.names_changed()
        with self._lock:
            self._commands -= 1
            self._interrupt_next = False
        large = size_of(answer.body) > limits.INLINE_BODY
        if not large:
            # The agent thread may come to it when the arrays in it have changed.
            answer = answer._replace(body=[bytes(buffer) for buffer in answer.body])
        done(answer)
        if large:
            del answer
            self.items.hold()

    def _run(self, job: Job) -> Answer:
        answer = _INTERRUPTED
        try:
            with self._lock:
                starts = not self._interrupt_next
                if starts:
                    self.interrupts.current = job
            if starts:
                answer = self.namespace.run(job.method, job.operation, job.body)
            self.interrupts.current = None
        except KeyboardInterrupt:
            # No second one can come so soon.
            self.interrupts.current = None
        return answer

    def _perform(self, part: Part) -> None:
        with self._lock:
            self._parts -= 1
        outcome, seconds = self.performer.perform(part)
        part.done(outcome, seconds)
        if outcome[0] == LARGE:
            del outcome
            self.items.hold()


_INTERRUPTED = Answer(
    False, operations.encode(operations.Failed("KeyboardInterrupt", "", "KeyboardInterrupt\n")), []
)
