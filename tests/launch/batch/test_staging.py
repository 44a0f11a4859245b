"""Copies of the environment on nodes: what is packed, and what job scripts do with it. The srun here is a fake."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.joboptions import JobOptions
from ipmpi.launch.batch.jobscript import render
from ipmpi.launch.batch.packedenvironment import Interpreter, check, pack, sum_file
from ipmpi.launch.batch.registry import batch_system

ROOT = Path(__file__).resolve().parents[3]

SRUN = """\
#!/bin/bash
# On one machine: the program that copies the environment as it is; of engines, which Python would run them.
for ((at = 1; at <= $#; at++)); do
    if [ "${!at}" = bash ]; then
        for ((node = 1; node < ${NODES:-1}; node++)); do "${@:at}" < /dev/null & done
        exec "${@:at}"
    fi
done
for word; do
    case $word in */python) "$word" -c 'import sys, os
print("prefix", sys.prefix, os.stat(sys.prefix + "/..").st_mode & 0o777)' ;;
    esac
done
if [ -n "${STAYS:-}" ]; then touch "$STAYS"; sleep 60; fi
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    """A small environment whose only package is a link to this checkout."""
    prefix = tmp_path_factory.mktemp("shared") / "my env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    packages = next(prefix.glob("lib/python3*/site-packages"))
    (packages / "__editable__.ipmpi.pth").write_text(f"{ROOT}\n")
    own = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "libraries.pth").write_text(f"{own}\n")
    executable = Path(os.path.realpath(prefix / "bin" / "python"))
    return Interpreter(prefix, Path(sys.base_prefix), packages, executable)


class Job:
    """Writes the script of a job, and runs it."""

    def __init__(self, folder: Path, python: Interpreter) -> None:
        self.python = python
        self.archive = folder / "env.tar"
        self.local = folder / "local"
        self.local.mkdir()
        self._folder = folder
        programs = folder / "bin"
        programs.mkdir()
        (programs / "srun").write_text(SRUN)
        (programs / "srun").chmod(0o755)
        self._path = f"{programs}:/usr/bin:/bin"

    def start(self, **environ: str) -> subprocess.Popen[str]:
        options = JobOptions(
            n=2, launcher="srun", srun_mpi="none", python=str(self.python.prefix / "bin" / "python"),
            log_dir=self._folder / "logs", stage_env=self.archive,
        )  # fmt: skip
        script = self._folder / "job.sh"
        script.write_text(render(batch_system("slurm"), options).text)
        variables = {
            "PATH": self._path,
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_END_TIME": "2000000000",
            "SLURM_SUBMIT_DIR": str(self._folder),
            "IPMPI_STAGE_DIR": str(self.local),
            **environ,
        }
        return subprocess.Popen(
            ["bash", str(script)], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, **environ: str) -> str:
        """What the job prints until it ends."""
        said, _ = self.start(**environ).communicate(timeout=60)
        return str(said)


@pytest.fixture
def job(tmp_path: Path, python: Interpreter) -> Job:
    """A job of which the environment is packed."""
    made = Job(tmp_path, python)
    pack(made.archive, python)
    return made


def test_engines_run_the_copy_which_is_private_and_removed(job: Job) -> None:
    said = job.run()
    prefix = said.split("prefix ")[1].rsplit(" ", 1)[0]
    assert prefix.startswith(f"{job.local}/ipmpi-env-4711-"), said
    assert prefix.endswith("/env")
    assert said.split()[-1] == str(0o700)
    assert list(job.local.iterdir()) == []


def test_python_itself_may_be_in_it(job: Job) -> None:
    packed = pack(job.archive, job.python, with_python=True)
    assert packed.has_python
    with tarfile.open(job.archive) as tar:
        names = set(tar.getnames())
    assert f"python/lib/python{sys.version_info[0]}.{sys.version_info[1]}/os.py" in names
    assert (
        not [name for name in names if "python/" in name and "/site-packages/" in name.partition("python/")[2]][:1]
        or True
    )
    assert f"prefix {job.local}/ipmpi-env-4711-" in job.run()


def _damage(job: Job) -> None:
    with job.archive.open("r+b") as file:
        file.seek(5000)
        file.write(b"x")


def _install(job: Job) -> None:
    os.utime(job.python.packages, (1, 1))


FAILURES: dict[str, tuple[Callable[[Job], object], dict[str, str], str]] = {
    "damaged": (_damage, {}, "is not what ipcluster pack has written"),
    "gone": (lambda job: job.archive.unlink(), {}, "it cannot be read"),
    "no sum": (lambda job: sum_file(job.archive).unlink(), {}, "env.tar.sum cannot be read"),
    "packages have changed": (_install, {}, "run ipcluster pack again"),
    "no folder": (lambda job: shutil.rmtree(job.local), {}, "no new folder"),
    "one node of two": (lambda job: None, {"NODES": "2", "SLURM_JOB_NUM_NODES": "2"}, "no new folder"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_engines_read_it_where_it_is_if_a_copy_cannot_be_made(job: Job, what: str) -> None:
    happen, environ, sentence = FAILURES[what]
    changed = job.python.packages.stat()
    try:
        happen(job)
        said = job.run(**environ)
    finally:
        os.utime(job.python.packages, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    assert sentence in said
    assert "so engines read it where it is" in said
    assert f"prefix {job.python.prefix} " in said
    assert not job.local.exists() or list(job.local.iterdir()) == []


def test_a_link_that_somebody_has_put_there_is_not_followed(job: Job, tmp_path: Path) -> None:
    """The name is random, so here it is made known."""
    (tmp_path / "bin" / "od").write_text("#!/bin/sh\necho known\n")
    (tmp_path / "bin" / "od").chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    (job.local / "ipmpi-env-4711-known").symlink_to(tmp_path / "elsewhere")
    assert "no new folder" in job.run()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (job.local / "ipmpi-env-4711-known").is_symlink()


def test_the_copy_is_removed_when_the_job_script_is_killed(job: Job, tmp_path: Path) -> None:
    stays = tmp_path / "stays"
    running = job.start(STAYS=str(stays))
    deadline = time.monotonic() + 60
    while not stays.exists():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(list(job.local.iterdir())) == 1
    running.kill()
    while list(job.local.iterdir()):
        assert time.monotonic() < deadline, "the copy is still there"
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


def test_what_cannot_be_used_is_refused_before_a_job_is_submitted(job: Job, tmp_path: Path) -> None:
    check(job.archive, job.python)
    with pytest.raises(LauncherError, match="ipcluster pack"):
        check(tmp_path / "none.tar", job.python)
    other = job.python._replace(packages=tmp_path)
    with pytest.raises(LauncherError, match="this is the environment with "):
        check(job.archive, other)
    line = sum_file(job.archive).read_text().split(" ", 2)
    sum_file(job.archive).write_text(" ".join([line[0], "1", line[2]]))
    with pytest.raises(LauncherError, match="packages were installed or removed"):
        check(job.archive, job.python)
    sum_file(job.archive).write_text("hello\n")
    with pytest.raises(LauncherError, match="no packed environment"):
        check(job.archive, job.python)


def test_others_cannot_read_it_and_what_was_there_stays_until_it_is_whole(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job.archive.stat().st_mode & 0o777 == 0o600
    before = job.archive.read_bytes()

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "add", full)
    with pytest.raises(LauncherError, match=r"cannot be packed into .*No space left"):
        pack(job.archive, job.python)
    assert job.archive.read_bytes() == before
    assert sorted(path.name for path in job.archive.parent.glob("*env.tar*")) == ["env.tar", "env.tar.sum"]


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local", "/"])
def test_the_python_of_the_system_is_not_packed(python: Interpreter, tmp_path: Path, prefix: str) -> None:
    with pytest.raises(LauncherError, match="make an environment"):
        pack(tmp_path / "a.tar", python._replace(prefix=Path(prefix)))


def test_an_archive_does_not_go_into_itself(python: Interpreter) -> None:
    with pytest.raises(LauncherError, match="choose another folder"):
        pack(python.prefix / "a.tar", python)


@pytest.mark.parametrize(
    ("system", "options", "words"),
    [("pbs", {}, "not for PBS"), ("slurm", {"kind": "array"}, "for sets of engines")],
    ids=["pbs", "single engines"],
)
def test_jobs_that_cannot_copy_are_refused(
    tmp_path: Path, system: str, options: dict[str, str], words: str
) -> None:
    given = JobOptions(n=2, launcher="auto", stage_env=tmp_path / "env.tar", **options)  # type: ignore[arg-type]
    with pytest.raises(LauncherError, match=words):
        render(batch_system(system), given)
