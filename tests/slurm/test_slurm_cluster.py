"""``ipcluster slurm``: engines of a real batch job, steered from outside of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Tests are imported by path (importlib), so the helpers beside them are not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from submitted import INSIDE, Submitted

if TYPE_CHECKING:
    from real_slurm import Slurm

from ipmpi.errors import CompositeError, EngineLost

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(240)]

CUT = 20.0
"""Seconds that a node is off the network."""


def test_engines_of_three_nodes_are_one_set_behind_one_connection(cluster: Submitted) -> None:
    mec = cluster.mec()
    engines = mec.cluster_info()["engines"]
    assert [(engine["id"], engine["rank"]) for engine in engines] == [(rank, rank) for rank in range(6)]
    assert [engine["host"] for engine in engines] == ["n1", "n1", "n2", "n2", "n3", "n3"]
    assert len({engine["set"] for engine in engines}) == 1
    port = Path(cluster.furl("engine")).read_text().partition("/engine/")[0].rpartition(":")[2]
    listed = subprocess.run(
        ["ss", "-Htn", "state", "established", f"sport = :{port}"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1, listed.stdout


def test_ranks_compute_together_and_farm_at_the_same_time(cluster: Submitted) -> None:
    mec, tc = cluster.mec(), cluster.tc()
    tasks = [tc.submit(pow, n, 2) for n in range(500)]
    for _ in range(3):
        mec.execute("total = mpi.COMM_WORLD.allreduce(id)")
    assert mec.pull("total") == [15] * 6
    assert tc.gather(tasks) == [n * n for n in range(500)]


def test_engines_know_how_long_their_job_lasts(cluster: Submitted) -> None:
    left = cluster.mec().time_left()
    assert left is not None
    assert 300 < left <= 600


def test_a_node_without_network_for_a_while_loses_nothing(cluster: Submitted, slurm: Slurm) -> None:
    mec, tc = cluster.mec(), cluster.tc()
    started = time.monotonic()
    with slurm.without_network(1, 3):  # the node that holds the link to the controller, and another one
        pending = mec.execute("import os; where = os.uname().nodename", block=False)
        futures = [tc.submit(pow, n, 2) for n in range(200)]
        # This is not to wait for a state: the time without network is what is tested.
        time.sleep(CUT)
    pending.get_result()
    assert [future.result(timeout=60) for future in futures] == [n * n for n in range(200)]
    assert mec.get_ids() == [0, 1, 2, 3, 4, 5]
    assert time.monotonic() - started < CUT + 60
    mec.execute("total = mpi.COMM_WORLD.allreduce(id)")
    assert mec.pull("total") == [15] * 6


def test_a_cancelled_job_is_a_clean_loss(slurm: Slurm, pythons: Callable[[str], str], flavour: str) -> None:
    lost = Submitted(slurm, f"lost-{flavour}", pythons(flavour), ["-n", "4", "--nodes", "2", "--time", "0:10:00"])
    try:
        lost.up()
        mec, tc = lost.mec(), lost.tc()
        pending = mec.execute("import time; time.sleep(100)", block=False)
        task = tc.submit(time.sleep, 100)
        slurm.cancel(lost.job)
        with pytest.raises(CompositeError) as caught:
            pending.get_result()
        assert [kind for kind, _, _ in caught.value.elist] == [EngineLost] * 4
        reasons = [str(error) for _, error, _ in caught.value.elist]
        assert all(f"SIGTERM, as when job {lost.job} is cancelled" in reason for reason in reasons), (
            reasons,
            lost.output(),
        )
        assert not task.done()
        assert tc.queue_status()["scheduled"] == 1, "it waits for other engines"
        assert f"job {lost.job} was cancelled" in lost.said("was cancelled")
        lost.said("OK: All processes cleaned up.")
        lost.process.wait(60)  # by itself: at its very end, a signal of stop() would be its exit code
    finally:
        assert lost.stop() == 0, "it ended as somebody wished"


def test_the_controller_may_be_in_the_job_too(slurm: Slurm) -> None:
    words = ["-n", "4", "--nodes", "2", "--time", "0:10:00", "--in-job"]
    inside = Submitted(slurm, "inside", sys.executable, words, listen=INSIDE)
    try:
        inside.up()
        hosts = [engine["host"] for engine in inside.mec().cluster_info()["engines"]]
        assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
        assert inside.tc().map(lambda n: n + 1, range(10)) == list(range(1, 11))
    finally:
        assert inside.stop() == 0
