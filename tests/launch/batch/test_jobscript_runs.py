"""Job scripts, run by bash as a batch system would, with launchers that only tell how they were started."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmpi.launch.batch.joboptions import JobOptions
from ipmpi.launch.batch.jobscript import render
from ipmpi.launch.batch.registry import batch_system

FAKE = Path(__file__).with_name("fake_launcher.py")
ANSWERS = Path(__file__).with_name("pbs_answers")


class Job:
    """A job script that runs."""

    def __init__(self, script: Path, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash", str(script)],
            env=environ,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def line(self) -> dict[str, Any]:
        """The next thing that a fake program says."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text.startswith("{"), text + self.process.stdout.read()
        said: dict[str, Any] = json.loads(text)
        return said

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def end(self) -> int:
        """The exit status, after everything was said."""
        assert self.process.stdout is not None
        assert self.process.stdout.read() == ""
        return self.process.wait(10)

    def kill(self) -> None:
        """End what still runs of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Job]


def _without_pbs(path: str) -> list[str]:
    """Folders of PATH but for those of a real PBS, whose programs would answer."""
    return [folder for folder in path.split(os.pathsep) if not (Path(folder) / "pbs_tmrsh").exists()]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Write a script, and run it with fake programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("srun", "mpiexec", "python", "hydra_pmi_proxy"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" {name} "$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "nodes").write_text("n1\nn1\nn2\nn2\n")
    jobs: list[Job] = []

    def begin(name: str = "slurm", *, environ: dict[str, str] | None = None, **options: Any) -> Job:
        given: dict[str, Any] = {
            "n": 4,
            "python": str(programs / "python"),
            "log_dir": tmp_path / "logs",
            **options,
        }
        script = tmp_path / "job.sh"
        script.write_text(render(batch_system(name), JobOptions(**given)).text)
        variables = {
            "PATH": os.pathsep.join([str(programs), *_without_pbs(os.environ["PATH"])]),
            "SLURM_JOB_ID": "4711",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_END_TIME": "2000000000",
            "PBS_JOBID": "12.server",
            "PBS_O_WORKDIR": str(tmp_path),
            "PBS_NODEFILE": str(tmp_path / "nodes"),
            **(environ or {}),
        }
        jobs.append(Job(script, variables))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.kill()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for TMPDIR: of a long name like that of tmp_path scripts make no use."""
    with tempfile.TemporaryDirectory(prefix="ipmpi-") as folder:
        yield Path(folder)


@pytest.mark.parametrize(("name", "launcher"), [("slurm", "srun"), ("pbs", "mpiexec")])
def test_signals_reach_the_engines_and_their_exit_status_is_kept(start: Start, name: str, launcher: str) -> None:
    job = start(name)
    assert job.line()["program"] == launcher
    for _ in range(3):
        job.send(signal.SIGUSR1)
        assert job.line() == {"signal": "SIGUSR1", "to": launcher}
    job.send(signal.SIGTERM)
    assert job.line() == {"signal": "SIGTERM", "to": launcher}
    assert job.end() == 7


@pytest.mark.parametrize("name", ["slurm", "pbs"])
@pytest.mark.parametrize("kind", ["engines", "cluster", "array"])
def test_the_exit_status_is_that_of_the_engines(start: Start, name: str, kind: str, tmp_path: Path) -> None:
    array = {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3", "PBS_ARRAY_INDEX": "3"}
    job = start(name, kind=kind, environ={"FAKE_EXIT": "3", **array}, engine_furl_file=tmp_path / "e.furl")
    assert job.process.stdout is not None
    said = [json.loads(line) for line in job.process.stdout]
    assert job.process.wait(10) == 3
    engines = [each for each in said if "ipmpi.cli.ipengine" in each.get("argv", [])]
    assert len(engines) == 1


def test_the_engines_command(start: Start, tmp_path: Path) -> None:
    job = start(cores_per_engine=2, engine_furl_file=tmp_path / "it's here.furl", proxy="http://proxy:3128")
    said = job.line()
    assert said["argv"] == [
        *("--mpi=pmi2", "--kill-on-bad-exit=0", "--wait=0", "--no-kill", "--cpus-per-task=2", "-n", "4"),
        *(str(tmp_path / "bin" / "python"), "-m", "ipmpi.cli.ipengine"),
        *("--furl-file", str(tmp_path / "it's here.furl"), "-l", f"{tmp_path}/logs/ipengine-4711-"),
        *("--mpi", "auto", "--wait", "60", "--ids-dir", f"{tmp_path}/logs/ipengine-4711-ids"),
        *("--proxy", "http://proxy:3128"),
    ]
    assert said["cwd"] == str(tmp_path)
    assert (tmp_path / "logs").is_dir()


@pytest.mark.parametrize("name", ["slurm", "pbs"])
@pytest.mark.parametrize("kind", ["engines", "cluster", "array"])
def test_paths_may_have_any_characters(start: Start, tmp_path: Path, name: str, kind: str) -> None:
    odd = tmp_path / "d'Alembert's \"$HOME\" `id` (1) #2"
    odd.mkdir()
    python = odd / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" python "$@"\n')
    python.chmod(0o755)
    environ = {name: str(odd) for name in ("SLURM_SUBMIT_DIR", "PBS_O_WORKDIR")}
    job = start(
        name, kind=kind, n=1, python=str(python), log_dir=odd / "logs", engine_furl_file=odd / "e.furl",
        mpi="none", environ=environ, controller_args=("--x", str(odd)),
    )  # fmt: skip
    said = [job.line() for _ in range(2 if kind == "cluster" else 1)]
    engine = next(each["argv"] for each in said if "ipmpi.cli.ipengine" in each["argv"])
    assert engine[engine.index("--furl-file") + 1] == str(odd / "e.furl")
    assert engine[engine.index("-l") + 1].startswith(f"{odd}/logs/ipengine-")
    controller = [each["argv"] for each in said if "ipmpi.cli.ipcontroller" in each["argv"]]
    assert all(argv[argv.index("--x") + 1] == str(odd) for argv in controller)


def test_threads_and_temporary_files(start: Start) -> None:
    environ = start(cores_per_engine=3, environ={"TMPDIR": "/scratch/" + "long" * 20}).line()["environ"]
    assert (environ["OMP_NUM_THREADS"], environ["TMPDIR"]) == ("3", "/tmp")
    assert start(environ={"TMPDIR": "/scratch"}).line()["environ"]["TMPDIR"] == "/scratch"
    assert start().line()["environ"]["TMPDIR"] == "/tmp"


def test_gpu_support_is_switched_off_on_cray_unless_asked_for(start: Start) -> None:
    def support(**environ: str) -> str | None:
        value: str | None = start(environ=environ).line()["environ"].get("MPICH_GPU_SUPPORT_ENABLED")
        return value

    assert support() is None
    assert support(CRAY_MPICH_VERSION="8.1", MPICH_GPU_SUPPORT_ENABLED="1") == "0"
    assert support(CRAY_MPICH_VERSION="8.1", IPMPI_GPU_SUPPORT="1") == "1"


def test_the_end_of_a_slurm_job(start: Start, tmp_path: Path) -> None:
    assert start().line()["environ"]["IPMPI_JOB_END"] == "2000000000"
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text('#!/bin/sh\ntest "$*" = "-h -j 4711 -o %e" && echo 2033-05-18T03:33:20\n')
    squeue.chmod(0o755)
    old = {"SLURM_JOB_END_TIME": "", "TZ": "UTC"}  # as before version 22.05 or so
    assert start(environ=old).line()["environ"]["IPMPI_JOB_END"] == "2000000000"


@pytest.mark.parametrize("answer", ["echo N/A", "echo", "exit 1"])
def test_a_slurm_job_without_an_end(start: Start, tmp_path: Path, answer: str) -> None:
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(f"#!/bin/sh\n{answer}\n")
    squeue.chmod(0o755)
    assert "IPMPI_JOB_END" not in start(environ={"SLURM_JOB_END_TIME": ""}).line()["environ"]


def test_the_end_of_a_pbs_job(start: Start) -> None:
    before = time.time()
    end = int(start("pbs", walltime=1800).line()["environ"]["IPMPI_JOB_END"])
    assert before - 1 < end - 1800 <= time.time()
    assert "IPMPI_JOB_END" not in start("pbs").line()["environ"]


@pytest.mark.parametrize("asked", [1800, None])
def test_a_pbs_job_whose_walltime_was_changed_knows_it(start: Start, tmp_path: Path, asked: int | None) -> None:
    qstat = tmp_path / "bin" / "qstat"
    answer = ANSWERS / "qstat-f-running-2nodes.txt"
    qstat.write_text(f'#!/bin/sh\ntest "$*" = "-f 12.server" && cat "{answer}"\n')
    qstat.chmod(0o755)
    before = time.time()
    end = int(start("pbs", walltime=asked).line()["environ"]["IPMPI_JOB_END"])
    assert before - 1 < end - 60 <= time.time()  # 00:01:00 in that answer


def test_the_prologue_prepares_the_software(start: Start) -> None:
    """Also one that uses variables that are not set, as those of modules do."""
    job = start(prologue=("export MODULE_PATH=$NOT_SET/x", "export MPICH_GPU_SUPPORT_ENABLED=1"))
    assert job.line()["environ"]["MODULE_PATH"] == "/x"


def test_a_cluster_has_its_controller_beside_it(start: Start, tmp_path: Path) -> None:
    furl_file = tmp_path / "e.furl"
    furl_file.write_text("that of a former controller")
    job = start(kind="cluster", engine_furl_file=furl_file, controller_args=("--client-location", "login 1"))
    said = {each["program"]: each for each in (job.line(), job.line())}
    assert not furl_file.exists()
    assert said["python"]["argv"] == [
        *("-m", "ipmpi.cli.ipcontroller", "--client-location", "login 1"),
        *("--engine-furl-file", str(furl_file), "-l", f"{tmp_path}/logs/ipcontroller-4711-"),
    ]
    job.send(signal.SIGTERM)
    assert job.line() == {"signal": "SIGTERM", "to": "srun"}
    assert job.line() == {"signal": "SIGTERM", "to": "python"}
    assert job.end() == 7


@pytest.mark.parametrize(("name", "element"), [("slurm", "4700-3"), ("pbs", "12-3")])
def test_an_element_of_an_array_is_its_engine(start: Start, tmp_path: Path, name: str, element: str) -> None:
    environ = {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3"}
    environ |= {"PBS_JOBID": "12[3].server", "PBS_ARRAY_INDEX": "3"}
    job = start(name, kind="array", environ=environ)
    said = job.line()
    assert (said["program"], said["pid"]) == ("python", job.process.pid)
    assert f"{tmp_path}/logs/ipengine-{element}-" in said["argv"]
    assert said["argv"][said["argv"].index("--mpi") + 1] == "none"
    job.send(signal.SIGTERM)
    assert job.line()["signal"] == "SIGTERM"
    assert job.end() == 7


def test_open_mpi_under_pbs_passes_variables_on(start: Start, tmp_path: Path) -> None:
    (tmp_path / "bin" / "hydra_pmi_proxy").rename(tmp_path / "bin" / "prterun")
    argv = start("pbs", environ={"PYTHONPATH": "/p"}).line()["argv"]
    assert argv[: argv.index("-n")] == ["--bind-to", "none", "--hostfile", str(tmp_path / "nodes")]
    assert "--with-ft" not in argv, "there are two machines"
    passed = [name for option, name in itertools.pairwise(argv) if option == "-x"]
    assert passed == ["PATH", "PYTHONPATH", "OMP_NUM_THREADS", "TMPDIR"]


@pytest.mark.parametrize(
    ("companion", "options"),
    [
        ("hydra_pmi_proxy", "-launcher rsh -launcher-exec {}"),
        ("prterun", "--prtemca plm ssh --prtemca plm_ssh_no_tree_spawn 1 --prtemca plm_ssh_agent {}"),
    ],
)
def test_pbs_itself_reaches_the_other_machines(
    start: Start, tmp_path: Path, scratch: Path, companion: str, options: str
) -> None:
    (tmp_path / "bin" / "hydra_pmi_proxy").rename(tmp_path / "bin" / companion)
    remote = tmp_path / "bin" / "pbs_tmrsh"
    remote.write_text('#!/bin/sh\necho on "$1":\nshift\nexec "$@"\n')
    remote.chmod(0o755)
    # Open MPI takes no name with a blank.
    job = start("pbs", environ={"TMPDIR": str(scratch)}, log_dir=tmp_path / "logs of mine")
    said = job.line()
    (shim,) = scratch.iterdir()
    assert options.format(shim) in " ".join(said["argv"])
    done = subprocess.run(
        [str(shim), "n2", "echo", "one;", "echo two words"], env=said["environ"], capture_output=True, text=True,
        check=True, timeout=10,
    )  # fmt: skip
    assert done.stdout == "on n2:\none\ntwo words\n"
    job.send(signal.SIGTERM)
    assert job.line()["signal"] == "SIGTERM"
    assert job.end() == 7
    assert list(scratch.iterdir()) == []
    remote.unlink()
    assert options.partition(" ")[0] not in start("pbs").line()["argv"]


@pytest.mark.parametrize(("name", "several"), [("slurm", True), ("slurm", False), ("pbs", True), ("pbs", False)])
def test_engines_outlive_each_other_on_one_machine(start: Start, tmp_path: Path, name: str, several: bool) -> None:
    (tmp_path / "bin" / "hydra_pmi_proxy").rename(tmp_path / "bin" / "prterun")
    (tmp_path / "nodes").write_text("n1\nn1\nn2\n" if several else "n1\nn1\n")
    argv = start(name, environ={"SLURM_JOB_NUM_NODES": "2" if several else "1"}).line()["argv"]
    assert ("--with-ft" in argv) is not several
    assert argv.index("ipmpi.cli.ipengine") > argv.index("-n")


def test_an_element_with_several_engines(start: Start, tmp_path: Path) -> None:
    environ = {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3"}
    job = start(kind="array", n=8, per_node=4, environ=environ, launcher_options=("--label",))
    said = job.line()
    assert said["program"] == "srun"
    assert said["argv"][said["argv"].index("-n") - 1 :][:3] == ["--label", "-n", "4"]
    assert f"{tmp_path}/logs/ipengine-4700-3-" in said["argv"]
    job.send(signal.SIGTERM)
    assert job.line() == {"signal": "SIGTERM", "to": "srun"}
    assert job.end() == 7


@pytest.mark.parametrize("submission", [True, False], ids=["folder of submission", "nowhere but TMPDIR"])
def test_logs_go_where_the_compute_node_can_write(
    start: Start, tmp_path: Path, scratch: Path, submission: bool
) -> None:
    """Root may write anywhere, so what cannot be written is a file where a folder is to be."""
    (tmp_path / "home").write_text("")
    if not submission:
        (tmp_path / "ipmpi-log").write_text("")
    job = start(log_dir=tmp_path / "home" / "log", environ={"TMPDIR": str(scratch)})
    assert job.process.stdout is not None
    told = job.process.stdout.readline()
    said = job.line()
    place = tmp_path / "ipmpi-log" if submission else scratch
    assert told == f"{tmp_path}/home/log cannot be written on {os.uname().nodename}: log files are in {place}\n"
    assert f"{place}/ipengine-4711-" in said["argv"]


def test_a_job_whose_folder_is_gone_ends(start: Start, tmp_path: Path) -> None:
    job = start(environ={"SLURM_SUBMIT_DIR": str(tmp_path / "gone")})
    assert job.process.stdout is not None
    assert "No such file or directory" in job.process.stdout.read()
    assert job.process.wait(10) == 1


# --- Engines that are started again -----------------------------------------------------------------------

ARRAY = {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3", "PBS_ARRAY_INDEX": "3"}


@pytest.fixture
def at_once(tmp_path: Path, start: Start) -> None:
    """No pause before engines are started again."""
    sleep = tmp_path / "bin" / "sleep"
    sleep.write_text("#!/bin/sh\n")
    sleep.chmod(0o755)


def ended(job: Job) -> tuple[int, list[dict[str, Any]], list[str]]:
    """The exit status of a job, what its launchers have said, and the other lines."""
    assert job.process.stdout is not None
    lines = job.process.stdout.read().splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    launched = [each for each in said if "ipmpi.cli.ipengine" in each.get("argv", [])]
    return job.process.wait(10), launched, [line for line in lines if not line.startswith("{")]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("name", "launcher"), [("slurm", "srun"), ("pbs", "mpiexec")])
@pytest.mark.parametrize("kind", ["engines", "cluster", "array"])
def test_engines_that_were_registered_and_have_failed_are_started_again(
    start: Start, name: str, launcher: str, kind: str, tmp_path: Path
) -> None:
    environ = {"FAKE_EXIT": "137", "FAKE_IDS": "4 5 6 7", **ARRAY}
    job = start(
        name, kind=kind, n=8, per_node=4, restarts=2, environ=environ, engine_furl_file=tmp_path / "e.furl"
    )
    code, launched, told = ended(job)
    assert code == 137
    assert [each["former"] for each in launched] == ["", "4 5 6 7", "4 5 6 7"]
    lines = [
        f"ipmpi: {launcher} has ended with exit status 137; its engines are started again ({number} of 2)"
        for number in (1, 2)
    ]
    assert told == lines
    notes = {path.name: path.read_text().splitlines() for path in (tmp_path / "logs").iterdir()}
    element = {"slurm": "4700-3", "pbs": "12-3"} if kind == "array" else {"slurm": "4711", "pbs": "12"}
    assert notes == {f"ipengine-{element[name]}-restarts.txt": lines}, "the ids are of no use any more"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("restarts", [0, 1])
@pytest.mark.parametrize("code", ["0", "137"])
def test_a_restart_that_a_client_has_asked_for_is_not_counted(start: Start, restarts: int, code: str) -> None:
    """It also comes where failed engines are not started again, whatever the launcher's exit status is."""
    environ = {"FAKE_EXIT": code, "FAKE_IDS": "0 1 2 3", "FAKE_ASKED": "yes"}
    last, launched, told = ended(start(restarts=restarts, environ=environ))
    asked = "ipmpi: a client has asked for a restart; its engines are started again (asked for)"
    counted = f"ipmpi: srun has ended with exit status {code}; its engines are started again (1 of 1)"
    again = bool(restarts and code != "0")
    assert told == [asked, *[counted] * again]
    assert [each["former"] for each in launched] == ["", *["0 1 2 3"] * (1 + again)]
    assert last == int(code)


@pytest.mark.usefixtures("at_once")
def test_ranks_of_pals_are_started_again(start: Start, tmp_path: Path) -> None:
    """Its mpiexec ends all ranks when one dies."""
    (tmp_path / "bin" / "hydra_pmi_proxy").rename(tmp_path / "bin" / "palstat")
    job = start("pbs", restarts=1, environ={"FAKE_EXIT": "143", "FAKE_IDS": "0 1 2 3"})
    code, launched, told = ended(job)
    assert ["--genvall" in each["argv"] for each in launched] == [True, True]
    assert (code, len(told)) == (143, 1)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("environ", "restarts"),
    [
        ({"FAKE_EXIT": "3"}, 3),
        ({"FAKE_EXIT": "0", "FAKE_IDS": "0 1 2 3"}, 3),
        ({"FAKE_EXIT": "3", "FAKE_IDS": "0 1 2 3"}, 0),
    ],
    ids=["never registered, or told to end", "all went well", "not asked for"],
)
def test_engines_are_not_started_again(start: Start, environ: dict[str, str], restarts: int) -> None:
    code, launched, told = ended(start(restarts=restarts, environ=environ))
    assert (code, len(launched), told) == (int(environ["FAKE_EXIT"]), 1, [])


@pytest.mark.parametrize("before", [[signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]])
def test_engines_of_a_job_that_ends_are_not_started_again(start: Start, before: list[int]) -> None:
    """By the word of the batch system: its end, or the warning that it is near."""
    job = start(restarts=3, environ={"FAKE_IDS": "0 1 2 3"})
    launched = job.line()
    for signum in before:
        if signum == signal.SIGTERM and len(before) > 1:
            os.kill(launched["pid"], signum)  # the launcher ends by itself, after the warning
        else:
            job.send(signum)
        assert job.line()["signal"] == signal.Signals(signum).name
    assert job.end() == 7


def test_a_job_may_end_while_its_engines_are_about_to_be_started_again(start: Start, tmp_path: Path) -> None:
    sleep = tmp_path / "bin" / "sleep"
    sleep.write_text("#!/bin/sh\necho '{\"sleeps\": true}'\nexec /bin/sleep 60\n")
    sleep.chmod(0o755)
    job = start(restarts=3, environ={"FAKE_IDS": "0 1 2 3", "FAKE_EXIT": "3"})
    assert job.line()["program"] == "srun"
    assert job.process.stdout is not None
    assert "started again (1 of 3)" in job.process.stdout.readline()
    assert job.line() == {"sleeps": True}
    job.send(signal.SIGTERM)
    assert job.process.wait(10) == 3


AS_IT_BEGINS_TO_WAIT = """\
trap 'case $BASH_COMMAND in again=\\$*) restarts=yes;;
    wait*) if [ -n "${restarts:-}" ]; then kill -%s $$; fi;; esac' DEBUG
"""
"""A signal at the moment before the shell waits for the end of the pause: a trap runs then, and ends no wait."""


@pytest.mark.parametrize("name", ["TERM", "USR1"])
def test_a_job_may_end_just_before_it_waits_for_the_end_of_the_pause(
    start: Start, tmp_path: Path, name: str
) -> None:
    sleep = tmp_path / "bin" / "sleep"
    sleep.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    sleep.chmod(0o755)
    traps = tmp_path / "traps"
    traps.write_text(AS_IT_BEGINS_TO_WAIT % name)
    environ = {"FAKE_IDS": "0 1 2 3", "FAKE_EXIT": "3", "BASH_ENV": str(traps)}
    job = start(restarts=3, environ=environ)
    assert job.line()["program"] == "srun"
    assert job.process.wait(10) == 3
