"""Nodes of a cluster on this machine: processes with a host name, a network, and a /dev/shm of their own.

The process that starts them has to have namespaces of its own (:func:`apart`): what is made here disappears with
it, and is seen by nobody else. That takes root, or a system that lets users have namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PREFIX: Final = "10.94.0"
"""Of all addresses; the network is seen by these nodes only."""

HERE: Final = f"{PREFIX}.254"
"""The address of the process that starts the nodes, as of a login node."""

_APART: Final = "IPMPI_BENCHMARK_APART"
_OWN: Final = ("--net", "--mount", "--uts")
_ENTER: Final = """#!/bin/sh
# Does what ssh does for a launcher: {name} [options] HOST COMMAND
while [ "${{1#-}}" != "$1" ]; do case $1 in -l | -p | -o | -i) shift 2 ;; *) shift ;; esac; done
host=${{1#*@}}; shift
exec nsenter --net --uts --mount --target "$(cat '{folder}'/"$host".pid)" sh -c "$*"
"""


class NoNodes(Exception):
    """This machine does not let us have namespaces; the message says why."""


def apart(module: str, arguments: Sequence[str]) -> int | None:
    """Run ``python -m module`` once more, with namespaces of its own; None in that process, else its exit code.

    Raises:
        NoNodes: the system refuses.
    """
    if os.environ.get(_APART):
        return None
    check()
    command = [*unshare(*_OWN), sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env={**os.environ, _APART: "1"}, check=False).returncode


def unshare(*kinds: str) -> list[str]:
    """What to write before a command that shall have such namespaces of its own, as in ``--net``."""
    return ["unshare", *kinds, *(["--user", "--map-root-user"] if os.geteuid() else [])]


def check() -> None:
    """Raise NoNodes if this system does not let us have nodes."""
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        raise NoNodes(f"nodes need the programs {', '.join(missing)} (Debian: util-linux, iproute2)")
    tried = subprocess.run([*unshare(*_OWN), "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise NoNodes(f"this system gives us no namespaces for nodes: {tried.stderr.strip()}")


class Nodes:
    """Some nodes and their network; use it in a ``with`` statement.

    Args:
        count: how many.
        folder: for files that belong to them.
        delay: seconds that a packet takes from one to another; 0 for no delay (:mod:`benchmarks.slownetwork`).

    Attributes:
        names: their host names.
        enter: a program that is called as ssh is, and runs a command on a node.

    Raises:
        NoNodes: a program that makes them has failed.
    """

    def __init__(self, count: int, folder: Path, delay: float = 0.0) -> None:
        self.names = [f"node{number}" for number in range(1, count + 1)]
        self.enter = folder / "enter"
        self._folder = folder
        self._delay = delay
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Nodes:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.enter.write_text(_ENTER.format(name=self.enter.name, folder=self._folder))
        self.enter.chmod(0o700)
        hosts = ["127.0.0.1 localhost", f"{HERE} login", *map(self._line, range(len(self.names)))]
        (self._folder / "hosts").write_text("\n".join(hosts) + "\n")
        _run("mount", "--bind", str(self._folder / "hosts"), "/etc/hosts")
        _run("hostname", "login")
        _run("ip", "link", "set", "lo", "up")
        self._connect()
        _run("ip", "address", "add", f"{HERE}/24", "dev", "eth0")
        _run("ip", "link", "set", "eth0", "up")
        for number, name in enumerate(self.names):
            self._start(number, name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for number in range(len(self.names)):
            subprocess.run(["ip", "link", "delete", f"to{number}"], check=False, stderr=subprocess.DEVNULL)
        for words in (["ip", "link", "delete", "eth0"], ["umount", "/etc/hosts"]):
            subprocess.run(words, check=False, stderr=subprocess.DEVNULL)

    def _connect(self) -> None:
        """Make the network, with an interface here."""
        if not self._delay:
            _run("ip", "link", "add", "eth0", "type", "bridge")
            return
        words = [sys.executable, "-m", "benchmarks.slownetwork", str(self._delay), "eth0"]
        words += [f"to{number}" for number in range(len(self.names))]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._processes.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise NoNodes("a network with a delay needs /dev/net/tun")

    def _line(self, number: int) -> str:
        return f"{PREFIX}.{number + 1} {self.names[number]}"

    def _start(self, number: int, name: str) -> None:
        script = f"hostname {name}; mount -t tmpfs tmpfs /dev/shm; ip link set lo up; echo; exec sleep infinity"
        process = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "sh", "-ec", script], stdout=subprocess.PIPE
        )
        self._processes.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise NoNodes(f"{name} could not be made")
        (self._folder / f"{name}.pid").write_text(str(process.pid))
        here = f"to{number}"
        inside = ("nsenter", "--net", "--target", str(process.pid))
        if self._delay:
            _run("ip", "link", "set", here, "netns", str(process.pid))
            _run(*inside, "ip", "link", "set", here, "name", "eth0")
        else:
            _run("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
            _run("ip", "link", "set", here, "master", "eth0", "up")
        _run(*inside, "ip", "address", "add", f"{PREFIX}.{number + 1}/24", "dev", "eth0")
        _run(*inside, "ip", "link", "set", "eth0", "up")

    def launcher_options(self, ranks: int, *, hydra: bool) -> list[str]:
        """Return options by which mpiexec places so many ranks on the nodes, the same number on each.

        Args:
            ranks: how many in all; the nodes have to divide it.
            hydra: the launcher is that of MPICH; else it is Open MPI's.
        """
        each = ranks // len(self.names)
        hosts = ",".join(f"{name}:{each}" for name in self.names)
        if hydra:
            return [
                "-launcher", "ssh", "-launcher-exec", str(self.enter), "-hosts", hosts, "-localhost", HERE,
                "-iface", "eth0",
            ]  # fmt: skip
        return ["--host", hosts, "--prtemca", "plm_ssh_agent", str(self.enter)]


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNodes(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
