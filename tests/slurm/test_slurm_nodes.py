"""The furl of a job's engines is good on the nodes of the job."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Tests are imported by path (importlib), so the helpers beside them are not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from submitted import Submitted

if TYPE_CHECKING:
    from real_slurm import Slurm

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(240)]


@contextmanager
def thief(cluster: Submitted, node: str) -> Iterator[subprocess.Popen[bytes]]:
    """An engine in a job of its own, with the furl of the cluster's engines."""
    (stolen,) = cluster.home.glob("security/**/ipengine-*.furl")
    with (cluster.home / "stranger.out").open("wb") as output:
        running = subprocess.Popen(
            [
                *("srun", "-n", "1", "-w", node, "--mpi=none", sys.executable, "-m", "ipmpi.cli.ipengine"),
                *("--mpi", "none", "--furl-file", str(stolen)),
            ],
            env=cluster.environ, cwd=cluster.home, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield running
    finally:
        running.terminate()
        running.wait(60)


def test_engines_of_another_job_have_to_be_admitted(slurm: Slurm) -> None:
    words = ["-n", "2", "--nodes", "2", "--time", "0:10:00", "--directive=--hold", "--directive=--nodelist=n1,n2"]
    cluster = Submitted(slurm, "thief", sys.executable, words)
    try:
        cluster.said("waits in the queue")
        mec = cluster.mec()
        with thief(cluster, "n3") as other:
            line = cluster.said("asks to be admitted")
            assert "1 engine on n3 (user " in line
            assert "runs on no node now: it waits in the queue, or has ended" in line
            assert mec.get_ids() == []
            slurm.run("scontrol", "release", cluster.job)
            cluster.up()
            assert sorted(engine["host"] for engine in mec.cluster_info()["engines"]) == ["n1", "n2"]
            (waiting,) = mec.waiting_engines()
            assert waiting["hosts"] == ["n3"]
            mec.turn_away(waiting["set"])
            other.wait(60)
        assert "does not admit these engines" in (cluster.home / "stranger.out").read_text()
        assert mec.get_ids() == [0, 1]
    finally:
        assert cluster.stop() == 0, cluster.output()
