"""What all ways to start engines have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from ipmpi.launch.cluster.happenings import Happening
from ipmpi.launch.processes.mpi import ENGINE_MODULE
from ipmpi.launch.processes.process import ChildProcess


class Launch(ABC):
    """Engines that are started together, in one of several ways.

    Attributes:
        n: how many engines.
        waits: they can be started only when the controller is ready.
        log_dir: folder of their log files.
    """

    n: int
    waits: bool
    log_dir: Path

    @abstractmethod
    def check(self) -> None:
        """Called before anything runs: a missing ``mpiexec``, say, must not leave a controller behind.

        Raises:
            LauncherError: these engines cannot be started here.
        """

    @abstractmethod
    def start(self, why: str = "") -> None:
        """Start the engines; with ``why``, once more.

        Raises:
            LauncherError: that is not possible.
        """

    @abstractmethod
    def said(self) -> list[str]:
        """Lines for the user, after the start."""

    def children(self) -> list[ChildProcess]:
        """The processes on this machine that are engines, or launched them."""
        return []

    def news(self, now: float, starting: bool) -> Iterable[Happening]:  # noqa: ARG002 - for those who have some
        """What has happened since the last call."""
        return ()

    def lost(self, rank: int, pid: int, host: str) -> None:
        """The controller says that it has lost the process of this rank."""
        del rank, pid, host

    def faults(self) -> list[str]:
        """Which rank ended first, and how, as far as that was not known at the last call."""
        return []

    def next_look(self, starting: bool) -> float | None:  # noqa: ARG002 - for those who have to
        """When :meth:`news` wants to be called at the latest, or None: events wake it up.

        Args:
            starting: the engines are not all there yet, so they are looked at more closely.
        """
        return None

    def ask(self) -> None:  # noqa: B027 - who has no job has nothing to do
        """Ask the batch system; :meth:`news` has the answer, some time."""

    @property
    def job(self) -> str:
        """The id of the job, or ``""``."""
        return ""

    @abstractmethod
    def end(self) -> None:
        """Make what still runs end."""

    @property
    def is_ending(self) -> bool:
        """Whether :meth:`end` is still to be waited for, by :meth:`news`, besides the end of all children."""
        return False

    def problems(self) -> list[str]:
        """After :meth:`end`: what may go on although it should not."""
        return []

    def kill(self) -> None:
        """SIGKILL whatever may be left on this machine: a launcher that has ended may leave ranks behind."""
        for child in self.children():
            child.kill_session(ENGINE_MODULE)

    def hints(self) -> list[str]:
        """What may be the reason if these engines do not start."""
        return []

    @abstractmethod
    def logs(self) -> list[Path]:
        """The files that explain a failure."""
