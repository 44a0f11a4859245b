"""An ``ipcluster slurm`` in the foreground, and what it prints."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from real_slurm import Slurm

from ipmpi.client import MultiEngineClient, TaskClient

ROOT = Path(__file__).resolve().parents[2]
INSIDE = ()
"""Where a controller on a node listens: on all addresses, none of which leads out of this machine."""
IS_UP = "kill -INT"


class Submitted:
    """A cluster of its own, in a folder that nodes can see.

    Attributes:
        home: its IPYTHONDIR.
        lines: what it has printed.
    """

    def __init__(
        self, slurm: Slurm, name: str, python: str, words: Sequence[str], listen: Sequence[str] | None = None
    ) -> None:
        listen = slurm.outside if listen is None else listen
        self.home = slurm.folder / name
        self.home.mkdir()
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._clients: list[MultiEngineClient | TaskClient] = []
        self.environ = {**slurm.environ, "IPYTHONDIR": str(self.home), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [python, "-m", "ipmpi.cli.ipcluster", "slurm", *words, *listen],
            cwd=self.home, env=self.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()

    def said(self, text: str, seconds: float = 60, times: int = 1) -> str:
        """Wait for a line with ``text`` in it, or for the last of several."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._news:
            assert self._news.wait_for(lambda: len(found()) >= times, seconds), f"no {text!r} in\n{self.output()}"
            return found()[times - 1]

    def up(self, times: int = 1) -> Submitted:
        """Wait until all engines are there."""
        self.said(IS_UP, 90, times)
        return self

    @property
    def job(self) -> str:
        """The id of the job that was submitted last."""
        self.said("Submitted job")
        return re.findall(r"Submitted job (\d+)", "\n".join(self.lines))[-1]

    def furl(self, role: str) -> str:
        """The file with a furl."""
        return str(self.home / "security" / f"ipcontroller-{role}.furl")

    def mec(self) -> MultiEngineClient:
        """A client, closed in the end."""
        client = MultiEngineClient(self.furl("mec"))
        self._clients.append(client)
        return client

    def tc(self) -> TaskClient:
        """A task client, closed in the end."""
        client = TaskClient(self.furl("tc"))
        self._clients.append(client)
        return client

    def output(self) -> str:
        """What it printed, and all log files."""
        files = [path for path in self.home.glob("log/**/*") if path.is_file()]
        logs = [f"--- {path.name}\n{path.read_text(errors='replace')}" for path in files]
        return "\n".join([*self.lines, *logs])

    def stop(self) -> int:
        """As Ctrl-C does; returns the exit code."""
        for client in self._clients:
            with contextlib.suppress(Exception):
                client.close()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGINT)
        code = self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code
