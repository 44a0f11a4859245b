"""One rank's part of a gang task, in its main thread.

All ranks of the task join their communicator first, whatever has happened meanwhile: a missing rank would leave
the others waiting inside MPI. Only then each checks whether the task is still to be run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...errors import LauncherError, PeerError
from .controlblock import CURRENT, JOINING, LEAVE, SINCE, ControlBlock
from .interrupts import Interrupts
from .outcomes import FAILED, Outcome, Payload, packed_failure
from .taskrunner import Program, TaskRunner


class CommunicatorSource(Protocol):
    """The communicators of gang tasks: see :class:`ipmpi.engine.mpi.comm.GangCommunicators`."""

    def join(self, ranks: Sequence[int], serial: int, has_lost: bool) -> Any:
        """Return the communicator of ``ranks``; collective."""

    def renew(self, ranks: Sequence[int], serial: int, has_lost: bool) -> Any:
        """Return the same, or a new one if the previous task has left something in it; collective."""

    def end(self) -> None:
        """The task has ended."""


MakeTeams = Callable[[Callable[[], str | None]], CommunicatorSource | None]
"""Creates the communicators; its argument returns why to leave the current task, or None."""


class GangPart:
    """One rank's part of a task.

    Args:
        serial: number of the part at this rank.
        program: what it runs.
        ranks: its ranks, in the order of their communicator.
        communicator: number of the communicator.
        payload: the arguments; None while they have not arrived.
        has_lost: whether a rank of the set has died.

    Attributes:
        reason: why it must not continue, or None.
    """

    def __init__(
        self,
        serial: int,
        program: Program,
        ranks: Sequence[int],
        communicator: int,
        payload: Payload | None,
        has_lost: bool = False,
    ) -> None:
        self.serial = serial
        self.program = program
        self.ranks = ranks
        self.communicator = communicator
        self.payload = payload
        self.has_lost = has_lost
        self.reason: str | None = None


class GangMember:
    """Runs parts of tasks.

    Args:
        make_teams: called once, for the first task; returns None if the ranks are not joined.
        wait: called while arguments are missing: returns after a message of the agent; False: it has ended.
    """

    def __init__(
        self,
        runner: TaskRunner,
        block: ControlBlock,
        interrupts: Interrupts,
        rank: int,
        make_teams: MakeTeams,
        wait: Callable[[], bool],
    ) -> None:
        self.rank = rank
        self._runner = runner
        self._block = block
        self._interrupts = interrupts
        self._make_teams = make_teams
        self._wait = wait
        self._teams: CommunicatorSource | None = None
        self._running: GangPart | None = None

    def left(self) -> str | None:
        """Return why to leave the running part; None if there is no reason."""
        part = self._running
        if part is None:
            return None
        return self._block.text if self._block.words[LEAVE] == part.serial else part.reason

    def perform(self, part: GangPart) -> tuple[Outcome, float]:
        """Run this rank's part; return the outcome and the run time in seconds."""
        began, words = time.monotonic(), self._block.words
        words[JOINING] = 1
        try:
            self._join(part)
        except BaseException as error:
            return (FAILED, packed_failure(error)), 0.0
        finally:
            words[JOINING] = 0
        outcome: Outcome = (FAILED, packed_failure(KeyboardInterrupt()))
        try:
            self._running = part
            words[SINCE] = time.monotonic_ns()
            words[CURRENT] = part.serial
            outcome = self._run(part)
            words[CURRENT] = 0
        except KeyboardInterrupt:
            words[CURRENT] = 0
        self._running = None
        if self._teams is not None:
            self._teams.end()
        return outcome, time.monotonic() - began

    def _join(self, part: GangPart) -> None:
        if self._teams is None:
            self._teams = self._make_teams(self.left)
        if self._teams is None:
            raise LauncherError(
                "this engine has no communicator with others; start the engines with mpirun or srun, "
                "without --mpi=none, for tasks on several ranks"
            )
        self._teams.join(part.ranks, part.communicator, part.has_lost)

    def _run(self, part: GangPart) -> Outcome:
        assert self._teams is not None
        try:
            comm = self._teams.renew(part.ranks, part.communicator, part.has_lost)
            payload = self._payload(part)
        except Exception as error:  # also of MPI, if a rank has died
            return FAILED, packed_failure(error)
        return self._runner.run_together(part.program, comm, payload, wanted=part.ranks[0] == self.rank)

    def _payload(self, part: GangPart) -> Payload:
        """Wait for the arguments and return them."""
        while True:
            reason = self.left()
            if reason is not None:
                raise PeerError(reason)
            if part.payload is not None:
                payload, part.payload = part.payload, None
                return payload
            if not self._wait():
                raise PeerError("the node agent of this rank is gone")
