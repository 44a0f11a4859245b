"""A controller and a launch of engines, started, watched and stopped together."""

from __future__ import annotations

import os
import selectors
import signal
import time
from pathlib import Path
from typing import Final

from ipmpi.launch.batch.registry import JobState
from ipmpi.launch.cluster.controller import CONTROLLER_MODULE, ControllerProcess, EventReader
from ipmpi.launch.cluster.follow import STAY
from ipmpi.launch.cluster.happenings import (
    ControllerEnded,
    EngineCount,
    EnginesEnded,
    Happening,
    JobNews,
    RankFailed,
    StartedAgain,
    StopRequest,
)
from ipmpi.launch.cluster.launch import Launch
from ipmpi.launch.processes.process import ChildProcess, Signals
from ipmpi.limits import INTERRUPT_GRACE

POLITE: Final = INTERRUPT_GRACE + 1.5
"""Seconds for engines to end because the controller told them to."""

INSISTENT: Final = 2.0
"""Seconds for what got SIGTERM to end, before SIGKILL."""


class ClusterRun:
    """Call :meth:`start`, then :meth:`wait` again and again, then :meth:`stop`.

    Args:
        controller: ours, or news about one that is elsewhere; None if there is nothing to be told.
        engines: the engines.
        signals: active for as long as this object is used.
        lifeline_fd: whoever started us holds the other end, and ends us by closing it, or by a byte.

    Attributes:
        left_behind: after :meth:`stop`: a job may go on that should not.
    """

    def __init__(
        self, controller: EventReader | None, engines: Launch, signals: Signals, lifeline_fd: int | None = None
    ) -> None:
        self.controller = controller
        self.engines = engines
        self._signals = signals
        self._selector = selectors.DefaultSelector()
        self._lifeline_fd = lifeline_fd
        self._controller_reported = False
        self._registered = 0
        self.left_behind = False

    @property
    def controller_process(self) -> ChildProcess | None:
        """The process of a controller of our own, once started."""
        return self.controller.process if isinstance(self.controller, ControllerProcess) else None

    def start(self) -> None:
        """Start the controller and, unless they have to wait for it, the engines at the same time.

        Raises:
            LauncherError: a program cannot be run, or a folder cannot be written.
        """
        self.engines.check()
        self._selector.register(self._signals, selectors.EVENT_READ)
        if self._lifeline_fd is not None:
            self._selector.register(self._lifeline_fd, selectors.EVENT_READ)
        if isinstance(self.controller, ControllerProcess):
            self.controller.start()
        if self.controller is not None:
            self._selector.register(self.controller.fd, selectors.EVENT_READ)
        if not self.engines.waits:
            self.start_engines()

    def start_engines(self, why: str = "") -> None:
        """Start the engines; with ``why``, once more.

        Raises:
            LauncherError: that is not possible.
        """
        self.engines.start(why)

    def wait(self, deadline: float | None, *, starting: bool = False) -> list[Happening]:
        """Sleep until something happens, or until ``deadline`` (of ``time.monotonic``), and tell what.

        Args:
            deadline: when to come back with an empty list; None means never.
            starting: the engines are not all there yet, so look at them more closely.
        """
        look = self.engines.next_look(starting)
        times = [when for when in (deadline, look) if when is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        happenings: list[Happening] = []
        for key, _ in self._selector.select(timeout):
            happenings += self._read(key.fd)
        process = self.controller_process
        code = None if process is None else process.exit_code()
        if code is not None and not self._controller_reported:
            self._controller_reported = True
            happenings.append(ControllerEnded(code))
        happenings += self.engines.news(time.monotonic(), starting)
        return [*self._failures(happenings), *happenings]

    def _failures(self, happenings: list[Happening]) -> list[Happening]:
        """Ranks because of which others may have ended: to be known before that is told."""
        ended = False
        for happening in happenings:
            if isinstance(happening, EngineCount):
                ended = ended or happening.registered < self._registered
                self._registered = happening.registered
                if happening.lost is not None:
                    self.engines.lost(*happening.lost)
            elif isinstance(happening, JobNews):
                ended = ended or happening.status.state is JobState.ENDED
            ended = ended or isinstance(happening, EnginesEnded | StartedAgain)
        return [RankFailed(text) for text in self.engines.faults()] if ended else []

    def tell_clients(self, text: str, *, last: bool = False) -> None:
        """Have a controller of our own tell its clients something; see :meth:`ControllerProcess.tell`."""
        if isinstance(self.controller, ControllerProcess):
            self.controller.tell(text, last=last)

    def living(self) -> list[ChildProcess]:
        """The started processes that still run."""
        started = [self.controller_process, *self.engines.children()]
        return [child for child in started if child is not None and child.exit_code() is None]

    def stop(self, polite: bool) -> list[str]:
        """End everything: by the controller's word, then by SIGTERM or the end of the job, then by SIGKILL.

        A second stop signal meanwhile kills at once.

        Args:
            polite: the engines are registered, so that the controller can tell them.

        Returns:
            What could not be ended, for the user.
        """
        controller = self.controller_process
        hurry = False
        if polite and controller is not None:
            controller.send(signal.SIGINT)
            hurry = self._await_end(POLITE)
        self.engines.end()
        if controller is not None and self.living() and not hurry:
            controller.send(signal.SIGTERM)
        if self.living() and not hurry:
            hurry = self._await_end(INSISTENT)
        while self.engines.is_ending and not hurry:
            hurry = any(isinstance(happening, StopRequest) for happening in self.wait(None))
        problems = self.engines.problems()
        self.left_behind = bool(problems)
        self.engines.kill()
        if controller is not None:
            controller.kill_session(CONTROLLER_MODULE)
        self._await_end(INSISTENT)
        left = ", ".join(str(child.pid) for child in self.living())
        return [*problems, *([f"could not kill some processes, try to do it manually: {left}"] if left else [])]

    def close(self) -> None:
        """Give back the pipes."""
        if self.controller is not None:
            self.controller.close()
        self._selector.close()

    def controller_logs(self) -> list[Path]:
        """The files that explain a failure of the controller."""
        return self.controller.logs() if isinstance(self.controller, ControllerProcess) else self.engines.logs()

    def _read(self, descriptor: int) -> list[Happening]:
        if descriptor == self._signals.fileno():
            return [StopRequest(number) for number in self._signals.read() if number != signal.SIGCHLD]
        if descriptor == self._lifeline_fd:
            word = os.read(descriptor, 4096)
            self._selector.unregister(descriptor)
            return [] if word == STAY else [StopRequest(signal.SIGHUP)]
        assert self.controller is not None
        happenings: list[Happening] | None = None
        try:
            happenings = self.controller.read()
        finally:
            if happenings is None:
                self._selector.unregister(descriptor)
        return happenings or []

    def _await_end(self, seconds: float) -> bool:
        """Wait until nothing lives; True if a stop signal came meanwhile."""
        deadline = time.monotonic() + seconds
        while self.living() and time.monotonic() < deadline:
            if any(isinstance(happening, StopRequest) for happening in self.wait(deadline)):
                return True
        return False
