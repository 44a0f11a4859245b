"""Where ranks are, while they wait in MPI, hold the GIL, or are stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipmpi.client.display.ranksets import RankSet

if TYPE_CHECKING:
    from real_clusters import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

PROGRAM = """
import ctypes, os
from mpi4py import MPI
held = ctypes.create_string_buffer(1)
def wait(fifo):
    byte = os.open(fifo, os.O_RDONLY)
    ctypes.PyDLL(None).read(byte, held, 1)
    os.close(byte)
def step(comm, fifo):
    if comm.rank == 2:
        wait(fifo)
    comm.Barrier()
"""


def test_ranks_in_mpi_and_in_c_are_found_without_disturbing_them(cluster: Cluster, tmp_path: Path) -> None:
    from real_clusters import wait_for

    mec = cluster.mec()
    (tmp_path / "heat.py").write_text(PROGRAM)
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    mec.execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import heat")
    assert str(mec.where()).startswith("[0-3]  idle")
    pending = mec.execute(f"\nheat.step(heat.MPI.COMM_WORLD, {fifo!r})", block=False)
    with open(fifo, "wb", buffering=0) as byte:  # rank 2 has opened its end

        def apart() -> bool:
            groups = mec.where().groups
            return list(groups) == [RankSet([0, 1, 3]), RankSet([2])] and groups[RankSet([2])].frames[0].line == 7

        assert wait_for(apart, 20), mec.where()
        begin = time.monotonic()
        where = mec.where()
        assert time.monotonic() - begin < 1
        there = where[0].frames
        assert [frame.function for frame in there] == ["step", "<module>"]
        assert (there[0].file, there[0].text) == (str(tmp_path / "heat.py"), "comm.Barrier()")
        assert there[1].text == f"heat.step(heat.MPI.COMM_WORLD, {fifo!r})"[:80]
        assert [frame.function for frame in where[2].frames[:2]] == ["wait", "step"]
        native = mec.where([0], native=True)[0].frames
        assert any(frame.function in ("MPI_Barrier", "PMPI_Barrier") for frame in native), native
        pid = cluster.pids(mec)[1]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert wait_for(lambda: mec.where([1])[1].state == "stopped", 5)
            assert mec.where([1])[1].frames[0].function == "step"
        finally:
            os.kill(pid, signal.SIGCONT)
        byte.write(b"x")
    pending.get_result(timeout=30)
    assert str(mec.where()).startswith("[0-3]  idle")


def test_a_task_is_found_by_its_name(cluster: Cluster, tmp_path: Path) -> None:
    from real_clusters import wait_for

    mec, tc = cluster.mec(), cluster.tc()
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)

    def simulate(path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read(1)

    future = tc.submit(simulate, fifo)
    assert wait_for(lambda: "simulate, " in str(mec.where()), 10), mec.where()
    # It is named when it begins, and only then is it imported and called.
    assert wait_for(lambda: any(s.frames and s.frames[0].function == "simulate" for s in mec.where().values()), 10)
    (stack,) = [stack for stack in mec.where().values() if stack.state == "running"]
    assert stack.frames[0].function == "simulate"
    with open(fifo, "wb", buffering=0) as byte:
        byte.write(b"x")
    assert future.result(timeout=10) == b"x"
