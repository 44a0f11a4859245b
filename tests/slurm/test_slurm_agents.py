"""The ranks that a Slurm job has on a node find one agent process there, under each launcher of such a job."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Tests are imported by path (importlib), so the helper beside them is not found otherwise.
sys.path.insert(0, str(Path(__file__).parent))

from real_slurm import wait_for

if TYPE_CHECKING:
    from real_slurm import Slurm

RANK = Path(__file__).parents[1] / "integration" / "agent_rank.py"
OPENMPI, MPICH = sys.executable, "mpich"
TASKS = 5

LAUNCHES = {
    "openmpi": (OPENMPI, "mpi", "{bin}/mpirun --bind-to none"),
    "srun-pmix": (OPENMPI, "mpi", "srun --mpi=pmix --overlap"),
    "srun-pmi2": (MPICH, "mpi", "srun --mpi=pmi2 --overlap"),
    "hydra": (MPICH, "mpi", "{bin}/mpiexec -n 5"),
    "srun": (OPENMPI, "none", "srun --mpi=none --overlap"),
}


@pytest.mark.mpi
@pytest.mark.parametrize("launcher", LAUNCHES)
def test_one_agent_on_each_node_for_each_launch(
    launcher: str, slurm: Slurm, request: pytest.FixtureRequest
) -> None:
    python, mode, command = LAUNCHES[launcher]
    if python == MPICH:
        python = request.getfixturevalue("mpich_python")
    told = two_launches(slurm, command.format(bin=Path(python).parent), f"{python} {RANK} {mode} go")
    assert {rank["launcher"] for rank in told} == {launcher}
    by_agent: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for rank in told:
        by_agent[rank["node"], rank["launch"]].append(rank)
    assert len(by_agent) == 2 * 3, "two launches on three nodes"
    for here in by_agent.values():
        assert len({rank["agent"] for rank in here}) == 1
        assert sum(rank["started"] for rank in here) == 1
        assert sorted(rank["rank"] for rank in here) == here[0]["ranks"]
        assert {rank["size"] for rank in here} == {len(here)}
    if mode == "mpi":
        assert {rank["sum"] for rank in told} == {sum(range(TASKS))}


def two_launches(slurm: Slurm, launch: str, program: str) -> list[dict[str, Any]]:
    """What the tasks of two launches at once tell, in one job on three nodes."""
    script, output, done = (slurm.folder / f"agents.{suffix}" for suffix in ("sh", "out", "done"))
    lines = [
        "#!/bin/bash", f"#SBATCH --nodes=3 --ntasks={TASKS}", f"#SBATCH --output={output}",
        "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
        f"export PYTHONPATH={Path(__file__).parents[2]}",
        f"{launch} {program} &", f"{launch} {program} &", "wait",
        f"touch {done}",
    ]  # fmt: skip
    script.write_text("\n".join(lines) + "\n")
    text = ""
    for _ in range(2):  # a launch that starts no rank at all says nothing about agents; seen once, of srun
        done.unlink(missing_ok=True)
        slurm.run("sbatch", str(script))
        assert wait_for(done.exists, 60), output.read_text()  # `sbatch --wait` looks too seldom
        text = output.read_text()
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        if len(found) == 2 * TASKS:
            return found
        print(text)
    pytest.fail(f"not all ranks have said something: {text}")
