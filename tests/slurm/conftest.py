"""A real Slurm of three nodes on this machine, each in network and mount namespaces of its own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Tests are imported by path (importlib), so helpers beside them, and beside those of tests/integration that these
# tests use, are not found otherwise.
sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
sys.path.insert(0, str(Path(__file__).parent))

from real_slurm import PROGRAMS, Slurm, started
from short_job import WORDS, ShortJob
from submitted import Submitted

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def slurm(need: Callable[[str, object], None]) -> Iterator[Slurm]:
    """The batch system, for all tests of a session."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    need(f"no {', '.join(missing)}: apt-get install slurm-wlm munge iproute2 libpmix2", not missing)
    need("the test nodes are network namespaces, which only root may make", os.geteuid() == 0)
    folder = Path(tempfile.mkdtemp(prefix="ipmpi-slurm-"))
    folder.chmod(0o755)
    with started(folder, ROOT) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pythons(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The interpreter of each MPI: the one of the tests, and that of the environment with MPICH."""

    def find(flavour: str) -> str:
        return sys.executable if flavour == "openmpi" else str(request.getfixturevalue("mpich_python"))

    return find


@pytest.fixture(scope="session")
def short_job(slurm: Slurm) -> Iterator[ShortJob]:
    """The shortest job that Slurm knows: one minute. It begins with the first tests; the last ones look at it."""
    # On the node that no test cuts off.
    submitted = Submitted(slurm, "short", sys.executable, [*WORDS, "--directive=--nodelist=n2"])
    try:
        yield ShortJob(submitted)
    finally:
        submitted.stop()


@pytest.fixture(scope="module", params=["openmpi", pytest.param("mpich", marks=pytest.mark.mpich)])
def cluster(
    request: pytest.FixtureRequest, slurm: Slurm, pythons: Callable[[str], str], short_job: ShortJob
) -> Iterator[Submitted]:
    """Six engines on three nodes, under each MPI."""
    submitted = Submitted(
        slurm, request.param, pythons(request.param), ["-n", "6", "--nodes", "3", "--time", "0:10:00"]
    )
    yield submitted.up()
    assert submitted.stop() == 0, submitted.output()
    assert slurm.state(submitted.job) in ("CANCELLED", "COMPLETED", "COMPLETING")


@pytest.fixture(params=["openmpi", pytest.param("mpich", marks=pytest.mark.mpich)])
def flavour(request: pytest.FixtureRequest) -> str:
    """The name of each MPI."""
    return str(request.param)
