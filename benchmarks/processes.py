"""The processes of one cluster, by what they are and on which node, and what they use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from ipmpi.bench.machine import cpu_seconds
from ipmpi.engine.agent.agentstart import PROCESS_NAME
from ipmpi.launch.cluster.controller import CONTROLLER_MODULE
from ipmpi.launch.processes.mpi import ENGINE_MODULE

KINDS: Final = ("controller", "ipcluster", "agent", "rank", "launcher")


class Process(NamedTuple):
    """One process: its kind is one of :data:`KINDS`; processes of one node have the same ``network``."""

    pid: int
    kind: str
    network: int


def with_mark(mark: str) -> list[Path]:
    """Return the folders, in ``/proc``, of the processes that have ``NAME=VALUE`` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # Others end meanwhile, or belong to somebody else.
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(folder)
    return found


def of_cluster(mark: str) -> list[Process]:
    """Return the processes that were started with this text, as in ``NAME=VALUE``, in their environment."""
    found = []
    for folder in with_mark(mark):
        with contextlib.suppress(OSError):
            found.append(Process(int(folder.name), _kind(folder), (folder / "ns" / "net").stat().st_ino))
    return found


def _kind(folder: Path) -> str:
    if (folder / "comm").read_text().strip() == PROCESS_NAME:
        return "agent"
    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    if "python" in os.path.basename(words[0]):
        modules = {CONTROLLER_MODULE: "controller", ENGINE_MODULE: "rank", "ipmpi.cli.ipcluster": "ipcluster"}
        for module, kind in modules.items():
            if module in words:
                return kind
    return "launcher"


class Usage(NamedTuple):
    """What processes have used so far: seconds of processors, and how often they have begun to wait."""

    seconds: float
    waits: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> Usage:
        """Read it; processes that have ended count nothing."""
        pids = list(pids)
        return cls(cpu_seconds(pids), sum(map(_waits, pids)))

    def since(self, before: Usage) -> Usage:
        """Return the difference."""
        return Usage(self.seconds - before.seconds, self.waits - before.waits)


def _waits(pid: int) -> int:
    count = 0
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for line in (thread / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    count += int(line.split()[1])
    return count


def own_bytes(pid: int) -> int:
    """Return the memory of a process, of which it has its part where it shares some (Pss); 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
