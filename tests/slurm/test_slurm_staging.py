"""``ipcluster slurm --stage-env``: copies of the environment on the nodes of a real job."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Tests are imported by path (importlib), so the helpers beside them are not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from submitted import ROOT, Submitted

if TYPE_CHECKING:
    from real_slurm import Slurm

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(240)]

WORDS = ("-n", "4", "--nodes", "2", "--time", "0:10:00")
LOOK = """
import glob, os, sys
found = [(path, os.stat(path).st_mode & 0o777) for path in glob.glob('/tmp/ipmpi-env-*')]
prefix = sys.prefix
total = mpi.COMM_WORLD.allreduce(1)
"""


@pytest.fixture(scope="module")
def python(slurm: Slurm) -> str:
    """The interpreter of a small environment, whose packages are links to those of the tests."""
    prefix = slurm.folder / "small"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    packages = next(prefix.glob("lib/python3*/site-packages"))
    own = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "links.pth").write_text(f"{ROOT}\n{own}\n")
    return str(prefix / "bin" / "python")


@pytest.mark.parametrize("end", ["told to end", "cancelled"])
def test_engines_of_two_nodes_run_copies_which_are_gone_afterwards(slurm: Slurm, python: str, end: str) -> None:
    archive = slurm.folder / "small.tar"
    packing = subprocess.run(
        [python, "-m", "ipmpi.cli.ipcluster", "pack", archive], capture_output=True, text=True, check=False
    )
    assert packing.returncode == 0, packing.stderr
    launcher = os.path.join(os.path.dirname(sys.executable), "mpirun")
    words = [*WORDS, "--launcher", launcher, "--stage-env", str(archive)]
    submitted = Submitted(slurm, f"staged-{end.replace(' ', '-')}", python, words)
    try:
        mec = submitted.up().mec()
        hosts = [engine["host"] for engine in mec.cluster_info()["engines"]]
        assert hosts == ["n1", "n1", "n2", "n2"]
        mec.execute(LOOK)
        (place,) = set(mec.pull("prefix"))
        copy = place.removesuffix("/env")
        assert copy.startswith(f"/tmp/ipmpi-env-{submitted.job}-")
        assert mec.pull("found") == [[(copy, 0o700)]] * 4
        assert mec.pull("total") == [4] * 4
        there = [slurm.folder / "nodes" / host / Path(copy).name for host in ("n1", "n2")]
        assert all(path.is_dir() for path in there)
        if end == "cancelled":
            slurm.run("scancel", submitted.job)
        else:
            mec.kill(controller=True)
        deadline = time.monotonic() + 60
        while any(path.exists() for path in there):
            assert time.monotonic() < deadline, f"copies stay: {there}\n{submitted.output()}"
            time.sleep(0.2)
    finally:
        submitted.stop()
