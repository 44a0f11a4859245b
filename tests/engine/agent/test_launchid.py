"""All ranks of a launch on a node arrive at one name, and those of other launches at others."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ipmpi.engine.agent.launchid import launch_id, local_size

OMPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
    "PMIX_RANK": "1",
    "PMIX_NAMESPACE": "prterun-vm-5039@1",
    "PMIX_SERVER_URI2": "prterun-vm-5039@0.0;tcp4://127.0.0.1:44305",
    "PMIX_SERVER_URI21": "prterun-vm-5039@0.0;tcp4://127.0.0.1:44305",
}
HYDRA = {
    "HYDI_CONTROL_FD": "7",
    "PMI_FD": "9",
    "PMI_RANK": "2",
    "PMI_SIZE": "4",
    "MPI_LOCALRANKID": "0",
    "MPI_LOCALNRANKS": "2",
}
STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
PMI2 = {**STEP, "PMI_RANK": "3", "PMI_SIZE": "4", "PMI_FD": "5", "PMI_JOBID": "7.0"}
SRUN_PMIX = {
    **STEP,
    "PMIX_RANK": "3",
    "PMIX_NAMESPACE": "slurm.pmix.7.0",
    "PMIX_SERVER_URI2": "pmix-server.55;tcp4://127.0.0.1:4",
}
PALS = {
    "PALS_RANKID": "5",
    "PALS_LOCAL_RANKID": "1",
    "PALS_APID": "1d7e4f3a-0c5d-4d1e-9f9a-7d3c0f1b2a3c",
    "PMI_SIZE": "8",
    "PMI_LOCAL_SIZE": "4",
}
GFORKER = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "12", "MPI_APPNUM": "0"}
MVAPICH = {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_LOCAL_SIZE": "2"}
FLUX = {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "4", "FLUX_JOB_ID": "ƒabc", "FLUX_URI": "local:///run/flux/local"}
PLAIN = {"PATH": "/bin", "IPMPI_LAUNCH": "a4f1:4"}

INODES = {7: "9.1001", 8: "9.2002"}
BIRTHS = {500: 10_001, 501: 10_002}


def name(environ: Mapping[str, str], launcher: int = 500, user: int = 1000, alone: bool = False) -> str:
    return launch_id(
        environ,
        launcher,
        alone=alone,
        user=user,
        birth=lambda pid: BIRTHS.get(pid, 0),
        inode=lambda number: INODES.get(number, ""),
    )


# What one launch tells another rank of it, on this node.
OF_ANOTHER_RANK = {
    "Open MPI": (OMPI, {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "2", "PMIX_RANK": "2"}),
    "hydra": (HYDRA, {"PMI_RANK": "3", "PMI_FD": "11", "MPI_LOCALRANKID": "1"}),
    "srun pmi2": (PMI2, {"PMI_RANK": "2", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "PMI_FD": "6"}),
    "srun pmix": (SRUN_PMIX, {"PMIX_RANK": "2", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}),
    "srun none": (STEP, {"SLURM_PROCID": "2", "SLURM_LOCALID": "0"}),
    "PALS": (PALS, {"PALS_RANKID": "4", "PALS_LOCAL_RANKID": "0"}),
    "gforker": (GFORKER, {"PMI_RANK": "0", "PMI_FD": "14"}),
    "MVAPICH": (MVAPICH, {"MV2_COMM_WORLD_RANK": "0"}),
    "Flux": (FLUX, {"FLUX_TASK_RANK": "0", "FLUX_TASK_LOCAL_ID": "0"}),
    "no launcher, started together": (PLAIN, {"PWD": "/elsewhere"}),
}


@pytest.mark.parametrize("launcher", OF_ANOTHER_RANK)
def test_ranks_of_one_launch_have_one_name(launcher: str) -> None:
    environ, others = OF_ANOTHER_RANK[launcher]
    assert name(environ) == name({**environ, **others})
    assert "alone" not in name(environ)


# What differs in a second launch, of the same user at the same time or after the first.
OF_ANOTHER_LAUNCH = {
    "Open MPI": (OMPI, {"PMIX_NAMESPACE": "prterun-vm-6000@1"}, 500),
    "Open MPI, another job of its daemons": (OMPI, {"PMIX_NAMESPACE": "prterun-vm-5039@2"}, 500),
    "Open MPI, the process id came again": (
        OMPI,
        {name: "prterun-vm-5039@0.0;tcp4://127.0.0.1:2" for name in ("PMIX_SERVER_URI2", "PMIX_SERVER_URI21")},
        500,
    ),
    "hydra": (HYDRA, {"HYDI_CONTROL_FD": "8"}, 500),
    "hydra, the number of the socket came again": (HYDRA, {}, 501),
    "srun pmi2": (PMI2, {"PMI_JOBID": "7.1", "SLURM_STEP_ID": "1"}, 500),
    "srun pmix": (SRUN_PMIX, {"PMIX_NAMESPACE": "slurm.pmix.7.1", "SLURM_STEP_ID": "1"}, 500),
    "srun none": (STEP, {"SLURM_STEP_ID": "1"}, 500),
    "srun, a job that was queued again": (STEP, {"SLURM_RESTART_COUNT": "1"}, 500),
    "PALS": (PALS, {"PALS_APID": "c1e5"}, 500),
    "gforker": (GFORKER, {}, 501),
    "MVAPICH": (MVAPICH, {}, 501),
    "Flux": (FLUX, {"FLUX_JOB_ID": "ƒabd"}, 500),
    "Flux inside Flux": (FLUX, {"FLUX_URI": "local:///run/flux/inner"}, 500),
    "no launcher, started together": (PLAIN, {"IPMPI_LAUNCH": "a4f2:4"}, 500),
}


@pytest.mark.parametrize("launcher", OF_ANOTHER_LAUNCH)
def test_another_launch_has_another_name(launcher: str) -> None:
    environ, others, started_by = OF_ANOTHER_LAUNCH[launcher]
    assert name(environ) != name({**environ, **others}, started_by)


@pytest.mark.parametrize("launcher", OF_ANOTHER_RANK)
def test_users_do_not_meet(launcher: str) -> None:
    environ, _ = OF_ANOTHER_RANK[launcher]
    assert name(environ) != name(environ, user=1001)


# In an allocation the variables of the step around a launch are the same for all launches in it.
SHARED_STEPS = {
    "hydra in an interactive step": ({**STEP, "PMI_JOBID": "7.0", **HYDRA}, {"HYDI_CONTROL_FD": "8"}),
    "hydra in an interactive step with PMIx": ({**SRUN_PMIX, **HYDRA}, {"HYDI_CONTROL_FD": "8"}),
    "Open MPI in an interactive step": ({**PMI2, **OMPI}, {"PMIX_NAMESPACE": "prterun-vm-6000@1"}),
}


@pytest.mark.parametrize("case", SHARED_STEPS)
def test_launches_in_one_step_do_not_meet(case: str) -> None:
    environ, others = SHARED_STEPS[case]
    assert name(environ) != name({**environ, **others})


def test_hydras_ranks_meet_where_a_container_hides_the_proxy() -> None:
    assert name(HYDRA, launcher=0) == name({**HYDRA, "PMI_RANK": "3"}, launcher=0)
    assert name(HYDRA, launcher=0) != name({**HYDRA, "HYDI_CONTROL_FD": "8"}, launcher=0)


def test_hydras_ranks_meet_where_a_script_has_closed_the_socket() -> None:
    closed = {**HYDRA, "HYDI_CONTROL_FD": "99"}
    assert name(closed) == name({**closed, "PMI_RANK": "3"})
    assert name(closed) != name(closed, launcher=501)


@pytest.mark.parametrize(
    "environ",
    [
        {"PATH": "/bin"},
        {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NODEID": "0"},  # in a batch script
        {**OMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
        {**STEP, "SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_LOCALID": "0"},  # also a shell started by srun --pty
        {"PATH": "/bin", "IPMPI_LAUNCH": "nonsense"},
    ],
)
def test_who_is_alone_meets_nobody(environ: dict[str, str]) -> None:
    """Two engines started one after the other from one shell may belong to two controllers."""
    assert name(environ) != name(environ)


def test_where_nothing_tells_launches_apart_nobody_is_met() -> None:
    assert name(GFORKER, launcher=0) != name(GFORKER, launcher=0)


def test_on_demand_a_rank_is_alone() -> None:
    assert name(OMPI, alone=True) != name(OMPI, alone=True)


def test_a_launcher_inside_processes_that_belong_together_counts() -> None:
    """User code of such a process may start mpirun, which inherits the variable."""
    assert name({**PLAIN, **OMPI}) == name(OMPI)


SIZES = {
    "Open MPI": (OMPI, 3),
    "hydra": (HYDRA, 2),
    "srun pmi2": (PMI2, 2),
    "srun pmix": (SRUN_PMIX, 2),
    "PALS": (PALS, 4),
    "PALS of Slurm": ({**STEP, "PALS_RANKID": "3", "PALS_APID": "7.0"}, 2),
    "unequal nodes": ({**STEP, "SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_STEP_NUM_TASKS": "11"}, 4),
    "the last of unequal nodes": (
        {**STEP, "SLURM_STEP_TASKS_PER_NODE": "4(x2),3", "SLURM_STEP_NUM_TASKS": "11", "SLURM_NODEID": "2"},
        3,
    ),
    "mpirun in an allocation": ({**STEP, "SLURM_STEP_TASKS_PER_NODE": "1(x2)", **OMPI}, 3),
    "hydra in an allocation": (
        {**STEP, "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", **HYDRA},
        2,
    ),
    "a PMI launcher of another kind in an allocation": ({**STEP, "PMI_RANK": "1", "PMI_SIZE": "2"}, None),
    "PMIx of somebody else in an allocation": (
        {**STEP, "PMIX_RANK": "1", "PMIX_NAMESPACE": "prte-n1-9@1"},
        None,
    ),
    "gforker": (GFORKER, None),
    "no launcher": ({"PATH": "/bin"}, 1),
    "no launcher, started together": (PLAIN, 4),
}


@pytest.mark.parametrize("case", SIZES)
def test_ranks_on_this_node(case: str) -> None:
    environ, expected = SIZES[case]
    assert local_size(environ) == expected
