"""Real controllers and engines in processes of their own, for tests that attack them."""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipmpi import furl
from ipmpi.furl import Furl

ROOT = Path(__file__).resolve().parent.parent.parent
LOOPBACK = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1")
START = 20.0


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment without MPI variables, in which ``home`` is IPYTHONDIR and the checkout is found."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "SLURM_", "PRTE_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return {**kept, "IPYTHONDIR": str(home), "PYTHONPATH": path, **(extra or {})}


def wait_until(true: Callable[[], Any], what: str, seconds: float = START) -> Any:
    """What ``true`` gives as soon as it gives anything; for what nobody reports."""
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.01)
    return found


def memory_kib(pid: int) -> int:
    """What a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


class Controller:
    """``ipcontroller`` in a process; reads its ``--ready-fd`` and its log."""

    def __init__(
        self,
        home: Path,
        options: Sequence[str] = LOOPBACK,
        *,
        extra: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.log_file = home / "controller.log"
        self._ready, write = os.pipe()
        # If the tests are killed, the controller sees this end, and stops itself and its engines.
        lifeline, self._lifeline = os.pipe()
        os.set_blocking(self._ready, False)
        self._buffer = b""
        self.told: list[dict[str, Any]] = []
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ipmpi.cli.ipcontroller", "--ready-fd", str(write),
                 "--lifeline-fd", str(lifeline), *options],
                env=environment(home, extra), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[write, lifeline, *pass_fds], cwd=cwd or home,
            )  # fmt: skip
        os.close(write)
        os.close(lifeline)
        self.pid = self.process.pid
        try:
            self.wait_told(lambda record: "pid" in record)
        except BaseException:
            self.stop()
            raise

    def wait_told(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next record of the ready pipe that is ``wanted``, or one that came already."""
        end = time.monotonic() + START
        while True:
            record: dict[str, Any]
            for record in self.told[::-1]:
                if wanted(record):
                    return record
            select.select([self._ready], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._ready, 65536) if time.monotonic() < end else b""
            if not data:
                raise TimeoutError(f"the controller did not say what was waited for; its log:\n{self.log()}")
            self._buffer += data
            *lines, self._buffer = self._buffer.split(b"\n")
            self.told += [json.loads(line) for line in lines]

    def is_told(self, what: dict[str, Any]) -> None:
        """Say to it what ipcluster would."""
        os.write(self._lifeline, json.dumps(what).encode() + b"\n")

    def wait_engines(self, count: int) -> None:
        """Wait until that many engines are registered."""
        while self.told[-1].get("engines") != count:
            seen, self.told = self.told, []
            try:
                self.wait_told(lambda record: "engines" in record)
            except TimeoutError:
                self.told = seen
                raise

    def log(self) -> str:
        """All that it has written."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def furl_file(self, role: str) -> Path:
        """Where it put a furl."""
        return self.home / "security" / furl.FILES.get(role, f"ipcontroller-{role}.furl")

    def furl(self, role: str) -> Furl:
        """A furl of it."""
        return furl.load(self.furl_file(role), role)

    def address(self, role: str) -> tuple[str, int]:
        """Where it listens for a role."""
        return self.furl(role).hints[0]

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and give its exit code."""
        if self.is_alive():
            self.process.send_signal(number)
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if self._ready >= 0:
            os.close(self._ready)
            os.close(self._lifeline)
            self._ready = -1
        return code


@contextmanager
def controller(home: Path, options: Sequence[str] = LOOPBACK, **how: Any) -> Iterator[Controller]:
    """A controller for the length of a with statement."""
    running = Controller(home, options, **how)
    try:
        yield running
    finally:
        running.stop()


def launch(running: Controller, engines: int, **more: Any) -> Furl:
    """What ipcluster does: tell its controller of a launch, and wait for the furl file."""
    path = running.home / "security" / "ipengine-1.furl"
    said = {"name": "default-1", "file": str(path), "engines": engines, "seconds": None, "local": False, **more}
    running.is_told({"launch": said})
    wait_until(path.exists, "the furl file of a launch")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return furl.load(path, "engine")


@contextmanager
def engines(home: Path, count: int, options: Sequence[str] = ()) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Plain engines without MPI, for the length of a with statement."""
    command = [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none", "--wait", "10", *options]
    running = []
    with open(home / "engines.log", "ab") as log:
        for _ in range(count):
            running.append(
                subprocess.Popen(command, env=environment(home), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )
    try:
        yield running
    finally:
        for engine in running:
            engine.terminate()
        for engine in running:
            try:
                engine.wait(10)
            except subprocess.TimeoutExpired:
                engine.kill()
                engine.wait()


def run_command(
    module: str, home: Path, *arguments: str, extra: Mapping[str, str] | None = None
) -> tuple[int, str, float]:
    """Run a command of ipmpi to its end: exit code, what is on the screen, seconds."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env=environment(home, extra), stdin=subprocess.DEVNULL,
        capture_output=True, timeout=30, check=False, cwd=home,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode(), time.monotonic() - begin
