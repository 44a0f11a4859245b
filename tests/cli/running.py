"""A running ipcluster, with stand-ins for controller and engines or without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from ipmpi.launch.process import session

ROOT = Path(__file__).parents[2]
WITH_FAKES = [sys.executable, str(ROOT / "tests" / "launch" / "ipcluster_with_fakes.py")]
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
    def engine_sessions(self) -> list[int]:
        if "Engines PIDs:" in self.text:
            return [int(pid) for pid in self.text.split("[", 1)[1].split("]", 1)[0].split(",")]
        return [self.pid_after("mpiexec, PID:")]

    def leftovers(self) -> list[int]:
        return [member.pid for sid in (self.controller, *self.engine_sessions) for member in session(sid)]
