"""Ranks that are really started, by launchers that fit and by launchers that do not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.doctor.check_mpi import check_mpi
from ipmpi.launch.doctor.diagnostics import Diagnostic, Level
from ipmpi.launch.doctor.facts import Launcher
from ipmpi.launch.doctor.mpi_run import (
    find_launcher,
    mpi_check_command,
    parse_told,
    parse_transport,
    run_mpi_check,
    understand,
)
from ipmpi.launch.processes.mpi import find_mpi

ENVIRON = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}

Need = Callable[[str, object], None]


@pytest.fixture
def mpiexec(need: Need) -> Launcher:
    """The launcher that fits this Python."""
    need("no mpiexec beside this Python or in PATH", find_mpi())
    found = find_launcher("")
    assert found is not None
    return found


def of(diagnostics: list[Diagnostic], check: str) -> Diagnostic:
    return next(diagnostic for diagnostic in diagnostics if diagnostic.check == check)


@pytest.mark.slow
@pytest.mark.mpi
def test_what_fits(mpiexec: Launcher) -> None:
    trial = run_mpi_check(mpiexec, ENVIRON)
    found = check_mpi(trial)
    assert {diagnostic.level for diagnostic in found} <= {Level.OK, Level.NOTE}, trial
    assert {diagnostic.check for diagnostic in found} == {
        "launcher",
        "library",
        "match",
        "transport",
        "thread-level",
        "fault-tolerance",
    }
    assert [rank.size for rank in trial.ranks] == [2, 2]
    if mpiexec.flavour == "openmpi5":
        assert trial.transport == "ob1"
        assert not [line for line in trial.output if "select" in line]
        assert (trial.outlived, trial.raised) == (True, "MPI_ERR_PROC_FAILED")


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.mpich
def test_mpich_by_itself_ends_all_when_one_dies(mpich_python: str) -> None:
    launcher = find_launcher(str(Path(mpich_python).with_name("mpiexec")))
    assert launcher is not None
    trial = run_mpi_check(launcher, ENVIRON, mpich_python)
    found = check_mpi(trial)
    assert of(found, "match").level is Level.OK, trial
    assert of(found, "fault-tolerance").level is Level.NOTE
    assert trial.outlived is False


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.mpich
@pytest.mark.parametrize("ours", [True, False], ids=["hydra starts Open MPI", "Open MPI starts MPICH"])
def test_launcher_and_library_of_two_mpis(mpiexec: Launcher, mpich_python: str, ours: bool) -> None:
    launcher = find_launcher(str(Path(mpich_python).with_name("mpiexec"))) if ours else mpiexec
    assert launcher is not None
    python = sys.executable if ours else mpich_python
    diagnostic = of(check_mpi(run_mpi_check(launcher, ENVIRON, python)), "match")
    assert diagnostic.level is Level.PROBLEM
    assert "started 2 ranks, but each thinks it is alone" in diagnostic.text
    assert str(Path(python).with_name("mpiexec")) in diagnostic.fix


@pytest.mark.slow
@pytest.mark.mpi
def test_a_low_thread_level(mpiexec: Launcher) -> None:
    trial = run_mpi_check(mpiexec, {**ENVIRON, "MPI4PY_RC_THREAD_LEVEL": "funneled"})
    assert of(check_mpi(trial), "thread-level").level is Level.NOTE


@pytest.mark.slow
@pytest.mark.mpi
def test_mpi4py_that_cannot_be_imported(mpiexec: Launcher, tmp_path: Path) -> None:
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('hidden by the test')\n")
    trial = run_mpi_check(mpiexec, {**ENVIRON, "PYTHONPATH": f"{tmp_path}:{ENVIRON['PYTHONPATH']}"})
    diagnostic = of([f for f in check_mpi(trial) if f.level is Level.PROBLEM], "library")
    assert "hidden by the test" in diagnostic.text


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_launcher_that_does_nothing_is_ended(tmp_path: Path) -> None:
    launcher = Launcher((program(tmp_path / "mpiexec", "echo waiting; exec sleep 100"), "--x"), "unknown")
    trial = run_mpi_check(launcher, ENVIRON, timeout=0.3)
    assert (trial.code, trial.ranks, trial.output) == (None, (), ("waiting",))
    assert of(check_mpi(trial), "start").level is Level.PROBLEM


def test_a_launcher_that_hangs_is_told_to_end_before_it_is_killed(tmp_path: Path) -> None:
    launcher, told = tmp_path / "srun", tmp_path / "told"
    launcher.write_text(f"#!/bin/sh\ntrap 'touch {told}; exit 1' TERM\nwhile :; do sleep 0.05; done\n")
    launcher.chmod(0o755)
    run_mpi_check(Launcher((str(launcher),), "srun"), ENVIRON, timeout=0.3)
    assert told.exists(), "a killed srun leaves its allocation behind"


def test_a_launcher_that_fails_by_chance_gets_another_one(tmp_path: Path) -> None:
    told = json.dumps({"pid": 7, "host": "n1", "size": 2, "rank": 0, "thread_level": "multiple", "at": 0})
    first = f"touch {tmp_path}/been; echo The PMIx server\\'s listener thread failed to start.; exit 1"
    then = f"echo 'ipmpi-probe {told}'"
    launcher = Launcher(
        (program(tmp_path / "x", f"if [ -e {tmp_path}/been ]; then {then}; else {first}; fi"), "-x"), "hydra"
    )
    trial = run_mpi_check(launcher, ENVIRON)
    assert (trial.code, len(trial.ranks)) == (0, 1), trial


def test_a_launcher_that_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "mpiexec"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    trial = run_mpi_check(Launcher((str(path), "-x"), "unknown"), ENVIRON)
    assert trial.not_started
    assert of(check_mpi(trial), "launcher").level is Level.PROBLEM


def test_a_launcher_that_is_not_there() -> None:
    with pytest.raises(LauncherError, match="--launcher nosuchmpiexec -x: there is no such program"):
        find_launcher("nosuchmpiexec -x")
    with pytest.raises(LauncherError, match="No closing quotation"):
        find_launcher("'mpiexec")


def test_the_command_is_that_of_ipcluster_with_another_program() -> None:
    program = ["/p/python", "-m", "ipmpi.launch.doctor.mpi_probe", "--die"]
    command = mpi_check_command(Launcher(("/m/mpiexec",), "openmpi5"), "/p/python", {}, root=True)
    assert command.argv[0] == "/m/mpiexec"
    assert command.argv[-6:] == ["-n", "2", *program]
    assert "ulfm" in command.argv
    assert command.environ["OMPI_ALLOW_RUN_AS_ROOT"] == "1"
    command = mpi_check_command(Launcher(("srun", "--mpi=pmi2"), "srun"), "/p/python", {}, root=False)
    assert command.argv == ["srun", "--mpi=pmi2", "--kill-on-bad-exit=0", "--wait=0", "-n", "2", *program]
    command = mpi_check_command(Launcher(("/m/mpiexec", "--hostfile", "h"), "hydra"), "/p/python", {}, root=False)
    assert command.argv == ["/m/mpiexec", "--hostfile", "h", "-n", "2", *program]


def test_srun_is_known_by_its_name(tmp_path: Path) -> None:
    found = find_launcher(program(tmp_path / "srun", "exit 0") + " --mpi=pmix")
    assert found is not None
    assert (found.flavour, found.words[1:]) == ("srun", ("--mpi=pmix",))


def test_lines_of_others_do_not_disturb() -> None:
    told = {"pid": 7, "host": "n1", "size": 2, "rank": 0, "thread_level": "multiple"}
    output = f"WARNING: x\n[n1] ipmpi-probe {json.dumps(told)}\nipmpi-probe {{\nipmpi-probe 3\n\nlast\n"
    facts, said = parse_told(output)
    assert facts == [told]
    assert said == ["WARNING: x", "[n1]", "last"]
    ranks, outlived, raised = understand(facts)
    assert (ranks[0].size, outlived, raised) == (2, None, "")


def test_what_open_mpi_says_about_its_transport() -> None:
    said = [
        "[vm:8] mca: base: components_register: registering framework pml components",
        "[vm:8] mca:base:select:(  mtl) Selected component [ofi]",
        "[vm:8] select: init returned priority 25",
        "[vm:8] selected cm best priority 25",
        "[vm:8] select: component cm selected",
        "[vm:8] something else went wrong",
    ]
    assert parse_transport(said) == ("cm/ofi", ["[vm:8] something else went wrong"])
    ucx = [line.replace("selected cm", "selected ucx") for line in said]
    assert parse_transport(ucx)[0] == "ucx"
    assert parse_transport(["WARNING: x"]) == ("", ["WARNING: x"])


def test_ranks_of_two_hosts_may_have_one_pid() -> None:
    facts = [{"pid": 7, "host": host, "size": 2, "rank": rank} for rank, host in enumerate(("n1", "n2"))]
    ranks, outlived, _ = understand(facts)
    assert [rank.host for rank in ranks] == ["n1", "n2"]
    assert outlived is False
