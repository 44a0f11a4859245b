"""When one rank takes its set along, the user is told which one it was, and how, and sees that rank's log."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.errors import KernelError

if TYPE_CHECKING:
    from real_clusters import Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]
ROOT = Path(__file__).resolve().parents[2]
MPIS = [pytest.param("openmpi", id="openmpi"), pytest.param("mpich", id="mpich", marks=pytest.mark.mpich)]
LOOPBACK = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1")

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
ABORT = "from mpi4py import MPI; MPI.COMM_WORLD.Abort(5)"
ABORT_IN_C = """
import ctypes
from mpi4py import MPI
[path] = {line.split()[-1] for line in open('/proc/self/maps') if '/libmpi.so' in line}
is_open_mpi = 'Open MPI' in MPI.Get_library_version()
world = (ctypes.c_void_p if is_open_mpi else ctypes.c_int)(MPI._handleof(MPI.COMM_WORLD))
ctypes.CDLL(path).MPI_Abort(world, 5)
"""


class Ended:
    """An ``ipcluster`` that came to its end: all that it wrote, the processes of its ranks, what clients heard."""

    def __init__(self) -> None:
        self.screen = ""
        self.pids: list[int] = []
        self.heard = ""
        self.code: int | None = None


@contextmanager
def cluster(home: Path, mpi: Flavour, *options: str) -> Iterator[tuple[subprocess.Popen[str], Ended]]:
    """Four engines; at the end of the block ``ipcluster`` has ended by itself, or is stopped."""
    ended = Ended()
    words = ["-n", "4", "--restarts", "0", *options, *LOOPBACK]
    with subprocess.Popen(
        [mpi.python, "-m", "ipmpi.cli.ipcluster", *words],
        env={**os.environ, **mpi.environ, "IPYTHONDIR": str(home), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                ended.screen += line
                if line.startswith("kill -INT"):
                    break
            yield process, ended
        finally:
            process.terminate()
            ended.screen += process.stdout.read()
            ended.code = process.wait(30)


def client(home: Path) -> MultiEngineClient:
    return MultiEngineClient(str(home / "security" / "ipcontroller-mec.furl"))


def ends_by(home: Path, mpi: Flavour, source: str, *options: str) -> Ended:
    """Run source on rank 2, and wait until the cluster has ended because of that."""
    with cluster(home, mpi, *options) as (process, ended), client(home) as mec:
        mec.execute("import os; pid = os.getpid()")
        ended.pids = mec.pull("pid")
        pending = mec.execute(source, targets=2, block=False)
        assert process.stdout is not None
        ended.screen += process.stdout.read()
        with pytest.raises(KernelError) as raised:
            pending.get_result()
        ended.heard = str(raised.value)
        with pytest.raises(KernelError) as gone:
            mec.get_ids()
        ended.heard += str(gone.value)
    return ended


@pytest.mark.parametrize("name", MPIS)
@pytest.mark.parametrize(
    ("source", "how"), [(CRASH, "was killed by SIGSEGV"), (ABORT, "called MPI_Abort with code 5")]
)
def test_the_rank_that_took_the_others_along_is_named_and_its_log_is_shown(
    tmp_path: Path, flavour_named: Callable[[str], Flavour], name: str, source: str, how: str
) -> None:
    ended = ends_by(tmp_path, flavour_named(name), source, "--fault-tolerance", "off")
    named = rf"rank 2 \(pid {ended.pids[2]}( on [^)]+)?\) {how}"
    assert re.search(rf"All engines have ended: .*{named}", ended.screen), ended.screen
    assert re.search(rf"All engines have ended: .*{named}", ended.heard), ended.heard
    shown = re.findall(r"The last lines of (\S+ipengine\S+):", ended.screen)
    assert len(shown) == 1, ended.screen
    assert shown[0].endswith(f"-2-{ended.pids[2]}.log")
    if source is CRASH:
        assert re.search(r'File "<ipmpi \d+>", line 1 in <module>', ended.screen), "Python's stack at the crash"


def test_who_was_killed_is_named(tmp_path: Path, flavour_named: Callable[[str], Flavour]) -> None:
    ended = ends_by(tmp_path, flavour_named("openmpi"), KILL, "--fault-tolerance", "off")
    assert re.search(
        rf"All engines have ended: .*rank 2 \(pid {ended.pids[2]} .*was killed by SIGKILL", ended.screen
    )


@pytest.mark.mpich
def test_who_was_killed_because_of_another_one_is_not_blamed(
    tmp_path: Path, flavour_named: Callable[[str], Flavour]
) -> None:
    """MPICH's launcher names one that it has killed itself."""
    ended = ends_by(tmp_path, flavour_named("mpich"), KILL)
    assert not re.search(r"All engines have ended: .*rank [013]\b", ended.screen), ended.screen
    assert re.search(rf"All engines have ended: mpiexec ended .*rank 2 \(pid {ended.pids[2]}\b", ended.screen)


@pytest.mark.parametrize("name", MPIS)
def test_mpi_abort_that_a_library_in_c_has_called(
    tmp_path: Path, flavour_named: Callable[[str], Flavour], name: str
) -> None:
    """MPICH's returns, so that the command may even succeed; and its message may get lost."""
    with (
        cluster(tmp_path, flavour_named(name), "--fault-tolerance", "off") as (process, ended),
        client(tmp_path) as mec,
    ):
        mec.execute(ABORT_IN_C, targets=2, block=False)
        assert process.stdout is not None
        ended.screen += process.stdout.read()
        with pytest.raises(KernelError, match=r"All engines have ended: mpiexec ended \(exit code 5\)"):
            mec.get_ids()
    if name == "openmpi":
        assert "rank 2" in ended.screen
        assert "called MPI_Abort with code 5" in ended.screen


def test_where_the_others_live_on_the_crash_is_told_too(
    tmp_path: Path, flavour_named: Callable[[str], Flavour]
) -> None:
    with cluster(tmp_path, flavour_named("openmpi")) as (process, _), client(tmp_path) as mec:
        mec.execute("import os; pid = os.getpid()")
        pids = mec.pull("pid")
        pending = mec.execute(CRASH, targets=2, block=False)
        assert process.stdout is not None
        told = next(line for line in process.stdout if "engines are left" in line)
        with pytest.raises(KernelError):
            pending.get_result()
    host = os.uname().nodename
    assert f"3 of 4 engines are left (rank 2 (pid {pids[2]} on {host}) was killed by SIGSEGV)" in told
