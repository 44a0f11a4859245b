"""What clients are told of ranks that die in each way there is, under both MPIs, by real processes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipmpi import errors
from ipmpi.cgroups import memory_groups
from ipmpi.launch.processes.mpi import ULFM

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]


MIB = 1 << 20
LIMIT = 256 * MIB
RANKS = 7

CRASHES = """
def step():
    import ctypes
    print("step 1")
    ctypes.string_at(0)
step()
"""
HOGS = """
import time
hoard = []
while True:
    hoard.append(bytearray(b"1") * (1 << 23))
    if len(hoard) == 16:
        time.sleep(1)  # so that it is looked at
"""
CANNOT_MAP = """
import ctypes, resource, time
c = ctypes.CDLL(None)
c.malloc.restype = c.memset.argtypes = None
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
with open("/proc/self/statm") as file:
    most = int(file.read().split()[0]) * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
def fill():
    while True:
        address = c.malloc(1 << 25)
        if address is None:
            time.sleep(1.5)  # so that it is looked at
        c.memset(address, 0, 1)
fill()
"""
"""A library in C that does not look whether it got the memory that it asked for."""


class Victims:
    """A cluster, and ranks in it that no test has killed yet.

    Where the launcher ends all ranks with the first one, each test gets ranks of a new launch.
    """

    def __init__(self, cluster: Cluster, *, survive: bool) -> None:
        self.cluster = cluster
        self.mec: MultiEngineClient = cluster.mec()
        self._survive = survive
        if survive:
            cluster.launch(cluster.command(RANKS, *ULFM))

    def next(self) -> tuple[int, int]:
        """An engine of rank 1 or more, and its process."""
        from real_clusters import wait_for

        if not self._survive:
            assert wait_for(lambda: not self.mec.get_ids(), 15), "those of the test before"
            self.cluster.launch(self.cluster.command(2))
            self.cluster.wait_for_engines(2)
        elif not self.mec.get_ids():
            self.cluster.wait_for_engines(RANKS)
        engine = max(self.mec.cluster_info()["engines"], key=lambda each: int(each["rank"]))
        return engine["id"], engine["pid"]

    def dies(self, source: str) -> tuple[errors.EngineLost, str]:
        """Run this on the next one, and return the error and what a person sees of it."""
        engine, pid = self.next()
        return self.death_of(engine, pid, lambda: self.mec.execute(source, targets=[engine]))

    def death_of(self, engine: int, pid: int, call: Callable[[], object]) -> tuple[errors.EngineLost, str]:
        with pytest.raises(errors.CompositeError) as caught:
            call()
        (error,) = [value for _, value, _ in caught.value.elist]
        assert isinstance(error, errors.EngineLost)
        assert (error.pid, error.host) == (pid, os.uname().nodename)
        assert re.match(rf"engine {engine} \(rank {error.rank}, pid {pid} on {error.host}\) is gone: ", str(error))
        return error, caught.value.render(all=True)


@pytest.fixture(scope="module", params=["openmpi", pytest.param("mpich", marks=pytest.mark.mpich)])
def victims(
    request: pytest.FixtureRequest,
    flavour_named: Callable[[str], Flavour],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Victims]:
    from real_clusters import Cluster

    flavour = flavour_named(request.param)
    cluster = Cluster(tmp_path_factory.mktemp(flavour.name), flavour)
    try:
        yield Victims(cluster, survive=flavour.name == "openmpi")
    finally:
        cluster.stop()


def test_a_segfault_with_the_line_of_user_code(victims: Victims) -> None:
    error, shown = victims.dies(CRASHES)
    said = r"is gone: it was killed by SIGSEGV( \(core dumped\))? in step \(<ipmpi \d+>:5\); .*"
    assert re.search(said + r'it ran execute "def step\(\):\.\.\." for \d+ ms', str(error)), str(error)
    assert (error.signal, error.exit_code, error.oom_killed) == ("SIGSEGV", None, False)
    assert error.printed == "step 1"
    assert error.stack is not None
    assert error.stack.startswith("Fatal Python error: Segmentation fault")
    assert re.search(r'File "<ipmpi \d+>", line 6, in <module>\n +File "<ipmpi \d+>", line 5, in step\n', shown)
    assert "| step 1\n" in shown


def test_a_kill_with_its_memory_and_the_last_lines(victims: Victims) -> None:
    engine, pid = victims.next()
    ready = victims.cluster.home / f"ready{pid}"
    source = (
        "import time\nfor n in range(30): print('line', n)\n"
        f"x = bytearray(b'1') * {100 * MIB}\ntime.sleep(1)\nopen({str(ready)!r}, 'w').close()\ntime.sleep(60)"
    )
    pending = victims.mec.execute(source, targets=[engine], block=False)
    from real_clusters import wait_for

    assert wait_for(ready.exists, 30)
    os.kill(pid, signal.SIGKILL)
    error, _ = victims.death_of(engine, pid, lambda: pending.get_result(timeout=30))
    said = r"is gone: it was killed by SIGKILL; its memory was \d+\.?\d* MiB, [\d.]+ of [\d.]+ GiB were in use"
    assert re.search(said, str(error)), str(error)
    assert (error.signal, error.oom_killed) == ("SIGKILL", False)
    assert error.peak_rss is not None
    assert 100 * MIB < error.peak_rss < 400 * MIB
    assert error.seconds is not None
    assert 0.5 < error.seconds < 30
    assert error.printed is not None
    assert error.printed.splitlines() == [f"line {n}" for n in range(10, 30)]


def test_an_exit_of_user_code(victims: Victims) -> None:
    error, _ = victims.dies("import os; print('no end of line', end='', flush=True); os._exit(3)")
    assert "is gone: its process ended with exit code 3, as by os._exit() or by exit() in C; " in str(error)
    assert (error.signal, error.exit_code, error.abort_code, error.oom_killed) == (None, 3, None, False)
    assert error.printed == "no end of line"


def test_a_library_that_had_no_address_space_left(victims: Victims) -> None:
    error, _ = victims.dies(CANNOT_MAP)
    said = r"it was killed by SIGSEGV.* in fill \(<ipmpi \d+>:\d+\); .*its address space was [\d.]+ of [\d.]+ GiB"
    assert re.search(said + r" \(ulimit -v\); it ran execute", str(error)), str(error)


@contextmanager
def control_group(name: str) -> Iterator[Path]:
    """A memory control group of :data:`LIMIT` bytes, for processes that are put into it."""
    outer = memory_groups()
    if not outer:
        pytest.skip("no memory control groups here")
    folder = Path(outer[-1].folder) / name
    files = {1: ["memory.limit_in_bytes"], 2: ["memory.max"]}[outer[-1].version]
    try:
        folder.mkdir()
        for file in files:
            (folder / file).write_text(str(LIMIT))
        with suppress(OSError):
            (folder / "memory.swap.max").write_text("0")
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no memory control group can be made here: {error}")
    try:
        yield folder
    finally:
        from real_clusters import wait_for

        def removed() -> bool:
            with suppress(OSError):
                folder.rmdir()
            return not folder.exists()

        assert wait_for(removed, 20)


def test_the_kernel_ends_a_rank_that_takes_more_than_its_control_group_has(victims: Victims) -> None:
    engine, pid = victims.next()
    with control_group(f"ipmpi-test-{pid}") as folder:
        (folder / "cgroup.procs").write_text(str(pid))
        error, _ = victims.death_of(engine, pid, lambda: victims.mec.execute(HOGS, targets=[engine]))
    said = r"is gone: the kernel's OOM killer ended it \(SIGKILL\), as there was no memory left; its memory was "
    assert re.search(said + r"[\d.]+ (MiB, )?[\d.]* ?of 256 MiB", str(error)), str(error)
    assert 'it ran execute "hoard = []..." for ' in str(error)
    assert (error.signal, error.oom_killed) == ("SIGKILL", True)
    assert error.memory_limit == LIMIT
    assert error.memory_used is not None
    assert error.memory_used > 0.95 * LIMIT


def test_a_call_of_mpi_abort(victims: Victims) -> None:
    """The last test: launchers may take this for the end of all."""
    source = "from mpi4py import MPI\ndef give_up():\n    MPI.COMM_WORLD.Abort(5)\ngive_up()"
    error, shown = victims.dies(source)
    assert re.search(r"is gone: it called MPI_Abort with code 5 in give_up \(<ipmpi \d+>:3\); ", str(error))
    assert error.abort_code == 5
    assert "line 3, in give_up" in shown
