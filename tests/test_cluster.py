"""Clusters from Python."""

from __future__ import annotations

import contextlib
import inspect
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ipmpi
from ipmpi.cli.ipcluster import COMMANDS, HIDDEN
from ipmpi.cluster import OTHER_COMMANDS, Cluster, command_line
from ipmpi.errors import LauncherError
from ipmpi.launch.cluster import records

HERE = {"mpi": "none", "client_ip": "127.0.0.1", "engine_ip": "127.0.0.1"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def test_options_become_words() -> None:
    options: dict[str, object] = {
        **{"time": "1:00:00", "resubmit": True, "requeue": False, "queue": None, "gpus": 4},
        **{"prologue": ["module load a", "-x"], "directive": ("-C nvme",), "logdir": Path("/l")},
    }
    assert command_line("slurm", 64, "me@login", options) == [
        *("slurm", "-n", "64", "--ssh=me@login", "--time=1:00:00", "--resubmit", "--gpus=4"),
        *("--prologue=module load a", "--prologue=-x", "--directive=-C nvme", "--logdir=/l"),
    ]
    assert command_line("local", None, "", {}) == ["local"]


def test_zero_is_a_value() -> None:
    assert command_line("slurm", 8, "", {"warn_before": 0}) == ["slurm", "-n", "8", "--warn-before=0"]
    assert command_line("slurm", np.int64(8), "", {"gpus": np.int32(0), "x": ""}) == [
        "slurm",
        "-n",
        "8",
        "--gpus=0",
    ]


WRONG: dict[str, list[Any]] = {
    "kind": ["", "stop", "X", None, 5, b"local", "local\0", "\ud800", "a" * 1_000_000, ["local"]],
    "n": [0, -1, 1.5, float("nan"), float("inf"), True, "4", b"4", [], 2**31, 2**64, 10**400],
    "ssh": [5j, object(), "a\0", "\ud800", "a" * 1_000_000, {}, b"login"],
    "echo": [5, "print", [], object()],
    "options": [{"gpus": float("nan")}, {"gpus": float("inf")}, {"account": object()}, {"account": {}},
                {"x": b"a"},
                {"prologue": ["a", "b\0"]}, {"directive": [["a"]]}, {"account": "\ud800"},
                {"partition": "a" * 200_000}],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_and_nothing_is_started(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr("ipmpi.cluster.Followed", lambda *args, **how: started.append(args))
    for value in WRONG[name]:
        arguments = dict(value) if name == "options" else {name: value}
        with pytest.raises((TypeError, ValueError)) as caught:
            Cluster(**arguments)
        assert 10 < len(str(caught.value)) < 500, str(caught.value)[:100]
    assert started == []


def test_commands_that_start_no_cluster_are_no_kinds() -> None:
    assert {
        name for name, command in {**COMMANDS, **HIDDEN}.items() if command.module not in ("local", "ssh")
    } == (OTHER_COMMANDS)


def test_every_argument_has_a_row() -> None:
    parameters = inspect.signature(Cluster.__init__).parameters
    assert set(parameters) - {"self"} == set(WRONG), "add a row to WRONG with values that are to be refused"


def test_importing_ipmpi_stays_light() -> None:
    code = "import sys, ipmpi; print([m for m in sys.modules if m.startswith('ipmpi.cl')]); print(ipmpi.Cluster)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n<class 'ipmpi.cluster.Cluster'>\n"
    with pytest.raises(AttributeError, match="module 'ipmpi' has no attribute 'Clutser'"):
        ipmpi.Clutser  # noqa: B018


@pytest.mark.slow
def test_a_cluster_from_its_start_to_its_end() -> None:
    with Cluster("local", n=2, **HERE) as cluster:
        mec, tc = cluster.multiengine(), cluster.task()
        assert mec.get_ids() == [0, 1]
        assert tc.submit(sum, [1, 2]).result(20) == 3
        assert (cluster.state, cluster.name) == ("up", "default")
        assert "default: up" in repr(cluster)
        (record,) = records.living()
    assert cluster.state == "over"
    assert record.is_alive() is False
    assert records.living() == []
    cluster.stop()
    with pytest.raises(LauncherError, match="has ended"):
        cluster.multiengine()


@pytest.mark.parametrize(
    ("options", "story"),
    [
        ({"launcher": "/nowhere/mpiexec"}, "/nowhere/mpiexec cannot be run"),
        ({"colour": "red"}, "unrecognized arguments: --colour=red"),
    ],
)
def test_a_failed_start_is_told_in_the_words_of_ipcluster(options: dict[str, str], story: str) -> None:
    with Cluster("local", n=2, **options) as cluster, pytest.raises(LauncherError, match=story):  # type: ignore[arg-type]
        cluster.multiengine()


class Followed:
    """An ipcluster that says something, and is up."""

    is_own = True

    def __init__(self, *_: object, **__: object) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", ""])

    def news(self) -> list[dict[str, str]]:
        return [{"say": "Submitted job 1"}, {"state": "up"}]

    def let_go(self) -> None:
        pass

    close = let_go


def test_an_echo_that_fails_is_told_and_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(text: str) -> None:
        raise ValueError(text)

    monkeypatch.setattr("ipmpi.cluster.Followed", Followed)
    cluster = Cluster("fake", echo=echo)
    cluster.stop()
    assert cluster.state == "over"
    assert "echo= of ipmpi.Cluster has failed" in caplog.text


@pytest.mark.slow
def test_waiting_has_an_end() -> None:
    with Cluster("local", n=1, **HERE) as cluster:
        with pytest.raises(TimeoutError, match=r"not up after 0\.001 s, but starting"):
            cluster.wait(0.001)
        cluster.wait(30)


@pytest.mark.slow
def test_it_ends_with_the_process_that_started_it() -> None:
    code = f"import ipmpi, os; c = ipmpi.Cluster('local', n=1, **{HERE!r}); c.wait(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
    for record in records.living():
        descriptor = os.pidfd_open(record.pid)
        assert select.select([descriptor], [], [], 20)[0]
        os.close(descriptor)
    assert records.living() == []


@pytest.mark.slow
def test_it_stops_though_a_forked_process_lives() -> None:
    """As those of multiprocessing do, and workers that load data: they have copies of all open pipes."""
    with Cluster("local", n=1, **HERE) as cluster:
        cluster.wait()
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                time.sleep(600)
            os._exit(0)
        try:
            begin = time.monotonic()
            cluster.stop()
            assert time.monotonic() - begin < 30
            assert cluster._followed.process.returncode == 0
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.slow
def test_it_ends_with_its_process_though_a_forked_one_lives() -> None:
    code = f"""if True:
        import ipmpi, os, time
        c = ipmpi.Cluster('local', n=1, **{HERE!r})
        c.wait()
        pid = os.fork()
        if not pid:
            os.closerange(1, 3)
            time.sleep(600)
        print(pid, flush=True)
        os._exit(0)"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True)
    forked = int(done.stdout.splitlines()[-1])
    try:
        for record in records.living():
            descriptor = os.pidfd_open(record.pid)
            assert select.select([descriptor], [], [], 20)[0]
            os.close(descriptor)
        assert records.living() == []
    finally:
        os.kill(forked, signal.SIGKILL)


@pytest.mark.slow
def test_a_forked_process_that_leaves_the_statement_does_not_stop_the_cluster() -> None:
    with Cluster("local", n=1, **HERE) as cluster:
        mec = cluster.multiengine()
        pid = os.fork()
        if not pid:
            try:
                cluster.stop()
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert mec.get_ids() == [0]
        assert cluster.state == "up"


class Deaf(Followed):
    """An ipcluster that does not end."""

    def __init__(self, *_: object, **__: object) -> None:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
        code += "; time.sleep(600)"
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr("ipmpi.cluster.Followed", Deaf)
    monkeypatch.setattr("ipmpi.cluster.STOPPING", 0.1)
    monkeypatch.setattr("ipmpi.cluster.INSISTING", 0.1)
    cluster = Cluster("fake", echo=None)
    yield cluster
    process = cluster._followed.process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    cluster._reader.join(10)


def test_a_cluster_that_does_not_end_is_told(deaf: Cluster) -> None:
    pid = deaf.pid
    with pytest.raises(LauncherError, match=rf"has not ended within 0\.2 s; its process is {pid}"):
        deaf.stop()


def test_a_cluster_that_does_not_end_does_not_hide_what_happened(
    deaf: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError), deaf:
        _ = 1 / 0
    assert "the cluster could not be stopped" in caplog.text
