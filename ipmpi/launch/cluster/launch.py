"""The common interface of all ways to start engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from ipmpi.launch.cluster.happenings import Happening
from ipmpi.launch.processes.mpi import ENGINE_MODULE
from ipmpi.launch.processes.process import ChildProcess


class Launch(ABC):
    """Engines that are started together.

    Attributes:
        n: number of engines.
        waits: whether they can be started only when the controller is ready.
        log_dir: folder of their log files.
    """

    n: int
    waits: bool
    log_dir: Path

    @abstractmethod
    def check(self) -> None:
        """Check the requirements, such as ``mpiexec``, before the controller is started.

        Raises:
            LauncherError: these engines cannot be started here.
        """

    @abstractmethod
    def start(self, why: str = "") -> None:
        """Start the engines; ``why``: the reason of a restart.

        Raises:
            LauncherError: they cannot be started.
        """

    @abstractmethod
    def said(self) -> list[str]:
        """Return lines for the user, after the start."""

    def children(self) -> list[ChildProcess]:
        """Return the processes on this machine that are engines or launchers."""
        return []

    def news(self, now: float, starting: bool) -> Iterable[Happening]:  # noqa: ARG002 - for those who have some
        """Return the events since the last call."""
        return ()

    def lost(self, rank: int, pid: int, host: str) -> None:
        """The controller has lost this rank."""
        del rank, pid, host

    def faults(self) -> list[str]:
        """Return texts about the rank that ended first, if they were not returned before."""
        return []

    def next_look(self, starting: bool) -> float | None:  # noqa: ARG002 - for those who have to
        """Return when to call :meth:`news` at the latest; None if events suffice.

        Args:
            starting: not all engines are registered yet, so they are checked more often.
        """
        return None

    def ask(self) -> None:  # noqa: B027 - who has no job has nothing to do
        """Ask the batch system about the job; :meth:`news` has the reply later."""

    def ask_where(self, question: int) -> None:
        """Find out on which machines they run; :meth:`news` has the answer later."""
        del question

    @property
    def job(self) -> str:
        """The id of the job, or ``""``."""
        return ""

    @abstractmethod
    def end(self) -> None:
        """End what still runs."""

    @property
    def is_ending(self) -> bool:
        """Return whether :meth:`end` has not completed, besides the end of all children."""
        return False

    def problems(self) -> list[str]:
        """Return messages about what may continue after :meth:`end`."""
        return []

    def kill(self) -> None:
        """Send SIGKILL to all remaining processes on this machine, such as ranks without a launcher."""
        for child in self.children():
            child.kill_session(ENGINE_MODULE)

    def hints(self) -> list[str]:
        """Return possible reasons why these engines do not start."""
        return []

    @abstractmethod
    def logs(self) -> list[Path]:
        """Return the files that explain a failure."""
