"""What the events in the life of a cluster mean (layer L4, thinking only: the time is an argument)."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from ipmpi.launch.process import how_it_ended

EXPLANATION_GRACE: Final = 2.0
"""Seconds. When a client stops everything, engines end just before the controller: what looks like a failure
has to last this long to be one."""


class Phase(Enum):
    """Where in its life a cluster is."""

    STARTING = "starting"
    RUNNING = "running"
    OVER = "over"


class Blame(Enum):
    """Whose log files explain what happened."""

    NOBODY = "nobody"
    CONTROLLER = "controller"
    ENGINES = "engines"


class Started(NamedTuple):
    """All engines are registered."""


class Note(NamedTuple):
    """Something that the user should know, and that changes nothing."""

    text: str


class StartAgain(NamedTuple):
    """The engines' launcher failed by chance: start it once more. The text is for the user and for the log."""

    text: str


class Over(NamedTuple):
    """The cluster has to be taken down: why, with which exit code, and whose log files to show."""

    code: int
    reason: str
    blame: Blame


Effect = Started | Note | StartAgain | Over


class Lifecycle:
    """Turns what happened to controller and engines into what to tell the user and whether to stop.

    Args:
        n: engines that were asked for.
        timeout: seconds in which all of them have to be registered.
        now: seconds of any monotonic clock.
    """

    def __init__(self, n: int, timeout: float, now: float) -> None:
        self.phase = Phase.STARTING
        self.controller_ready = False
        self._n = n
        self._timeout = timeout
        self._start_deadline = now + timeout
        self._registered = 0
        self._started_again = False
        self._reported = n
        self._losses: list[str] = []
        self._told = 0
        self._loss_deadline: float | None = None
        self._end_deadline: float | None = None

    def deadline(self) -> float | None:
        """When :meth:`tick` wants to be called, or None."""
        if self.phase is Phase.OVER:
            return None
        start = self._start_deadline if self.phase is Phase.STARTING else None
        times = [time for time in (start, self._loss_deadline, self._end_deadline) if time is not None]
        return min(times, default=None)

    def engines(self, count: int, now: float, ordered: bool = False) -> list[Effect]:
        """The controller says how many engines are registered, and whether a client ended the others."""
        self._registered = count
        if self.phase is Phase.RUNNING and ordered and not count:
            return self._over(0, "All engines were ended by a client.", Blame.NOBODY)
        if self.phase is Phase.STARTING and count >= self._n:
            self.phase = Phase.RUNNING
            return [Started()]
        self._reported = max(self._reported, min(count, self._n))
        waiting = self._loss_deadline is not None or self._end_deadline is not None
        if self.phase is Phase.RUNNING and count < self._reported and not waiting:
            self._loss_deadline = now + EXPLANATION_GRACE
        return []

    def controller_ended(self, code: int) -> list[Effect]:
        """The controller's process ended."""
        if self.phase is Phase.STARTING:
            return self._over(1, f"The controller could not start ({how_it_ended(code)}).", Blame.CONTROLLER)
        if code == 0:
            return self._over(0, "The cluster was stopped by a client.", Blame.NOBODY)
        return self._over(1, f"The controller ended unexpectedly ({how_it_ended(code)}).", Blame.CONTROLLER)

    def engines_ended(self, title: str, code: int, left: int, now: float, chance: str = "") -> list[Effect]:
        """A process that is, or launched, engines ended; ``left`` others still run.

        Args:
            title: what it is called.
            code: its exit code.
            left: how many others run.
            now: the time.
            chance: what it wrote, if this failure comes and goes and no engine was there yet.
        """
        if self.phase is Phase.STARTING and chance and not self._started_again:
            self._started_again = True
            return [StartAgain(f'{title} ended ({how_it_ended(code)}): "{chance}" It is started once more.')]
        if self.phase is Phase.STARTING:
            return self._over(
                1, f"The engines could not start: {title} ended ({how_it_ended(code)}).", Blame.ENGINES
            )
        if self.phase is Phase.RUNNING:
            self._losses.append(f"{title} ended ({how_it_ended(code)})")
            if left == 0:
                self._loss_deadline = None
                self._end_deadline = now + EXPLANATION_GRACE
            elif self._loss_deadline is None:
                self._loss_deadline = now + EXPLANATION_GRACE
        return []

    def rank_ended(self, pid: int) -> list[Effect]:
        """One of several ranks ended, and the launcher let the others live."""
        if self.phase is not Phase.STARTING:
            return []  # the controller tells when it is about a registered engine
        reason = (
            f"The engines could not start: one of the {self._n} (process {pid}) ended before it was registered."
        )
        return self._over(1, reason, Blame.ENGINES)

    def stop_requested(self) -> list[Effect]:
        """The user wants an end."""
        return self._over(0, "", Blame.NOBODY)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        if self.phase is Phase.STARTING and now >= self._start_deadline:
            return self._timed_out()
        if self.phase is Phase.RUNNING and self._end_deadline is not None and now >= self._end_deadline:
            return self._over(1, "All engines have ended: " + "; ".join(self._losses) + ".", Blame.ENGINES)
        if self.phase is Phase.RUNNING and self._loss_deadline is not None and now >= self._loss_deadline:
            return self._report_loss()
        return []

    def _timed_out(self) -> list[Effect]:
        if not self.controller_ready:
            reason = f"The controller was not ready after {self._timeout:g} s."
            return self._over(1, reason, Blame.CONTROLLER)
        reason = (
            f"Only {self._registered} of {self._n} engines were registered after {self._timeout:g} s. "
            "If that is a matter of time (a slow file system), wait longer with --timeout SECONDS."
        )
        return self._over(1, reason, Blame.ENGINES)

    def _report_loss(self) -> list[Effect]:
        self._loss_deadline = None
        if self._registered >= self._reported:
            return []  # it came back, or the controller still hopes that it will
        causes = f" ({'; '.join(self._losses[self._told :])})" if self._losses[self._told :] else ""
        self._told = len(self._losses)
        self._reported = self._registered
        return [Note(f"{self._registered} of {self._n} engines are left{causes}. The others keep working.")]

    def _over(self, code: int, reason: str, blame: Blame) -> list[Effect]:
        if self.phase is Phase.OVER:
            return []
        self.phase = Phase.OVER
        return [Over(code, reason, blame)]
