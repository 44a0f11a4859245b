"""ipcluster through a real sshd on loopback: engines over there, and whole clusters over there."""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ipmpi
from ipmpi.client import MultiEngineClient
from ipmpi.launch.cluster import records
from ipmpi.launch.processes.mpi import find_mpi
from ipmpi.transport.ssh.ssh import SshSession
from tests.cli.running import REAL, WITH_FAKE_BATCH, Batch, Run
from tests.reach.conftest import NAME, Server, login, sshd

__all__ = ["login", "sshd"]  # fixtures
LOCAL = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def there(fake: Batch, tmp_path: Path) -> str:
    """What runs ipcluster at the far end, where there is a batch system and another home."""
    variables = {**fake.environ, "IPYTHONDIR": str(tmp_path / "far")}
    path = tmp_path / "ipcluster-there"
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    path.write_text(f'#!/bin/sh\n{exports}exec {shlex.join(WITH_FAKE_BATCH)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_engines_on_other_hosts(ipcluster: Callable[..., Run], sshd: Server, there: str) -> None:
    words = ("--hosts", f"{NAME}:2", "--mpi", "none", "--remote", there, *LOCAL)
    run = ipcluster("ssh", *words, command=REAL, IPMPI_SSH=sshd.client)
    run.until("kill -INT", 40)
    assert f"Starting engines:    2 on {NAME}; PIDs of ssh: [" in run.text
    furl = (run.home / "security" / "ipcontroller-engine.furl").read_text().strip()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert furl.encode() not in entry.read_bytes()
        except OSError:
            continue
    with MultiEngineClient() as mec:
        assert mec.get_ids() == [0, 1]
        pids = [os.pidfd_open(engine["pid"]) for engine in mec.cluster_info()["engines"]]
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    for descriptor in pids:
        assert _ends(descriptor)


def test_a_host_that_cannot_be_reached_is_explained(ipcluster: Callable[..., Run], sshd: Server) -> None:
    run = ipcluster("ssh", "--hosts", "nowhere.invalid:1", *LOCAL, command=REAL, IPMPI_SSH=sshd.client)
    assert run.ends(40) == 1
    assert "The engines could not start: ssh nowhere.invalid ended (exit code 255)." in run.text
    assert "nowhere.invalid" in run.text.partition("The last lines of")[2]


needs_mpi = pytest.mark.skipif(find_mpi() is None, reason="no mpiexec here")


@needs_mpi
def test_a_cluster_on_a_login_node_as_if_it_were_here(
    ipcluster: Callable[..., Run], fake: Batch, sshd: Server, there: str, tmp_path: Path
) -> None:
    fake.set("hold")
    fake.set("reason", "Priority")
    words = ("fake", "--ssh", f"{NAME}:{there}", "-n", "2", *LOCAL)
    run = ipcluster(*words, command=WITH_FAKE_BATCH, IPMPI_SSH=sshd.client)
    run.until("ipcluster: Job 1 waits in the queue (Priority).", 40)
    (fake.folder / "hold").unlink()
    run.until("Ctrl-C stops the cluster.", 40)
    assert "Your cluster on login is up and running." in run.text
    assert "mec = client.MultiEngineClient()\n" in run.text
    assert "kill -INT" not in run.text
    record = records.find()
    assert (record.ssh, record.jobs, record.kind) == (NAME, ["1"], "fake")
    with MultiEngineClient() as mec:
        assert mec.get_ids() == [0, 1]
        _kill_ssh(run)
        mec["a"] = 5
        assert mec["a"] == [5, 5]
    run.process.send_signal(signal.SIGINT)
    assert run.ends(60) == 0
    assert "Stopping the cluster on login..." in run.text
    assert fake.state() in ("CANCELLED", "COMPLETED")
    assert list((tmp_path / "far" / "clusters").iterdir()) == []


@needs_mpi
def test_what_fails_over_there_is_told_here(
    ipcluster: Callable[..., Run], fake: Batch, sshd: Server, there: str
) -> None:
    fake.set("refuse", "no such account")
    run = ipcluster(
        "fake", "--ssh", f"{NAME}:{there}", "-n", "2", *LOCAL, command=WITH_FAKE_BATCH, IPMPI_SSH=sshd.client
    )
    assert run.ends(40) == 1
    assert "no such account" in run.text


@needs_mpi
def test_a_dry_run_shows_the_job_script_of_over_there(
    ipcluster: Callable[..., Run], fake: Batch, sshd: Server, there: str
) -> None:
    words = ("fake", "--ssh", f"{NAME}:{there}", "-n", "2", "--dry-run")
    run = ipcluster(*words, command=WITH_FAKE_BATCH, IPMPI_SSH=sshd.client)
    assert run.ends(40) == 0
    assert "#!/bin/bash\n" in run.text
    assert f"{fake.folder.parent}/far/" in run.text
    assert list(fake.folder.glob("*.state")) == []


def test_a_login_node_that_cannot_be_reached_is_explained(ipcluster: Callable[..., Run], sshd: Server) -> None:
    words = ("fake", "--ssh", "nowhere.invalid", "-n", "2")
    run = ipcluster(*words, command=WITH_FAKE_BATCH, IPMPI_SSH=sshd.client)
    assert run.ends(40) == 1
    assert "nowhere.invalid" in run.text
    assert records.living() == []


@needs_mpi
def test_kept_it_goes_on_over_there_and_python_finds_it(
    fake: Batch, sshd: Server, there: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IPMPI_SSH", sshd.client)
    monkeypatch.setattr("ipmpi.launch.cluster.follow.IPCLUSTER", WITH_FAKE_BATCH)
    said: list[str] = []
    options = {"client_ip": "127.0.0.1", "engine_ip": "127.0.0.1", "name": "big", "keep": True}
    with ipmpi.Cluster("fake", n=2, ssh=f"{NAME}:{there}", echo=said.append, **options) as cluster:
        mec = cluster.multiengine()
        assert mec.get_ids() == [0, 1]
        assert cluster.jobs == ["1"]
    assert "Submitted job 1 to Fake: 2 engines." in said
    assert fake.state() == "RUNNING"
    with (
        SshSession(f"{NAME}:{there}") as session,
        MultiEngineClient(str(session.furl("mec", "big")), ssh=session) as mec,
    ):
        assert mec.get_ids() == [0, 1]
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "far"))
    record = records.find("big")
    with MultiEngineClient(record.furl_files["mec"]) as mec:
        assert mec.get_ids() == [0, 1]
    os.kill(record.pid, signal.SIGTERM)
    assert _ends(os.pidfd_open(record.pid))


def _kill_ssh(run: Run) -> None:
    """SIGKILL the ssh process of a command."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
            words = (entry.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(fields[1]) == run.process.pid and words[0].endswith(b"ssh"):
            os.kill(int(entry.parent.name), signal.SIGKILL)
            return
    raise AssertionError(f"no ssh below {run.process.pid}, {sys.argv}")


def _ends(descriptor: int) -> bool:
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)
