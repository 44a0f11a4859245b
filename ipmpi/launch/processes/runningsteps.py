"""Running commands as children, without blocking."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from typing import IO, Final, Generic, TypeVar

PATIENCE: Final = 60.0
"""Seconds for one command of a batch system, which may be slow on busy sites."""

T = TypeVar("T")
Steps = Generator[list[str], "subprocess.CompletedProcess[str]", T]
"""Yields commands; the result of each is sent, or OSError or TimeoutExpired raised, at the ``yield``."""


class RunningSteps(Generic[T]):
    """Running steps. After SIGCHLD, :meth:`look` makes the next step.

    Args:
        steps: the steps.
        environ: variables to add to the environment of the commands.
        patience: seconds for each command, after which it is killed.
    """

    def __init__(self, steps: Steps[T], environ: Mapping[str, str], patience: float = PATIENCE) -> None:
        self._steps = steps
        self._environ = {**os.environ, **environ}
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._output: tuple[IO[bytes], IO[bytes]] | None = None
        self._result: list[T] = []
        self._error: Exception | None = None
        self.argv: list[str] = []
        self.deadline = 0.0
        self._step(lambda: next(steps))

    @property
    def is_over(self) -> bool:
        """Whether :meth:`result` can be called."""
        return self._process is None

    def look(self) -> bool:
        """Continue if the command has ended or timed out; return whether all steps are done."""
        process = self._process
        while process is not None:
            code = process.poll()
            if code is not None:
                done = subprocess.CompletedProcess(self.argv, code, *self._printed())
                self._step(lambda done=done: self._steps.send(done))  # type: ignore[misc]
            elif time.monotonic() >= self.deadline:
                self.abandon()
                error = subprocess.TimeoutExpired(self.argv, self._patience)
                self._step(lambda error=error: self._steps.throw(error))  # type: ignore[misc]
            else:
                return False
            process = self._process
        return True

    def result(self) -> T:
        """Return the return value of the steps.

        Raises:
            Exception: the exception of the steps.
        """
        if self._error is not None:
            raise self._error
        return self._result[0]

    def abandon(self) -> None:
        """Kill the running command."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._printed()

    def _step(self, advance: Callable[[], list[str]]) -> None:
        """Get the next command, and start it."""
        self._process = None
        try:
            while True:
                self.argv = advance()
                try:
                    self._start()
                    return
                except OSError as error:
                    failed = error
                    advance = lambda failed=failed: self._steps.throw(failed)  # type: ignore[misc] # noqa: E731
        except StopIteration as end:
            self._result = [end.value]
        except Exception as error:  # raised by result()
            self._error = error

    def _start(self) -> None:
        output = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115 - until the command ends
        try:
            self._process = subprocess.Popen(
                self.argv,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output[0],
                stderr=output[1],
                start_new_session=True,  # Ctrl-C at the terminal must not end it
            )
        except OSError:
            for file in output:
                file.close()
            raise
        self._output = output
        self.deadline = time.monotonic() + self._patience

    def _printed(self) -> tuple[str, str]:
        texts = []
        for file in self._output or ():
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        self._output = None
        return (texts[0], texts[1]) if texts else ("", "")
