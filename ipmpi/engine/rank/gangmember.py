"""One rank's part of a task that several ranks run together, in its main thread.

All of them make or find their communicator first, whatever else has happened meanwhile: a rank that stayed away
would leave the others waiting inside MPI. Only then does each look whether there is still something to do.
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
    """Communicators of ranks that run a task together: see :class:`ipmpi.engine.mpi.comm.GangCommunicators`."""

    def join(self, ranks: Sequence[int], serial: int) -> Any:
        """The communicator of ``ranks``; collective."""

    def renew(self, ranks: Sequence[int], serial: int) -> Any:
        """The same, or a new one where the task before has left something; collective."""

    def end(self) -> None:
        """The task is over."""


MakeTeams = Callable[[Callable[[], str | None]], CommunicatorSource | None]
"""Makes the communicators; its argument says why the current task shall be left, or None."""


class GangPart:
    """One rank's part of a task.

    Args:
        serial: number of the part at this rank.
        program: what it runs.
        ranks: those that run it, in the order of their communicator.
        communicator: number of that.
        payload: the arguments; None while they have not come.

    Attributes:
        reason: why it shall not go on, once there is such a reason.
    """

    def __init__(
        self, serial: int, program: Program, ranks: Sequence[int], communicator: int, payload: Payload | None
    ) -> None:
        self.serial = serial
        self.program = program
        self.ranks = ranks
        self.communicator = communicator
        self.payload = payload
        self.reason: str | None = None


class GangMember:
    """Runs parts of tasks.

    Args:
        make_teams: called once, when the first task comes; gives None without a communicator.
        wait: called while arguments have not come: returns when the agent has said something; False: it is gone.
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
        """Why the part that runs shall not go on; None while nothing is wrong."""
        part = self._running
        if part is None:
            return None
        return self._block.text if self._block.words[LEAVE] == part.serial else part.reason

    def perform(self, part: GangPart) -> tuple[Outcome, float]:
        """Do this rank's part: what became of it, and the seconds it took."""
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
        self._teams.join(part.ranks, part.communicator)

    def _run(self, part: GangPart) -> Outcome:
        assert self._teams is not None
        try:
            comm = self._teams.renew(part.ranks, part.communicator)
            payload = self._payload(part)
        except Exception as error:  # also of MPI: a rank has died
            return FAILED, packed_failure(error)
        return self._runner.run_together(part.program, comm, payload, wanted=part.ranks[0] == self.rank)

    def _payload(self, part: GangPart) -> Payload:
        """The arguments, as soon as they are there."""
        while True:
            reason = self.left()
            if reason is not None:
                raise PeerError(reason)
            if part.payload is not None:
                payload, part.payload = part.payload, None
                return payload
            if not self._wait():
                raise PeerError("the node agent of this rank is gone")
