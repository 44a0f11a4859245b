"""A rank of a job dies, its launcher ends all others, and the script of the job starts them again."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
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

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(240)]

ALL_DIE = {"mpirun": ["--fault-tolerance", "off"], "srun": ["--launcher", "srun", "--srun-mpi", "pmix"]}
"""Launchers that end all ranks when one has died."""

WITHIN = 60.0
"""Seconds from the death of a rank until all are there again."""


@pytest.fixture(scope="module", params=ALL_DIE)
def fragile(request: pytest.FixtureRequest, slurm: Slurm) -> Iterator[Submitted]:
    """Four engines on two nodes."""
    words = ["-n", "4", "--nodes", "2", "--time", "0:10:00", *ALL_DIE[request.param]]
    submitted = Submitted(slurm, f"fragile-{request.param}", sys.executable, words)
    yield submitted.up()
    submitted.stop()


DIE = """
import os, signal, time
open(f"{folder}/busy-{id}", "w").close()
while not os.path.exists(f"{folder}/die"):
    time.sleep(0.05)
if id == 2:
    os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""
"""What each engine runs: engine 2 kills itself when a file is there."""


def test_a_set_is_started_again_in_its_job(fragile: Submitted, slurm: Slurm) -> None:
    mec, tc, job = fragile.mec(), fragile.tc(), fragile.job
    before = {engine["id"]: engine["pid"] for engine in mec.cluster_info()["engines"]}
    mec.push({"folder": str(fragile.home)})
    pending = mec.execute(DIE, block=False)
    assert wait_for(lambda: len(list(fragile.home.glob("busy-*"))) == 4, 30)
    tasks = [tc.submit(pow, n, 2) for n in range(20)]
    (fragile.home / "die").touch()
    with pytest.raises(CompositeError) as caught:
        pending.get_result()
    assert {kind for kind, _, _ in caught.value.elist} == {EngineLost}
    assert wait_for(lambda: set(mec.get_ids()) == set(before) and pids(mec).isdisjoint(before.values()), WITHIN)
    assert [task.result(timeout=60) for task in tasks] == [n * n for n in range(20)]
    assert fragile.job == job
    assert slurm.state(job) == "RUNNING"
    told = fragile.said("starts them again (1 of 3)")
    assert re.search(r"\(rank 2 \(pid \d+ on n2\) ", told), fragile.output()
    fragile.said("All 4 engines are there again.")
    (output,) = (fragile.home / "log").glob(f"**/ipmpi-{job}.out")
    assert "its engines are started again (1 of 3)" in output.read_text()


def pids(mec: object) -> set[int]:
    return {engine["pid"] for engine in mec.cluster_info()["engines"]}  # type: ignore[attr-defined]
