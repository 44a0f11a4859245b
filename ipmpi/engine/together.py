"""One rank's part of a task that several ranks run together, in its main thread (layer L3).

All of them make or find their communicator first, whatever else has happened meanwhile: a rank that stayed away
would leave the others waiting inside MPI. Only then does each look whether there is still something to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from ..errors import LauncherError, PeerError
from .interrupts import Interrupts
from .taskrunner import FAILED, Outcome, Payload, Program, TaskRunner, overruled, packed_failure


class Teams(Protocol):
    """Communicators of ranks that run a task together: see :class:`ipmpi.engine.comm.Teams`."""

    def join(self, ranks: Sequence[int], serial: int) -> Any:
        """The communicator of ``ranks``; collective."""

    def renew(self, ranks: Sequence[int], serial: int) -> Any:
        """The same, or a new one where the task before has left something; collective."""

    def leave(self, text: str) -> None:
        """End what the task waits in (any thread)."""

    def end(self) -> None:
        """The task is over."""


class Part:
    """One rank's part of a task.

    Args:
        number: group and index of the task.
        program: what it runs.
        ranks: those that run it, in the order of their communicator.
        serial: of the communicator.
        timeout: seconds that it may run, or None.
        done: called in the main thread with the outcome and the seconds it took.

    Attributes:
        started: when its function was called (time.monotonic), or None.
        reason: why it shall not go on, once there is such a reason.
        label: what displays call the task.
        must_end: whether it was interrupted.
    """

    def __init__(
        self,
        number: tuple[int, int],
        program: Program,
        ranks: Sequence[int],
        serial: int,
        timeout: float | None,
        done: Callable[[Outcome, float], None],
    ) -> None:
        self.number = number
        self.program = program
        self.ranks = ranks
        self.serial = serial
        self.timeout = timeout
        self.done = done
        self.started: float | None = None
        self.reason: str | None = None
        self.verdict: BaseException | None = None
        self.label = ""
        self.must_end = False
        self._body: SimpleQueue[Payload | None] = SimpleQueue()

    def set_body(self, payload: Payload) -> None:
        """The arguments have come (agent thread)."""
        self._body.put(payload)

    def call_off(self, reason: str) -> None:
        """It is pointless to start, or to wait for the arguments (agent thread)."""
        self.reason = reason
        self._body.put(None)

    def body(self) -> Payload:
        """The arguments, as soon as they are there (main thread); PeerError if it was called off."""
        payload = None if self.reason is not None else self._body.get()
        if payload is None:
            raise PeerError(self.reason)
        return payload


class Performer:
    """Runs parts of tasks in the main thread.

    Args:
        make_teams: called once, in the main thread, when the first task comes; None without a communicator.
    """

    def __init__(
        self, runner: TaskRunner, interrupts: Interrupts, rank: int, make_teams: Callable[[], Teams | None]
    ) -> None:
        self.rank = rank
        self._runner = runner
        self._interrupts = interrupts
        self._make_teams = make_teams
        self._teams: Teams | None = None
        self._lock = threading.Lock()
        self._running: Part | None = None
        self.is_joining = False
        """Whether the main thread is inside MPI for us, where no interrupt reaches it."""

    def leave(self, part: Part, reason: str) -> None:
        """Call a part off, also when it has begun: its communicator's calls raise PeerError (agent thread)."""
        part.call_off(reason)
        with self._lock:
            if self._running is part and self._teams is not None:
                self._teams.leave(reason)

    def overrule(self, part: Part, verdict: BaseException) -> bool:
        """Interrupt a part if it runs; when it ends, ``verdict`` is what it failed with. Whether it ran."""
        part.verdict = verdict
        return self._interrupts.send(part)

    def perform(self, part: Part) -> tuple[Outcome, float]:
        """Do this rank's part (main thread): what became of it, and the seconds it took."""
        began = time.monotonic()
        try:
            self._join(part)
        except BaseException as error:
            return (FAILED, packed_failure(error)), 0.0
        part.started = time.monotonic()
        outcome: Outcome = (FAILED, packed_failure(KeyboardInterrupt()))
        try:
            self._begin(part)
            outcome = self._run(part)
            self._end()
        except KeyboardInterrupt:
            self._end()
        if self._interrupts.hit is part and part.verdict is not None:
            outcome = overruled(outcome, part.verdict)
        return outcome, time.monotonic() - began

    def _join(self, part: Part) -> None:
        self.is_joining = True
        try:
            if self._teams is None:
                self._teams = self._make_teams()
            if self._teams is None:
                raise LauncherError(
                    "this engine has no communicator with others; start the engines with mpirun or srun, "
                    "without --mpi=none, for tasks on several ranks"
                )
            self._teams.join(part.ranks, part.serial)
        finally:
            self.is_joining = False

    def _begin(self, part: Part) -> None:
        with self._lock:
            self._running = part
            self._interrupts.current = part

    def _run(self, part: Part) -> Outcome:
        assert self._teams is not None
        try:
            comm = self._teams.renew(part.ranks, part.serial)
            payload = part.body()
        except Exception as error:  # also of MPI: a rank has died
            return FAILED, packed_failure(error)
        return self._runner.run_together(part.program, comm, payload, wanted=part.ranks[0] == self.rank)

    def _end(self) -> None:
        with self._lock:
            self._interrupts.current = None
            self._running = None
            if self._teams is not None:
                self._teams.end()
