"""Processes that are not our children: when they end, how, and who started them."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi.engine.agent.watch import describe_status, exit_status, open_pidfd, parent_launcher, send_signal

TELLS_LATER = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 15)
"""Whether this kernel knows how a process ended whose parent has asked already."""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def ended(descriptor: int, seconds: float = 10) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


@pytest.fixture(params=["its own", "without that of Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pythons built on old systems (conda) lack these calls."""
    if request.param != "its own":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        monkeypatch.delattr(signal, "pidfd_send_signal", raising=False)


@pytest.mark.usefixtures("way")
def test_the_end_of_a_process_is_seen_and_its_signal_known(sleeper: subprocess.Popen[bytes]) -> None:
    descriptor = open_pidfd(sleeper.pid)
    assert descriptor is not None
    try:
        assert not os.get_inheritable(descriptor)
        assert not ended(descriptor, 0)
        assert exit_status(sleeper.pid, descriptor) is None
        assert send_signal(descriptor, sleeper.pid, signal.SIGKILL)
        assert ended(descriptor)
        assert exit_status(sleeper.pid) == signal.SIGKILL
        sleeper.wait()
        assert exit_status(sleeper.pid) is None
        assert exit_status(sleeper.pid, descriptor) == (signal.SIGKILL if TELLS_LATER else None)
        assert not send_signal(descriptor, sleeper.pid, signal.SIGTERM), "it has ended"
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("way")
def test_a_process_that_is_not_there() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with pytest.raises(ProcessLookupError):
        open_pidfd(gone.pid)
    assert not send_signal(None, gone.pid, signal.SIGTERM)
    assert exit_status(gone.pid) is None


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_such_descriptors(
    code: int, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pidfd_open", refuses)
    monkeypatch.setattr(signal, "pidfd_send_signal", refuses)
    assert open_pidfd(sleeper.pid) is None
    assert send_signal(None, sleeper.pid, signal.SIGKILL)
    sleeper.wait()


def test_a_status_is_put_into_words() -> None:
    for descriptor_free in (0, 3):
        assert describe_status(descriptor_free << 8) == f"exit code {descriptor_free}"
    assert describe_status(signal.SIGSEGV) == "killed by SIGSEGV"
    assert describe_status(signal.SIGSEGV | 0x80) == "killed by SIGSEGV (core dumped)"
    assert describe_status(signal.SIGRTMIN + 3) == f"killed by signal {signal.SIGRTMIN + 3}"
    assert describe_status(None) == "exit status unknown"


def test_exit_codes_of_real_processes() -> None:
    for program, words in (("os._exit(7)", "exit code 7"), ("os.abort()", "killed by SIGABRT")):
        process = subprocess.Popen(
            [sys.executable, "-c", f"import os; {program}"],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        )
        descriptor = open_pidfd(process.pid)
        assert descriptor is not None
        assert ended(descriptor)
        assert describe_status(exit_status(process.pid, descriptor)) == words
        process.wait()
        assert describe_status(exit_status(process.pid, descriptor)) in (
            [words] if TELLS_LATER else ["exit status unknown"]
        )
        os.close(descriptor)


# --- who started a rank ----------------------------------------------------------------------------------

LOOK = "from ipmpi.engine.agent.watch import parent_launcher; import os; print(parent_launcher(os.getpid()))"
RANK = {"PMI_RANK": "2", "PMI_SIZE": "4", "PMI_FD": "9"}


@pytest.mark.parametrize("scripts", [0, 1, 2])
def test_scripts_between_a_launcher_and_its_rank(scripts: int, root: Path) -> None:
    argv = [sys.executable, "-c", LOOK]
    for _ in range(scripts):
        argv = ["sh", "-c", '"$@"; true', "sh", *argv]
    environ = {**os.environ, "PYTHONPATH": str(root), **RANK}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=30)
    assert int(done.stdout) == os.getpid()


def test_a_process_without_a_launcher_has_its_parent(root: Path) -> None:
    script = '"$@"; true; echo $$'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", LOOK],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    found, shell = done.stdout.split()
    assert found == shell


def processes(folder: Path, *table: tuple[int, int, str, dict[str, str] | None]) -> Path:
    """A folder like /proc, of processes: number, parent, name, environment (None: another user's)."""
    for pid, parent, name, environ in table:
        own = folder / str(pid)
        own.mkdir()
        (own / "stat").write_text(f"{pid} ({name}) S {parent} 1 1\n")
        if environ is not None:
            (own / "environ").write_text("".join(f"{key}={value}\0" for key, value in environ.items()))
    return folder


def test_a_launcher_inside_the_same_rank_of_another_launch(tmp_path: Path) -> None:
    """Rank 2 runs an mpiexec of as many ranks, whose rank 2 has the same numbers."""
    inner = (30, 20, "hydra_pmi_proxy", RANK)
    assert parent_launcher(40, processes(tmp_path, (40, 30, "python", RANK), inner, (20, 10, "sh", RANK))) == 30


def test_a_launcher_of_another_user(tmp_path: Path) -> None:
    rank = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}
    table = processes(tmp_path, (40, 30, "python", rank), (30, 20, "a (b) c", rank), (20, 1, "stepd", None))
    assert parent_launcher(40, table) == 20


def test_a_container_that_hides_the_launcher(tmp_path: Path) -> None:
    assert parent_launcher(40, processes(tmp_path, (40, 1, "python", RANK), (1, 0, "init", RANK))) == 0


def test_the_daemon_of_an_allocation_is_no_script(tmp_path: Path) -> None:
    """hydra's proxies are tasks of a step: they have that step's variables, and not the rank's own."""
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}
    table = processes(tmp_path, (40, 30, "python", {**step, **RANK}), (30, 20, "other_proxy", step))
    assert parent_launcher(40, table) == 30
