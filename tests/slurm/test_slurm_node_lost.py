"""All processes of a job on one of its nodes end at once, as when the node fails: what is told, who goes on."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Tests are imported by path (importlib), so the helpers beside them are not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from submitted import Submitted

if TYPE_CHECKING:
    from real_slurm import Slurm

from ipmpi.errors import CompositeError, EngineLost
from tests.integration.real_clusters import wait_for
from tests.processes import processes_with

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(240)]

WORKS = """
import os, time
open(f"{folder}/busy-{id}", "w").close()
time.sleep(100)
"""


def on_node_of(pid: int, home: Path) -> list[int]:
    """The processes of a cluster that share the network of this one, and so its node."""
    network = os.readlink(f"/proc/{pid}/ns/net")
    found = []
    for each in processes_with(f"IPYTHONDIR={home}"):
        with suppress(OSError):
            if os.readlink(f"/proc/{each}/ns/net") == network:
                found.append(each)
    return found


@pytest.mark.mpich
def test_clients_are_told_which_node_is_lost_and_what_ran_there(
    slurm: Slurm, pythons: Callable[[str], str]
) -> None:
    """The ranks are started by srun, which lets the others go on. (mpirun would end them.)"""
    words = ["-n", "4", "--nodes", "2", "--time", "0:10:00"]
    cluster = Submitted(slurm, "node-lost", pythons("mpich"), words)
    try:
        mec = cluster.up().mec()
        engines = {engine["rank"]: engine for engine in mec.cluster_info()["engines"]}
        host = engines[2]["host"]
        assert (engines[3]["host"], engines[0]["host"] == host) == (host, False)
        mec.push({"folder": str(cluster.home)})
        pending = mec.execute(WORKS, targets=[2, 3], block=False)
        assert wait_for(lambda: len(list(cluster.home.glob("busy-*"))) == 2, 30)
        victims = on_node_of(engines[2]["pid"], cluster.home)
        assert {engines[2]["pid"], engines[3]["pid"]} < set(victims), "and their agent"
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)  # none of them shall see the end of another one
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(CompositeError) as caught:
            pending.get_result(timeout=60)
        losses = [error for _, error, _ in caught.value.elist]
        assert [(type(error), error.rank, error.host) for error in losses] == [
            (EngineLost, 2, host), (EngineLost, 3, host),
        ]  # fmt: skip
        why = rf"is gone: the node agent on {host}, through which it is reached, ended without a word: "
        for error in losses:
            assert re.search(why + r".*; it ran execute.* for [\d.]+ m?s$", str(error)), str(error)
        cluster.said("2 of 4 engines are left. The others keep working.")
        mec.execute("x = id")
        assert mec.pull("x") == [0, 1]
    finally:
        cluster.stop()
