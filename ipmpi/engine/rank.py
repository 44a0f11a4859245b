"""The main thread of an engine: it runs user code, and nothing else (layer L3).

Signals, plots and MPI programs expect the main thread. The agent thread, which owns all traffic, hands it one
operation after the other and hears of each answer.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple

from ..protocol import operations
from ..protocol.frames import Buffer
from .namespace import Answer, Namespace

_ECHO = 1.0
"""Seconds after a signal of ours in which another SIGINT is taken for an echo of it, not for a Ctrl-C."""


class Job(NamedTuple):
    """An operation, and whom to tell of the answer (called in the main thread)."""

    method: str
    operation: bytes
    body: Sequence[Buffer]
    done: Callable[[Answer], None]


class Rank:
    """The namespace and the thread that works on it.

    Args:
        on_signal: called for SIGINT or SIGTERM from outside, with the signal's name.
    """

    def __init__(self, namespace: Namespace, on_signal: Callable[[str], None]) -> None:
        self.namespace = namespace
        self._on_signal = on_signal
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._busy = False
        self._outstanding = 0
        self._interrupt_next = False
        self._interrupts = 0
        self._ours_until = 0.0
        self._lock = threading.Lock()
        self._thread = threading.main_thread().ident

    @property
    def is_busy(self) -> bool:
        """Whether user code runs now."""
        return self._busy

    def submit(self, job: Job) -> None:
        """Queue an operation (any thread)."""
        with self._lock:
            self._outstanding += 1
        self._inbox.put(job)

    def stop(self) -> None:
        """Let :meth:`run` return after what runs now (any thread)."""
        self._inbox.put(None)

    def interrupt(self) -> None:
        """KeyboardInterrupt in what runs now, if anything does (any thread).

        A real signal, sent to the main thread: it also ends a sleep or a read. The lock keeps it from reaching
        the next command, or no command at all.
        """
        with self._lock:
            if self._busy:
                self._interrupts += 1
                self._send_signal()
            elif self._outstanding:
                self._interrupt_next = True  # it has been handed over and is about to start

    def interrupt_again(self) -> bool:
        """Send the signal once more if the interrupt has not been raised; False when it has, or is pointless.

        Python looks for signals between instructions. One that comes between that look and the beginning of a
        sleep, or of a read, would be noticed at its end only; one more cuts it short.
        """
        with self._lock:
            if not self._busy or not self._interrupts:
                return False
            self._send_signal()
            return True

    def _send_signal(self) -> None:
        self._ours_until = time.monotonic() + _ECHO
        if self._thread is not None:
            signal.pthread_kill(self._thread, signal.SIGINT)

    def install_signals(self) -> None:
        """Take SIGINT and SIGTERM (main thread)."""
        signal.signal(signal.SIGINT, self._sigint)
        signal.signal(signal.SIGTERM, self._sigterm)

    def _sigint(self, _number: int, _frame: FrameType | None) -> None:
        if self._interrupts:
            # Not reset anywhere else: a signal that comes after the command has ended is still one of ours.
            self._interrupts -= 1
            if self._busy:
                raise KeyboardInterrupt
            return
        if time.monotonic() >= self._ours_until:
            self._on_signal("SIGINT")

    def _sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._on_signal("SIGTERM")

    def run(self) -> None:
        """Work until :meth:`stop` (main thread)."""
        while True:
            job = self._inbox.get()
            if job is None:
                return
            try:
                answer = self._run(job)
            except KeyboardInterrupt:
                answer = self._interrupted()
            done = job.done
            del job  # large arguments must not live until the next command comes
            with self._lock:
                self._outstanding -= 1
                self._interrupt_next = False
            done(answer)
            del answer

    def _run(self, job: Job) -> Answer:
        with self._lock:
            self._busy = not self._interrupt_next
        if not self._busy:
            return _INTERRUPTED
        try:
            return self.namespace.run(job.method, job.operation, job.body)
        finally:
            self._calm_down()

    def _interrupted(self) -> Answer:
        self._calm_down()
        return _INTERRUPTED

    def _calm_down(self) -> None:
        """No interrupt may come after this.

        The lock waits for one that is being sent; it has then arrived before the next command can start. An
        interrupt that hits in here only takes another round.
        """
        while True:
            try:
                with self._lock:
                    self._busy = False
                return
            except KeyboardInterrupt:
                continue


_INTERRUPTED = Answer(
    False, operations.encode(operations.Failed("KeyboardInterrupt", "", "KeyboardInterrupt\n")), []
)
