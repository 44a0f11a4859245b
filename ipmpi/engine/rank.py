"""The main thread of an engine: it runs user code, and nothing else (layer L3).

Signals, plots and MPI programs expect the main thread. The agent thread, which owns all traffic, hands it one
operation after the other and hears of each answer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple

from ..protocol import operations
from ..protocol.frames import Buffer
from .namespace import Answer, Namespace


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
        self._interrupting = False
        self._lock = threading.Lock()
        self._thread = threading.main_thread().ident

    @property
    def is_busy(self) -> bool:
        """Whether user code runs now."""
        return self._busy

    def submit(self, job: Job) -> None:
        """Queue an operation (any thread)."""
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
            if self._busy and self._thread is not None:
                self._interrupting = True
                signal.pthread_kill(self._thread, signal.SIGINT)

    def install_signals(self) -> None:
        """Take SIGINT and SIGTERM (main thread)."""
        signal.signal(signal.SIGINT, self._sigint)
        signal.signal(signal.SIGTERM, self._sigterm)

    def _sigint(self, _number: int, _frame: FrameType | None) -> None:
        if self._interrupting:
            self._interrupting = False
            if self._busy:
                raise KeyboardInterrupt
            return
        self._on_signal("SIGINT")

    def _sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._on_signal("SIGTERM")

    def run(self) -> None:
        """Work until :meth:`stop` (main thread)."""
        while True:
            job = self._inbox.get()
            if job is None:
                return
            answer = self._run(job)
            done = job.done
            del job  # large arguments must not live until the next command comes
            done(answer)
            del answer

    def _run(self, job: Job) -> Answer:
        try:
            self._busy = True
            answer = self.namespace.run(job.method, job.operation, job.body)
        except KeyboardInterrupt:
            answer = _INTERRUPTED
        finally:
            self._calm_down()
        return answer

    def _calm_down(self) -> None:
        """No interrupt may come after this; one that is under way is waited for."""
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
