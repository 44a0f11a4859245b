"""A rank of a job dies, its launcher ends all others, and the script of the job starts them again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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


def _waits() -> Callable[[str], int]:
    # Defined inside, so that it travels by value: engines do not have this module.
    def wait_for_file(path: str) -> int:
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.1)
        return os.getpid()

    return wait_for_file


def test_a_set_is_started_again_in_its_job(fragile: Submitted, slurm: Slurm) -> None:
    mec, tc, job = fragile.mec(), fragile.tc(), fragile.job
    before = {engine["id"]: engine["pid"] for engine in mec.cluster_info()["engines"]}
    going_on = fragile.home / "go on"
    tasks = [tc.submit(_waits(), str(going_on)) for _ in range(6)]
    with pytest.raises(CompositeError) as caught:
        mec.execute("import os, signal\nif id == 2: os.kill(os.getpid(), signal.SIGKILL)\nelse: signal.pause()")
    assert {kind for kind, _, _ in caught.value.elist} == {EngineLost}
    assert wait_for(lambda: set(mec.get_ids()) == set(before) and pids(mec).isdisjoint(before.values()), WITHIN)
    assert fragile.job == job
    assert slurm.state(job) == "RUNNING"
    told = fragile.said("starts them again (1 of 3)")
    assert "rank 2 " in told, fragile.output()
    assert "SIGKILL" in told
    fragile.said("All 4 engines are there again.")
    going_on.touch()
    assert len([task.result(timeout=60) for task in tasks]) == 6
    (output,) = (fragile.home / "log").glob(f"**/ipmpi-{job}.out")
    assert "its engines are started again (1 of 3)" in output.read_text()


def pids(mec: object) -> set[int]:
    return {engine["pid"] for engine in mec.cluster_info()["engines"]}  # type: ignore[attr-defined]
