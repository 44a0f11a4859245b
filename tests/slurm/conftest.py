"""A real Slurm of three nodes on this machine, each in network and mount namespaces of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Tests are imported by path (importlib), so the helper beside them is not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from real_slurm import PROGRAMS, Slurm, started, visible_on_nodes

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT.parent / "shared" / "slurm" / "slurm_cluster.sh"
FOLDER = Path("/tmp/ipmpi-slurm")


@pytest.fixture(scope="session")
def slurm(need: Callable[[str, object], None]) -> Iterator[Slurm]:
    """The batch system, for all tests of a session: one per machine, since its network has fixed addresses."""
    need(f"no {SCRIPT}, which starts a Slurm on one machine", SCRIPT.is_file())
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    need(f"no {', '.join(missing)}: apt-get install slurm-wlm munge iproute2 libpmix2", not missing)
    need("the test nodes are network namespaces, which only root may make", os.geteuid() == 0)
    shutil.rmtree(FOLDER, ignore_errors=True)
    # Each node has a /tmp of its own, in which only this folder and a checkout that is in /tmp itself can be seen.
    with visible_on_nodes(ROOT, FOLDER), started(SCRIPT, FOLDER) as found:
        yield found
    shutil.rmtree(FOLDER, ignore_errors=True)
