"""What is written into job scripts, and why; what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipmpi.environment.walltime import clock
from ipmpi.errors import LauncherError
from ipmpi.launch.batch import jobscript, ranks
from ipmpi.launch.batch.editable import KINDS, editable, main
from ipmpi.launch.batch.joboptions import JobOptions
from ipmpi.launch.batch.jobscript import JobScript, render
from ipmpi.launch.batch.registry import batch_system
from ipmpi.launch.batch.slurm import SLURM
from ipmpi.launch.processes.mpi import MpiLauncher

Need = Callable[[str, object], None]

GOLDEN = Path(__file__).with_name("golden")
REWRITE = os.environ.get("IPMPI_GOLDEN") == "write"

OPEN_MPI = MpiLauncher("/env/bin/mpiexec", "openmpi5")
MPICH = MpiLauncher("/env/bin/mpiexec", "hydra")
PALS = MpiLauncher("/opt/pals/mpiexec", "pals")
OF_SITE = MpiLauncher("/opt/mpi/bin/mpirun", "openmpi5")

BASE = JobOptions(
    n=6, walltime=5400, python="/env/bin/python", engine_furl_file=Path("/home/a/engine.furl"),
    log_dir=Path("/home/a/log"), restarts=3,
)  # fmt: skip
FULL = replace(
    BASE, nodes=3, per_node=2, cores_per_engine=4, queue="gpu", account="project", gpus_per_node=4, memory="64G",
    extra_directives=("-l filesystems=home",), prologue=("module load python",), proxy="http://proxy:3128",
    name="wave",
)  # fmt: skip
SCRIPTS: dict[str, tuple[JobOptions, MpiLauncher | None]] = {
    "engines.slurm": (BASE, OPEN_MPI),
    "engines-mpich.slurm": (replace(BASE, nodes=3), MPICH),
    "engines-cray.slurm": (BASE, None),
    "engines-full.slurm": (replace(FULL, extra_directives=("-C nvme",), constraint="a100", qos="debug"), OF_SITE),
    "cluster.slurm": (replace(BASE, kind="cluster", controller_args=("--client-location", "login1")), MPICH),
    "array.slurm": (replace(BASE, kind="array"), MPICH),
    "engines-staged.slurm": (replace(BASE, nodes=3, stage_env=Path("/home/a/my env.tar")), OPEN_MPI),
    "engines.pbs": (BASE, MPICH),
    "engines-openmpi.pbs": (replace(BASE, nodes=3, walltime=None), OPEN_MPI),
    "engines-full.pbs": (FULL, OF_SITE),
    "cluster.pbs": (replace(BASE, kind="cluster", nodes=2, per_node=4), MPICH),
    "array.pbs": (replace(BASE, kind="array", requeue=True), None),
}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[MpiLauncher | None], None]:
    """Say which MPI is there; the user is not root."""
    monkeypatch.setattr(jobscript.os, "geteuid", lambda: 1000)

    def set_found(launcher: MpiLauncher | None) -> None:
        monkeypatch.setattr(ranks, "find_mpi", lambda prefix: launcher)

    set_found(OPEN_MPI)
    return set_found


Found = Callable[[MpiLauncher | None], None]


def script(name: str = "slurm", **options: Any) -> JobScript:
    return render(batch_system(name), replace(BASE, **options))


def directives(name: str = "slurm", **options: Any) -> list[str]:
    prefix = f"#{'PBS' if name == 'pbs' else 'SBATCH'} "
    lines = script(name, **options).text.splitlines()
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


# --- The whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_as_they_were(found: Found, name: str) -> None:
    """After a change that is wanted: IPMPI_GOLDEN=write, and look at the difference."""
    options, launcher = SCRIPTS[name]
    found(launcher)
    text = render(batch_system(name.rpartition(".")[2]), options).text
    if REWRITE:
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


@pytest.mark.parametrize("system", ["slurm", "pbs"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_editable_scripts_come_from_the_templates(root: Path, system: str, kind: Any) -> None:
    """``make jobscripts`` writes them."""
    assert (root / "jobscripts" / f"{kind}.{system}").read_text() == editable(batch_system(system), kind)


def test_all_editable_scripts_are_written(tmp_path: Path, root: Path) -> None:
    assert main([str(tmp_path)]) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {path.name for path in (root / "jobscripts").iterdir() if path.is_file()}


def test_editable_scripts_need_no_command_but_the_engines(root: Path) -> None:
    for kind in KINDS:
        for system in ("slurm", "pbs"):
            text = (root / "jobscripts" / f"{kind}.{system}").read_text()
            assert "ipcluster" not in text
            assert "python -m" not in text
            assert all(len(line) <= 115 for line in text.splitlines())


def test_bash_and_shellcheck_have_nothing_to_complain_about(root: Path, need: Need) -> None:
    paths = [str(path) for path in (*GOLDEN.iterdir(), *(root / "jobscripts").iterdir()) if path.is_file()]
    for path in paths:
        subprocess.run(["bash", "-n", path], check=True, timeout=10)
    need("no shellcheck", shutil.which("shellcheck"))
    done = subprocess.run(["shellcheck", *paths], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


# --- What is asked for ------------------------------------------------------------------------------------


def test_every_flag_has_a_reason(found: Found) -> None:
    written = script(nodes=3, requeue=True, gpus_per_node=2, proxy="http://p:1")
    reasons = dict(written.reasons)
    assert all(reasons.values())
    assert reasons["#SBATCH --gpus-per-node=2"] == "shared among the engines of a machine"
    one = dict(script(nodes=1).reasons)
    assert one[FT] == "when one engine dies, the others stay"
    assert {"#SBATCH --requeue", "--gpus 2", "--proxy http://p:1", "--bind-to none"} <= set(reasons)
    for flag in reasons:
        assert flag in written.text


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ({"n": 8}, (8, 0, 0)),
        ({"n": 8, "nodes": 2}, (8, 2, 4)),
        ({"n": 7, "nodes": 2}, (7, 2, 4)),
        ({"n": 8, "per_node": 4}, (8, 2, 4)),
        ({"nodes": 2, "per_node": 4}, (8, 2, 4)),
        ({"n": 8, "kind": "array"}, (1, 1, 1)),
        ({"n": 8, "kind": "array", "per_node": 4}, (4, 1, 4)),
    ],
)
def test_numbers_that_fit_together(asked: dict[str, Any], shape: tuple[int, int, int]) -> None:
    assert JobOptions(**asked).shape()[:3] == shape


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({}, "how many engines"),
        ({"nodes": 2}, "how many engines"),
        ({"n": 9, "nodes": 2, "per_node": 4}, "9 engines do not fill 2 nodes with 4 on each"),
        ({"n": 4, "nodes": 2, "per_node": 4}, "4 engines do not fill 2 nodes with 4 on each"),
        ({"kind": "array"}, "say how many engines, with -n N"),
        ({"kind": "array", "n": 4, "nodes": 2}, "say how many engines, with -n N"),
        ({"kind": "array", "n": 7, "per_node": 4}, "7 engines are no whole number of elements with 4 in each"),
    ],
)
def test_numbers_that_do_not(asked: dict[str, Any], complaint: str) -> None:
    with pytest.raises(LauncherError, match=complaint):
        JobOptions(**asked).shape()


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"queue": "a b"}, "there is a blank in the queue 'a b'"),
        ({"name": "a/b"}, "'a/b' is no name for a job: use letters"),
        ({"prologue": ("a\nb",)}, "there is a line break in prologue"),
        ({"launcher_options": ("-x \udcff",)}, "launcher options is no text in UTF-8"),
        ({"memory": "much"}, "'much' is no amount of memory: write it like 500M or 64G"),
        ({"proxy": "http://me:secret@proxy:3128"}, r"leave user and password out of --proxy.*--prologue"),
    ],
)
def test_what_would_mean_something_else_is_refused(found: Found, asked: dict[str, Any], complaint: str) -> None:
    with pytest.raises(LauncherError, match=complaint) as info:
        render(SLURM, replace(BASE, **asked))
    assert "secret" not in str(info.value)


def test_what_a_batch_system_does_not_have_is_refused(found: Found) -> None:
    with pytest.raises(LauncherError, match=r"PBS has no qos: leave it out, or .* --directive"):
        script("pbs", qos="debug")


def test_directives_of_the_users_own_and_without_some(found: Found) -> None:
    asked = directives(extra_directives=("-C nvme",), skipped_directives=("cpus-per-task", "no-kill"))
    assert asked[-1] == "-C nvme"
    assert not any("cpus-per-task" in line or "no-kill" in line for line in asked)


def test_the_warning_needs_a_job_that_is_longer(found: Found) -> None:
    warning = "--signal=B:USR1@120"
    assert warning in directives(walltime=600)
    assert warning in directives(walltime=None)
    assert warning not in directives(walltime=240)
    assert "--signal=B:USR1@30" in directives(walltime=240, warn_before=30)
    assert not any("--signal" in line for line in directives(warn_before=0))


def test_repetition(found: Found) -> None:
    assert "--no-requeue" in directives()
    assert "--requeue" in directives(requeue=True)
    assert "--no-kill" not in directives(requeue=True), "Slurm would not start it again"
    assert "-r n" in directives("pbs")
    assert not any(line.startswith("-r") for line in directives("pbs", kind="array")), "has to be repeatable"


@pytest.mark.parametrize("name", ["slurm", "pbs"])
def test_an_element_of_an_array_may_be_a_set_of_engines(found: Found, name: str) -> None:
    options = {"kind": "array", "n": 12, "per_node": 4}
    text = script(name, **options).text
    assert {"slurm": "--array=0-2", "pbs": "-J 0-2"}[name] in text
    asked = directives(name, **options)
    assert any("--ntasks-per-node=4" in line or "mpiprocs=4" in line for line in asked)
    assert launch(name, **options)[-1] == "-n 4"
    assert "--mpi auto" in text
    assert 'exec "${ENGINE[@]}"' not in text
    with pytest.raises(LauncherError, match="single engines of a job array have none"):
        script(name, kind="array", n=4, launcher_options=("-v",))


def test_a_single_engine_without_a_launcher_takes_no_options_for_one(found: Found) -> None:
    found(None)
    with pytest.raises(LauncherError, match="a single engine without MPI has none"):
        script("pbs", n=1, mpi="none", launcher_options=("-v",))


def test_the_order_of_gpus(found: Found) -> None:
    assert "--gpus 4,5,2,3 " in script(gpu_order="4,5,2,3").text
    text = script(gpu_order="3,2,1,0", gpus_per_node=4, nodes=2).text
    assert "--gpus-per-node=4" in text
    assert "--gpus 3,2,1,0 " in text


def test_what_comm_world_is(found: Found) -> None:
    assert "--comm" not in script().text
    assert "--comm polled " in script(comm="polled").text


def test_what_becomes_of_the_others_when_an_engine_dies(found: Found) -> None:
    assert "--on-loss " not in "\n".join(line for line in script().text.splitlines() if not line.startswith("#"))
    abort = script(on_loss="abort")
    assert "--on-loss abort " in abort.text
    assert ("--on-loss abort", "when an engine dies the others end") in abort.reasons


def test_an_array_of_one_is_none(found: Found) -> None:
    """PBS refuses arrays of one element."""
    assert not any("-J" in line for line in directives("pbs", kind="array", n=1))
    assert "PBS_ARRAY_INDEX" not in script("pbs", kind="array", n=1).text


@pytest.mark.parametrize(("seconds", "text"), [(60, "0:01:00"), (5400, "1:30:00"), (360000, "100:00:00")])
def test_walltimes(seconds: int, text: str) -> None:
    assert clock(seconds) == text


# --- Which launcher ---------------------------------------------------------------------------------------


def launch(name: str = "slurm", **options: Any) -> list[str]:
    lines = script(name, **options).text.splitlines()
    begin = lines.index("LAUNCH=(")
    return [line.split("    #")[0].strip() for line in lines[begin + 1 : lines.index(")", begin)]]


FT = "--with-ft ulfm --prtemca state_base_error_non_zero_exit 0"
OWN = ["--gpu-bind=closest", "-C 'a b'"]
SURVIVES = ["--kill-on-bad-exit=0", "--wait=0", "--no-kill", "--cpus-per-task=1"]


@pytest.mark.parametrize(
    ("launcher", "options", "command"),
    [
        (OPEN_MPI, {}, ["/env/bin/mpiexec", "--bind-to none", "-n 6"]),
        (OPEN_MPI, {"nodes": 1}, ["/env/bin/mpiexec", "--bind-to none", FT, "-n 6"]),
        (OPEN_MPI, {"nodes": 2, "fault_tolerance": "on"}, ["/env/bin/mpiexec", "--bind-to none", FT, "-n 6"]),
        (OPEN_MPI, {"nodes": 1, "fault_tolerance": "off"}, ["/env/bin/mpiexec", "--bind-to none", "-n 6"]),
        (OF_SITE, {"nodes": 2}, ["/opt/mpi/bin/mpirun", "--bind-to none", "-n 6"]),
        (OF_SITE, {"prologue": ("module load x",)}, ["mpirun", "--bind-to none", "-n 6"]),
        (MpiLauncher("/x/mpirun", "openmpi4"), {}, ["/x/mpirun", "--bind-to none", "--enable-recovery", "-n 6"]),
        (MPICH, {}, ["srun", "--mpi=pmi2", *SURVIVES, "-n 6"]),
        (None, {}, ["srun", *SURVIVES, "-n 6"]),
        (MpiLauncher("/opt/cray/mpiexec", "unknown"), {}, ["srun", *SURVIVES, "-n 6"]),
        (OPEN_MPI, {"launcher": "srun"}, ["srun", "--mpi=pmix", *SURVIVES, "-n 6"]),
        (MPICH, {"srun_mpi": "cray_shasta"}, ["srun", "--mpi=cray_shasta", *SURVIVES, "-n 6"]),
        (OPEN_MPI, {"mpi": "none"}, ["srun", "--mpi=none", *SURVIVES, "-n 6"]),
        (None, {"launcher_options": ("--gpu-bind=closest", "-C 'a b'")}, ["srun", *SURVIVES, *OWN, "-n 6"]),
        (OPEN_MPI, {"launcher_options": ("-x A",)}, ["/env/bin/mpiexec", "--bind-to none", "-x A", "-n 6"]),
    ],
)
def test_the_launcher_in_slurm(
    found: Found, launcher: MpiLauncher | None, options: dict[str, Any], command: list[str]
) -> None:
    found(launcher)
    assert launch(**options) == command


def test_a_job_of_which_slurm_chooses_the_machines_asks_how_many(found: Found) -> None:
    line = 'if [ "${SLURM_JOB_NUM_NODES:-}" = 1 ]; then LAUNCH+=(' + FT + "); fi"
    assert line in script().text
    for options in ({"nodes": 1}, {"nodes": 3}, {"n": 1}, {"fault_tolerance": "on"}, {"fault_tolerance": "off"}):
        assert "SLURM_JOB_NUM_NODES" not in script(**options).text
    assert '"$(sort -u "$PBS_NODEFILE" | wc -l)" = 1' in script("pbs").text
    found(MPICH)
    assert "--with-ft" not in script("pbs").text


HOSTFILE = '--hostfile "$PBS_NODEFILE"'


@pytest.mark.parametrize(
    ("launcher", "options", "command"),
    [
        (OPEN_MPI, {}, ["/env/bin/mpiexec", "--bind-to none", HOSTFILE, "-n 6"]),
        (OPEN_MPI, {"nodes": 1}, ["/env/bin/mpiexec", "--bind-to none", FT, HOSTFILE, "-n 6"]),
        (PALS, {}, ["/opt/pals/mpiexec", "--cpu-bind depth --depth 1", "--genvall", "-n 6"]),
        (
            PALS,
            {"nodes": 2, "per_node": 3, "cores_per_engine": 8},
            ["/opt/pals/mpiexec", "--ppn 3", "--cpu-bind depth --depth 8", "--genvall", "-n 6"],
        ),
        (MPICH, {}, ["/env/bin/mpiexec", "-n 6"]),
        (MpiLauncher("/opt/cray/mpiexec", "unknown"), {}, ["/opt/cray/mpiexec", "-n 6"]),
        (MPICH, {"mpi": "none"}, ["/env/bin/mpiexec", "-n 6"]),
        (None, {"mpi": "none", "n": 1}, ["env"]),
    ],
)
def test_the_launcher_in_pbs(
    found: Found, launcher: MpiLauncher | None, options: dict[str, Any], command: list[str]
) -> None:
    found(launcher)
    assert launch("pbs", **options) == command


def test_a_launcher_by_name_or_path(found: Found, tmp_path: Path) -> None:
    for program in ("mpirun", "hydra_pmi_proxy"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    command = [f"{tmp_path}/mpirun", "-n 6"]
    assert launch("pbs", launcher="mpirun", python=f"{tmp_path}/python") == command
    assert launch("pbs", launcher=f"{tmp_path}/mpirun") == command


def test_the_choice_is_explained(found: Found) -> None:
    found(OF_SITE)
    assert dict(script().reasons)["/opt/mpi/bin/mpirun"] == (
        "of Open MPI, in PATH as /opt/mpi/bin/mpirun; "
        "with it an engine may die alone on one machine, unlike with srun"
    )
    found(OPEN_MPI)
    assert "die alone" not in dict(script(nodes=2).reasons)["/env/bin/mpiexec"]
    assert "die alone on one" not in dict(script(nodes=2, fault_tolerance="on").reasons)["/env/bin/mpiexec"]
    found(MPICH)
    why = dict(script().reasons)
    assert why["srun"] == "starts ranks of the MPICH family (/env/bin/mpiexec), and one may die alone"
    assert why["--mpi=pmi2"] == "what the MPICH family speaks"


def test_launchers_that_are_not_there(found: Found) -> None:
    found(None)
    with pytest.raises(LauncherError, match=r"no mpiexec next to /env/bin/python.*MPI module.*--launcher"):
        script("pbs")
    with pytest.raises(LauncherError, match="PBS has no srun: leave --launcher out"):
        script("pbs", launcher="srun")
    with pytest.raises(LauncherError, match=r"there is no /x/mpiexec here; name another one with --launcher PATH"):
        script(launcher="/x/mpiexec")


def test_root_has_to_be_allowed(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "AS_ROOT" not in script().text
    monkeypatch.setattr(jobscript.os, "geteuid", lambda: 0)
    assert "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1" in script().text
    found(MPICH)
    assert "AS_ROOT" not in script().text


# --- A template of the user's own -------------------------------------------------------------------------


def test_a_template_replaces_ours(found: Found, tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text(
        "{{ system.prefix }} --wckey=x\n{{ directives | join('|') }}\necho ${#PATH} {{ furl_file }}\n"
    )
    lines = script(template=template).text.splitlines()
    assert lines[0] == "#SBATCH --wckey=x"
    assert lines[1].startswith("#SBATCH --job-name=ipmpi|#SBATCH --ntasks=6|")
    assert lines[2] == "echo ${#PATH} /home/a/engine.furl"


def test_a_template_may_change_one_part_of_ours(found: Found, tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text(
        '{% extends "engines.sh.j2" %}{% block software %}module load mine\n{{ super() }}{% endblock %}'
    )
    ours, mine = script().text, script(template=template).text
    assert mine == ours.replace("set -u", "module load mine\nset -u")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("line\n{% if %}", r"mine\.j2, line 2: Expected an expression"),
        ("{{ walltime }}", r"mine\.j2: 'walltime' is undefined"),
        ('{% extends "absent.j2" %}', r"mine\.j2: .*absent\.j2"),
        (b"\xff", r"mine\.j2 cannot be read: .*utf-8"),
        (None, r"mine\.j2 cannot be read: .*No such file"),
    ],
)
def test_a_template_that_is_none(found: Found, tmp_path: Path, text: str | bytes | None, complaint: str) -> None:
    template = tmp_path / "mine.j2"
    if text is not None:
        template.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LauncherError, match=complaint):
        script(template=template)


def test_a_batch_system_of_another_kind_uses_the_same_templates(found: Found) -> None:
    """A plug-in that has fewer directives, and no way to warn."""
    other = replace(SLURM, name="other", prefix="#BSUB", directives={"walltime": "-W {value}"})
    text = render(other, BASE).text
    assert "#BSUB -W 1:30:00\n" in text
    assert "USR1@" not in text
