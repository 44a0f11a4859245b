"""What each rank imports and opens before it is ready. On a shared file system each costs a thousand times."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import ipmpi

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

TRACED = "openat,open,stat,newfstatat,statx,access,readlink,read,pread64"
CALL = re.compile(r"(?:\d+ +)?(?P<name>\w+)\(.* = (?P<result>-?\d+)")

# Bounds of what ipmpi adds to Python, mpi4py and msgspec, on the same machine. Python opens the cached code of
# each of about 110 modules, and looks for it in the folders where it may be.
MODULES = 160
OPENS = 190
LOOKS = 900
BYTES = 2_000_000

NEVER = {
    *("OpenSSL", "cryptography", "_ssl", "ssl", "hashlib", "_hashlib", "secrets", "random"),
    *(
        "asyncio",
        "sqlite3",
        "http",
        "email",
        "urllib.request",
        "importlib.metadata",
        "pkg_resources",
        "ctypes.util",
    ),
    *("subprocess", "tempfile", "json", "base64", "dataclasses", "pdb", "bdb", "debugpy", "unittest"),
    *("IPython", "numpy", "cloudpickle", "psutil", "jinja2"),
    *(
        "ipmpi.transport.loop",
        "ipmpi.transport.link",
        "ipmpi.tls",
        "ipmpi.furl",
        "ipmpi.controller",
        "ipmpi.launch",
    ),
    *("ipmpi.client", "ipmpi.protocol.messages", "ipmpi.protocol.tasks", "ipmpi.engine.agent.nodeagent"),
}
"""Ranks come to these when a command needs them, if ever; some only their agent and the controller need."""

LIBRARIES = "import argparse, logging, sys, msgspec; from mpi4py import MPI; print(len(sys.modules))"
"""What Python, mpi4py and msgspec ask for by themselves, with MPI started by the same launcher."""


class Count(NamedTuple):
    """What a process has asked file systems for: files, whether files are there, and bytes."""

    opens: int
    looks: int
    bytes: int


def counted(trace: str) -> Count:
    opens = looks = size = 0
    for line in trace.splitlines():
        found = CALL.match(line)
        if found is None or '"/proc/' in line or '"/sys/' in line:
            continue
        if found["name"].startswith("open"):
            opens += 1
        elif found["name"] in ("read", "pread64"):
            size += max(int(found["result"]), 0)
        else:
            looks += 1
    return Count(opens, looks, size)


def test_calls_are_counted() -> None:
    trace = """\
openat(AT_FDCWD, "/a/b.py", O_RDONLY|O_CLOEXEC) = 3
newfstatat(AT_FDCWD, "/a/c.py", 0x7ffd, 0) = -1 ENOENT (No such file or directory)
read(3, "..."..., 4096) = 4096
openat(AT_FDCWD, "/proc/self/stat", O_RDONLY) = 3
+++ exited with 0 +++
"""
    assert counted(trace) == Count(opens=1, looks=1, bytes=4096)


@pytest.fixture
def strace(need: Callable[[str, object], None], tmp_path: Path) -> Callable[[str], list[str]]:
    """What goes before the command of a rank; each process gets a file of its own, ``NAME.PID``."""
    program = shutil.which("strace") or ""
    need("no strace; apt-get install strace", program)

    def words(name: str) -> list[str]:
        return [program, "-qq", "-ff", "-o", str(tmp_path / name), "-s", "16", "-e", f"trace={TRACED}"]

    allowed = subprocess.run([*words("try"), "true"], capture_output=True, text=True, check=False)
    need(f"strace may not trace here: {allowed.stderr}", allowed.returncode == 0)
    return words


def test_a_rank_asks_file_systems_for_little_more_than_its_libraries_do(
    flavour: Flavour, new_cluster: Callable[..., Cluster], strace: Callable[[str], list[str]], tmp_path: Path
) -> None:
    cluster = new_cluster(flavour)
    # As where it is installed: with the code of its modules in cached files.
    subprocess.run([flavour.python, "-m", "compileall", "-q", Path(ipmpi.__file__).parent], check=True)

    def traced(name: str, command: list[str]) -> list[str]:
        at = command.index(flavour.python)
        return [*command[:at], *strace(name), *command[at:]]

    # Two ranks, one of which starts the agent: that is counted apart, in a process of its own.
    cluster.launch(traced("ranks", cluster.command(2)))
    cluster.wait_for_engines(2)
    pids = cluster.pids(cluster.mec())
    ranks = [counted((tmp_path / f"ranks.{pid}").read_text(errors="replace")) for pid in pids.values()]
    bare = cluster.launch(traced("bare", cluster.command(1, program=("-c", LIBRARIES))))
    assert bare.wait(60) == 0, cluster.output()
    trace = max(tmp_path.glob("bare.*"), key=lambda path: path.stat().st_size)  # threads of MPI have files, too
    least = counted(trace.read_text(errors="replace"))
    for rank in ranks:
        more = Count(*(a - b for a, b in zip(rank, least, strict=True)))
        assert more.opens <= OPENS, (more, least)
        assert more.looks <= LOOKS, (more, least)
        assert more.bytes <= BYTES, (more, least)


def test_a_rank_loads_nothing_that_it_need_not(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    mec = new_cluster(flavour).start(2)
    bare = subprocess.run([flavour.python, "-c", LIBRARIES], capture_output=True, text=True, check=True)
    mec.execute("import sys; loaded = sorted(sys.modules)")
    for loaded in mec.pull("loaded"):
        found = {name for name in loaded if any(name == one or name.startswith(one + ".") for one in NEVER)}
        assert not found, f"needed by no rank before its first command: {sorted(found)}"
        assert len(loaded) - int(bare.stdout) <= MODULES
