"""A controller and a launch of engines, started, watched and stopped together."""

from __future__ import annotations

import contextlib
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
    RunsOn,
    StartedAgain,
    StopRequest,
    WhereAsked,
)
from ipmpi.launch.cluster.launch import Launch
from ipmpi.launch.processes.process import ChildProcess, Signals
from ipmpi.limits import INTERRUPT_GRACE

POLITE: Final = INTERRUPT_GRACE + 1.5
"""Seconds for engines to end after the controller has told them to."""

INSISTENT: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""


class ClusterRun:
    """Call :meth:`start`, then :meth:`wait` repeatedly, then :meth:`stop`.

    Args:
        controller: our own, or events of another one; None if there are none.
        engines: the engines.
        signals: active for as long as this object is used.
        lifeline_fd: a pipe from our parent, which ends us by closing it, or by a byte.

    Attributes:
        left_behind: after :meth:`stop`: whether a job may continue that should not.
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
        """The process of our own controller, once started."""
        return self.controller.process if isinstance(self.controller, ControllerProcess) else None

    def start(self) -> None:
        """Start the controller and, unless they depend on it, the engines at the same time.

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

    def restart_controller(self) -> None:
        """Start our own controller again, whose process has ended: on its ports, with its furls.

        Raises:
            LauncherError: its program cannot be run.
        """
        former = self.controller
        assert isinstance(former, ControllerProcess)
        with contextlib.suppress(KeyError):  # the end of its pipe was seen
            self._selector.unregister(former.fd)
        former.close()
        self.controller = former.again()
        self._controller_reported = False
        self.controller.start()
        self._selector.register(self.controller.fd, selectors.EVENT_READ)

    def start_engines(self, why: str = "") -> None:
        """Start the engines; with ``why``, once more.

        Raises:
            LauncherError: that is not possible.
        """
        if why and isinstance(self.controller, ControllerProcess):
            self.controller.begin_launch(again=True)
        self.engines.start(why)

    def wait(self, deadline: float | None, *, starting: bool = False) -> list[Happening]:
        """Wait for events, at most until ``deadline`` (of ``time.monotonic``), and return them.

        Args:
            deadline: when to return an empty list; None means never.
            starting: not all engines are registered yet, so check them more often.
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
        happenings = [happening for happening in happenings if not self._pass_on(happening)]
        return [*self._failures(happenings), *happenings]

    def _pass_on(self, happening: Happening) -> bool:
        """Pass on questions of the controller about the nodes of our engines, and the answers."""
        if isinstance(happening, WhereAsked):
            self.engines.ask_where(happening.question)
        elif isinstance(happening, RunsOn) and self.controller is not None:
            self.controller.runs_on(happening)
        return isinstance(happening, (WhereAsked, RunsOn))

    def _failures(self, happenings: list[Happening]) -> list[Happening]:
        """Return failed ranks that may be the cause of these events, to be reported first."""
        ended = False
        for happening in happenings:
            if isinstance(happening, EngineCount):
                ended = ended or happening.registered < self._registered
                self._registered = happening.registered
                if happening.lost is not None:
                    self.engines.lost(*happening.lost)
            elif isinstance(happening, JobNews):
                ended = ended or happening.status.state is JobState.ENDED
            elif isinstance(happening, EnginesEnded):
                ended = ended or not happening.asked
            ended = ended or isinstance(happening, StartedAgain)
        return [RankFailed(text) for text in self.engines.faults()] if ended else []

    def tell_clients(self, text: str, *, last: bool = False) -> None:
        """Send a text to the clients of our own controller; see :meth:`ControllerProcess.tell`."""
        if isinstance(self.controller, ControllerProcess):
            self.controller.tell(text, last=last)

    def living(self) -> list[ChildProcess]:
        """Return the started processes that still run."""
        started = [self.controller_process, *self.engines.children()]
        return [child for child in started if child is not None and child.exit_code() is None]

    def stop(self, polite: bool) -> list[str]:
        """End all processes: by the controller, then by SIGTERM or the end of the job, then by SIGKILL.

        A second stop signal kills them at once.

        Args:
            polite: the engines are registered, so that the controller can end them.

        Returns:
            Messages about what could not be ended.
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
        """Close the pipes."""
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
        """Wait until all processes have ended; return True if a stop signal came meanwhile."""
        deadline = time.monotonic() + seconds
        while self.living() and time.monotonic() < deadline:
            if any(isinstance(happening, StopRequest) for happening in self.wait(deadline)):
                return True
        return False
