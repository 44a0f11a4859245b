"""Real controllers and real ranks, and what is left of them in /proc."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from unix_links import connections_of, links_to

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.engine.agent.agentstart import PROCESS_NAME
from ipmpi.furl import Furl
from ipmpi.transport.dial.local import socket_name
from tests.processes import is_running, processes_with

ROOT = Path(__file__).resolve().parents[2]
LOOK_AGAIN = 0.05
STARTS_WITHIN = 60.0
"""Seconds for ranks to come: 16 of them on two cores that others use as well."""


@dataclass(frozen=True)
class Flavour:
    """An MPI: the interpreter whose mpi4py uses it, and its launcher."""

    name: str
    python: str
    launcher: str
    options: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    """Whether ``condition`` held within so many seconds. For what sends no event, such as another's end."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_AGAIN)
    return True


def memory_kib(pid: int, name: str) -> int:
    """``VmHWM`` or ``VmRSS`` of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise LookupError(name)


def tcp_peers(pid: int) -> list[tuple[int, int]]:
    """``(local port, remote port)`` of each established TCP connection that the process holds."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] == "01":
                found.append((int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16)))
    return found


class Cluster:
    """A controller of its own, in a folder of its own, with a set of engines.

    Args:
        options: further ones of the controller.
    """

    def __init__(self, home: Path, flavour: Flavour, options: Sequence[str] = (), **environ: str) -> None:
        self.home = home
        self._options = options
        self.flavour = flavour
        home.mkdir(parents=True, exist_ok=True)
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **flavour.environ,
            **environ,
            "IPYTHONDIR": str(home),
        }
        self.files: dict[str, str] = {}
        self.launchers: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []
        self._clients: list[MultiEngineClient | TaskClient] = []
        self._records: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self.controller = self._start_controller()

    # --- starting ------------------------------------------------------------------------------------------

    def _log(self, name: str) -> IO[bytes]:
        path = self.home / f"{name}.out"
        self.logs.append(path)
        return path.open("wb")

    def _start_controller(self) -> subprocess.Popen[bytes]:
        reader, writer = os.pipe()
        # If the tests are killed, the controller sees this end, and stops itself and its engines.
        lifeline, self._lifeline = os.pipe()
        where = ["--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1", *self._options]
        # The controller needs no MPI; it runs in the Python of the tests.
        with self._log("controller") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ipmpi.cli.ipcontroller", *where, "--ready-fd", str(writer),
                 "--lifeline-fd", str(lifeline)],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[writer, lifeline],
                start_new_session=True,
            )  # fmt: skip
        os.close(writer)
        os.close(lifeline)
        threading.Thread(target=self._read, args=(reader,), daemon=True).start()
        self._until(lambda: self._records, f"the controller is not ready\n{self.output()}")
        self.files = {k: v for k, v in self._records[0].items() if isinstance(v, str)}
        return process

    def _read(self, descriptor: int) -> None:
        with open(descriptor) as lines:
            for line in lines:
                with self._news:
                    self._records.append(json.loads(line))
                    self._news.notify_all()

    def _until(self, condition: Callable[[], object], otherwise: str, seconds: float = STARTS_WITHIN) -> None:
        with self._news:
            assert self._news.wait_for(condition, seconds), f"{otherwise}\n{self.output()}"

    def command(
        self,
        n: int,
        *options: str,
        program: Sequence[str] = ("-m", "ipmpi.cli.ipengine"),
        args: Sequence[str] = (),
    ) -> list[str]:
        """What starts ``n`` ranks."""
        f = self.flavour
        return [f.launcher, *f.options, *options, "-n", str(n), f.python, *program, *args]

    def launch(self, argv: Sequence[str], **environ: str) -> subprocess.Popen[bytes]:
        """Start engines, and do not wait for them."""
        with self._log(f"engines{len(self.launchers)}") as log:
            process = subprocess.Popen(
                argv, env={**self.environ, **environ}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.launchers.append(process)
        return process

    def start(self, n: int, *options: str, args: Sequence[str] = ()) -> MultiEngineClient:
        """Start a set of ``n`` ranks, and connect when all are registered."""
        self.launch(self.command(n, *options, args=args))
        self.wait_for_engines(n)
        return self.mec()

    def wait_for_engines(self, count: int, seconds: float = STARTS_WITHIN) -> None:
        """Until the controller says that it has so many."""
        self._until(lambda: self._records[-1].get("engines") == count, f"never {count} engines", seconds)

    # --- using ---------------------------------------------------------------------------------------------

    def mec(self) -> MultiEngineClient:
        """A further client."""
        client = MultiEngineClient(self.files["multiengine_furl_file"])
        self._clients.append(client)
        return client

    def tc(self) -> TaskClient:
        """A further task client."""
        client = TaskClient(self.files["task_furl_file"])
        self._clients.append(client)
        return client

    def pids(self, mec: MultiEngineClient) -> dict[int, int]:
        """The process of each rank."""
        return {engine["rank"]: engine["pid"] for engine in mec.cluster_info()["engines"]}

    def port(self, role: str = "engine") -> int:
        """The port that the controller listens on for ``role``."""
        text = Path(self.files[f"{role}_furl_file"]).read_text()
        return int(text.partition("@")[2].partition("/")[0].rpartition(":")[2])

    def links(self, pid: int, role: str = "engine") -> int:
        """How many links a process has to where the controller listens for ``role``, by TCP and by Unix socket."""
        port = self.port(role)
        by_tcp = sum(1 for _, remote in tcp_peers(pid) if remote == port)
        return by_tcp + links_to(self._socket_name(role), pid)

    def accepted(self, role: str = "engine") -> int:
        """How many links the controller has there."""
        port = self.port(role)
        by_tcp = sum(1 for local, _ in tcp_peers(self.controller.pid) if local == port)
        return by_tcp + connections_of(self._socket_name(role))

    def _socket_name(self, role: str) -> bytes:
        address = Furl.parse(Path(self.files[f"{role}_furl_file"]).read_text())
        return socket_name(address.fingerprint, self.port(role))

    def output(self) -> str:
        """All that was printed, for messages and for what must not be there."""
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in self.logs)

    # --- ending --------------------------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """All that runs for this cluster, launchers and controller included."""
        return processes_with(f"IPYTHONDIR={self.home}")

    def rank_processes(self) -> list[int]:
        """The engines' processes that still run."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"python" in os.path.basename(words[0]) and b"--ready-fd" not in words:
                    found.append(pid)
        return found

    def agents(self) -> list[int]:
        """The agent processes: one for each node and launch, oldest first."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == PROCESS_NAME:
                    found.append(pid)
        return sorted(found)

    def engine_log(self) -> str:
        """What engines and agents have in their log files."""
        files = sorted(self.home.glob("log/*/ipengine-*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in files)

    def stop(self) -> None:
        """End all by pid; what would not end is killed, and told."""
        for client in self._clients:
            client.close()
        for launcher in self.launchers:
            if launcher.poll() is None:
                launcher.terminate()
        self.controller.terminate()
        wait_for(lambda: not (self.rank_processes() or is_running(self.controller.pid)), 15)
        ours = [*self.rank_processes(), *([self.controller.pid] if is_running(self.controller.pid) else [])]
        # Debian's mpirun now and then outlives its ranks and its terminal; that is not for us to judge.
        wait_for(lambda: not self.processes(), 3)
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for process in (*self.launchers, self.controller):
            process.wait(10)
        os.close(self._lifeline)
        assert not ours, f"processes {ours} did not end\n{self.output()}"
