"""Recognising the launcher from environments that were recorded under each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi.environment.mpienv import LaunchedRank, detect, mismatch_sentence
from ipmpi.launch.processes.mpi import find_mpi, mpi_command

BATCH = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_NODEID": "0"}
"""What every process in an sbatch script has, rank or not."""

STEP = {
    **BATCH,
    "SLURM_STEP_ID": "0",
    "SLURM_STEPID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
"""Task 3 of a step of 4 on 2 machines."""

OMPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
    "PMIX_RANK": "1",
    "PMIX_NAMESPACE": "prterun-vm-5039@1",
}
HYDRA = {
    "HYDI_CONTROL_FD": "7",
    "PMI_FD": "9",
    "PMI_RANK": "2",
    "PMI_SIZE": "4",
    "MPI_LOCALRANKID": "0",
    "MPI_LOCALNRANKS": "2",
}

ROWS = {
    "nothing at all": ({"PATH": "/bin"}, None),
    "Open MPI's mpirun": (OMPI, LaunchedRank("openmpi", 1, 3, 1, 3)),
    "srun --mpi=pmix": (
        {**STEP, "PMIX_RANK": "3", "PMIX_NAMESPACE": "slurm.pmix.7.0"},
        LaunchedRank("srun-pmix", 3, 4, 1, 2),
    ),
    "hydra": (HYDRA, LaunchedRank("hydra", 2, 4, 0, 2)),
    "gforker of MPICH": (
        {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "12", "MPI_APPNUM": "0"},
        LaunchedRank("hydra", 1, 2, None, None),
    ),
    "srun --mpi=pmi2": (
        {**STEP, "PMI_RANK": "3", "PMI_SIZE": "4", "PMI_FD": "5", "SLURM_MPI_TYPE": "pmi2"},
        LaunchedRank("srun-pmi2", 3, 4, 1, 2),
    ),
    "srun --mpi=cray_shasta": (
        {**STEP, "PALS_RANKID": "3", "PALS_APID": "x", "PALS_NODEID": "1"},
        LaunchedRank("pals", 3, 4, 1, 2),
    ),
    "PALS mpiexec": (
        {
            "PALS_RANKID": "5",
            "PALS_LOCAL_RANKID": "1",
            "PMI_RANK": "5",
            "PMI_SIZE": "8",
            "PMI_LOCAL_RANK": "1",
            "PMI_LOCAL_SIZE": "4",
        },
        LaunchedRank("pals", 5, 8, 1, 4),
    ),
    "srun --mpi=none": (STEP, LaunchedRank("srun", 3, 4, 1, 2)),
    "srun over unequal machines": (
        {**STEP, "SLURM_STEP_TASKS_PER_NODE": "2,3(x2)", "SLURM_STEP_NUM_TASKS": "8"},
        LaunchedRank("srun", 3, 8, 1, 3),
    ),
    "MVAPICH2": (
        {
            "MV2_COMM_WORLD_RANK": "1",
            "MV2_COMM_WORLD_SIZE": "2",
            "MV2_COMM_WORLD_LOCAL_RANK": "0",
            "MV2_COMM_WORLD_LOCAL_SIZE": "1",
            "PMI_RANK": "9",
        },
        LaunchedRank("mvapich", 1, 2, 0, 1),
    ),
    "Flux": (
        {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "4", "FLUX_TASK_LOCAL_ID": "1"},
        LaunchedRank("flux", 1, 4, 1, None),
    ),
    "a batch script is no rank": (BATCH, None),
    "a shell in an interactive step is no rank": ({**BATCH, "SLURM_STEP_ID": "4294967290"}, None),
    "a batch script that says so by its step id": ({**BATCH, "SLURM_STEP_ID": "4294967291"}, None),
    "mpirun in a batch script": ({**BATCH, **OMPI}, LaunchedRank("openmpi", 1, 3, 1, 3)),
    "mpirun's remote rank, below the step of its daemon": (
        {**STEP, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", **OMPI},
        LaunchedRank("openmpi", 1, 3, 1, 3),
    ),
    "hydra in a batch script, below the step of its proxies": (
        {**STEP, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", **HYDRA},
        LaunchedRank("hydra", 2, 4, 0, 2),
    ),
    "a PMI launcher of another kind inside a step": (
        {**STEP, "PMI_RANK": "1", "PMI_SIZE": "2"},
        LaunchedRank("hydra", 1, 2, None, None),
    ),
    "PMIx of somebody else inside a step": (
        {**STEP, "PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-n1-9@1"},
        LaunchedRank("pmix", 1, None, None, None),
    ),
    "a heterogeneous job, where ranks count over all components": (
        {**STEP, "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "4"},
        LaunchedRank("srun", 5, None, 1, 2),
    ),
    "nonsense is passed over": ({"OMPI_COMM_WORLD_RANK": "one", **HYDRA}, LaunchedRank("hydra", 2, 4, 0, 2)),
    "nonsense in the rest": ({**OMPI, "OMPI_COMM_WORLD_SIZE": "-3"}, LaunchedRank("openmpi", 1, None, 1, 3)),
}


@pytest.mark.parametrize("name", ROWS)
def test_environment(name: str) -> None:
    environ, expected = ROWS[name]
    assert detect(environ) == expected


@pytest.mark.skipif(find_mpi() is None, reason="no mpiexec here")
def test_the_mpiexec_at_hand_is_recognised(tmp_path: Path) -> None:
    command = mpi_command(2, root=os.geteuid() == 0, single_host=True)
    program = (
        "import json, os; from ipmpi.environment.mpienv import detect; found = detect(os.environ)\n"
        f"open(os.path.join({str(tmp_path)!r}, str(found.rank)), 'w').write(json.dumps(found))"
    )
    argv = [*command.argv[: command.argv.index("-m")], "-c", program]
    root = Path(__file__).parents[2]
    environ = {**os.environ, **command.environ, "PYTHONPATH": str(root)}
    subprocess.run(argv, env=environ, check=True, timeout=30, stdin=subprocess.DEVNULL)
    found = [LaunchedRank(*json.loads((tmp_path / str(rank)).read_text())) for rank in range(2)]
    assert [rank.rank for rank in found] == [0, 1]
    assert all(rank.size == rank.local_size == 2 for rank in found)
    assert sorted(rank.local_rank or 0 for rank in found) == [0, 1]


OPEN_MPI = "Open MPI v5.0.11, package: Open MPI root@vm Distribution, ident: 5.0.11, repo rev: v5.0.11"
MPICH = "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25\nMPICH ABI: 18:0:6"


@pytest.mark.parametrize(
    ("launched", "comm_size"),
    [
        (LaunchedRank("openmpi", 0, 4, 0, 4), 4),
        (LaunchedRank("openmpi", 0, 1, 0, 1), 1),
        (LaunchedRank("pmix", 0, None, None, None), 1),
        (LaunchedRank("openmpi", 0, 2, 0, 2), 4),  # two programs in one mpiexec: the library knows better
    ],
)
def test_no_complaint_when_launcher_and_library_agree(launched: LaunchedRank, comm_size: int) -> None:
    assert mismatch_sentence(launched, comm_size, OPEN_MPI) is None


def test_ranks_that_each_think_they_are_alone_are_told_which_mpiexec_to_use() -> None:
    text = mismatch_sentence(LaunchedRank("openmpi", 0, 4, 0, 4), 1, MPICH, python="/venv/bin/python")
    assert text is not None
    assert "started 4 ranks, but each thinks it is alone" in text
    assert "MPICH Version" in text
    assert "/venv/bin/mpiexec" in text
    assert "--mpi none" in text
    assert "\n" not in text


@pytest.mark.parametrize(("library", "kind"), [(OPEN_MPI, "srun --mpi=pmix"), (MPICH, "srun --mpi=pmi2")])
def test_under_srun_the_way_out_is_another_plugin(library: str, kind: str) -> None:
    text = mismatch_sentence(LaunchedRank("srun", 0, 4, 0, 4), 1, library)
    assert text is not None
    assert "srun --mpi=list" in text
    assert kind in text


def test_detection_imports_no_mpi() -> None:
    code = "import sys, ipmpi.environment.mpienv; assert not any(m.startswith('mpi4py') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=Path(__file__).parents[2])
