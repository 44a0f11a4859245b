"""A running ipcluster, with stand-ins for controller and engines or without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ipmpi.launch.processes.process import Member, session
from tests.cli.fake_batch_system import install

ROOT = Path(__file__).parents[2]
WITH_FAKES = [sys.executable, str(ROOT / "tests" / "launch" / "ipcluster_with_fakes.py")]
WITH_FAKE_BATCH = [sys.executable, str(ROOT / "tests" / "cli" / "ipcluster_with_fake_batch.py")]
REAL = [sys.executable, "-m", "ipmpi.cli.ipcluster"]


class Run:
    """A running ipcluster whose output can be waited for."""

    def __init__(self, home: Path, *arguments: str, command: list[str] = WITH_FAKES, **environ: str) -> None:
        self.home = home
        inherited = {**os.environ, "IPYTHONDIR": str(home), "PYTHONPATH": str(ROOT), **environ}
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=inherited,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.text = ""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.text += line
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def until(self, text: str, seconds: float = 20) -> None:
        with self._news:
            self._news.wait_for(lambda: text in self.text or not self._reader.is_alive(), seconds)
        assert text in self.text, self.text

    def until_count(self, text: str, count: int, seconds: float = 60) -> None:
        with self._news:
            self._news.wait_for(lambda: self.text.count(text) >= count, seconds)
        assert self.text.count(text) >= count, self.text

    def ends(self, seconds: float = 20) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def pid_after(self, label: str) -> int:
        return int(self.text.split(label, 1)[1].split()[0].strip("[],"))

    @property
    def controller(self) -> int:
        return self.pid_after("Controller PID:")

    @property
    def controllers(self) -> list[int]:
        """The controllers that were started, one after the other."""
        return [int(part.split()[0]) for part in self.text.split("Controller PID:")[1:]]

    @property
    def engine_sessions(self) -> list[int]:
        if "Engines PIDs:" in self.text:
            return [int(pid) for pid in self.text.split("[", 1)[1].split("]", 1)[0].split(",")]
        return [self.pid_after("mpiexec, PID:")]

    def leftovers(self) -> list[Member]:
        return [member for sid in (self.controller, *self.engine_sessions) for member in session(sid)]


class Batch:
    """The batch system, and clusters that use it."""

    def __init__(self, folder: Path, start: Callable[..., Run]) -> None:
        self.folder = folder
        self._start = start
        install(folder)
        self.environ = {"FAKE_BATCH": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}

    def __call__(self, *arguments: str, command: list[str] = WITH_FAKES, **environ: str) -> Run:
        return self._start("fake", *arguments, command=command, **self.environ, **environ)

    def set(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def state(self, job: int = 1) -> str:
        return (self.folder / f"{job}.state").read_text().strip()

    def end(self, job: int, how: str) -> None:
        subprocess.run(
            [self.folder / "qfdel", str(job), how], env={**os.environ, **self.environ}, check=True, timeout=20
        )
