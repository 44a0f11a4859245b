"""ipcluster as a program, with stand-ins for controller and engines."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.launch.cluster.controllerends import MOST, WITHIN
from ipmpi.launch.processes.mpi import find_mpi
from tests.cli.running import Run

READY = "You can then cleanly stop"
needs_mpi = pytest.mark.skipif(find_mpi() is None, reason="no mpiexec here")


@needs_mpi
@pytest.mark.parametrize("kind", [[], ["local"], ["mpiexec"]])
def test_a_cluster_comes_up_and_ctrl_c_ends_all_of_it(ipcluster: Callable[..., Run], kind: list[str]) -> None:
    run = ipcluster(*kind, "-n", "3")
    run.until("kill -INT")
    assert "Your cluster is up and running." in run.text
    assert "from ipmpi import client\nmec = client.MultiEngineClient()" in run.text
    assert f"kill -INT {run.process.pid}" in run.text
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert "Stopping cluster.  Cleaning up..." in run.text
    assert run.text.endswith("OK: All processes cleaned up.\n")
    assert run.leftovers() == []
    logs = run.home / "log" / "default"
    assert len(list(logs.glob(f"ipengine-*-{run.process.pid}-*.log"))) == 3
    (log,) = logs.glob(f"ipcontroller-*-{run.process.pid}-*-{run.controller}.log")
    assert "goodbye" in log.read_text()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_stop_signal_ends_all_processes(ipcluster: Callable[..., Run], signum: int) -> None:
    run = ipcluster("-n", "2", "--mpi", "none")
    run.until(READY)
    assert len(run.engine_sessions) == 2
    run.process.send_signal(signum)
    assert run.ends() == 0
    assert run.leftovers() == []


def test_a_fixed_engine_port_keeps_the_furl_file(ipcluster: Callable[..., Run], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    furl = tmp_path / "security" / "default" / "ipcontroller-engine.furl"
    furl.parent.mkdir(parents=True)
    furl.write_text("1")  # nobody listens there: engines that start before the controller would fail
    run = ipcluster("-n", "2", "--mpi", "none", "--engine-port", str(port))
    run.until(READY)
    assert furl.read_text() == str(port)


def test_a_stale_furl_file_is_not_used(ipcluster: Callable[..., Run], tmp_path: Path) -> None:
    furl = tmp_path / "security" / "default" / "ipcontroller-engine.furl"
    furl.parent.mkdir(parents=True)
    furl.write_text("1")
    ipcluster("-n", "2", "--mpi", "none").until(READY)


def test_stop_by_a_client_is_a_clean_end(ipcluster: Callable[..., Run]) -> None:
    run = ipcluster("-n", "2", "--mpi", "none", FAKE_ENGINE="kill controller")
    assert run.ends() == 0
    assert READY in run.text
    assert "The cluster was stopped by a client." in run.text
    assert run.leftovers() == []


def test_a_controller_that_cannot_start_is_explained(ipcluster: Callable[..., Run]) -> None:
    begin = time.monotonic()
    run = ipcluster("-n", "2", "--mpi", "none", FAKE_CONTROLLER="port taken")
    assert run.ends() == 1
    assert time.monotonic() - begin < 10
    assert "The controller could not start (exit code 1)." in run.text
    assert "port 10105 of 127.0.0.1 is taken by another program." in run.text
    assert run.leftovers() == []


@pytest.mark.parametrize("mpi", [pytest.param("auto", marks=needs_mpi), "none"])
def test_an_engine_that_cannot_import_is_explained(ipcluster: Callable[..., Run], mpi: str) -> None:
    begin = time.monotonic()
    run = ipcluster("-n", "2", "--mpi", mpi, FAKE_ENGINE="import error")
    assert run.ends() == 1
    assert time.monotonic() - begin < 10
    assert "The engines could not start: " in run.text
    assert "No module named 'a_module_that_is_not_there'" in run.text
    assert run.leftovers() == []


@needs_mpi
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="ranks are watched through /proc")
def test_one_rank_that_ends_before_it_is_registered_is_noticed(ipcluster: Callable[..., Run]) -> None:
    begin = time.monotonic()
    run = ipcluster("-n", "3", FAKE_ENGINE="rank 1 fails")
    assert run.ends() == 1
    assert time.monotonic() - begin < 10
    assert "The engines could not start: " in run.text
    assert "a_module_that_is_not_there" in run.text
    assert run.leftovers() == []


def test_engines_that_never_register_run_into_the_timeout(ipcluster: Callable[..., Run]) -> None:
    run = ipcluster("-n", "2", "--mpi", "none", "--timeout", "1", FAKE_ENGINE="never registers")
    assert run.ends() == 1
    assert "Only 0 of 2 engines were registered after 1 s." in run.text
    assert "--timeout SECONDS" in run.text


def test_a_missing_mpiexec_is_explained(ipcluster: Callable[..., Run], tmp_path: Path) -> None:
    run = ipcluster("-n", "2", "--launcher", str(tmp_path / "mpiexec"))
    assert run.ends() == 1
    assert "cannot be run" in run.text
    assert "--launcher PATH" in run.text


FAILING_MPIEXEC = """#!/bin/sh
[ "$1" = --version ] && exec "$REAL_MPIEXEC" --version
echo x >> "$0.starts"
if [ "$(wc -l < "$0.starts")" -le {times} ]; then
    echo "[host:1] PMIX ERROR: {message}"
    echo "    failed to start. prterun cannot continue."
    exit 1
fi
exec "$REAL_MPIEXEC" "$@"
"""


@needs_mpi
@pytest.mark.parametrize(
    ("times", "message", "starts"),
    [(1, "The PMIx server's listener thread", 2), (2, "The PMIx server's listener thread", 2), (1, "No slots", 1)],
)
def test_a_launcher_that_fails_by_chance_is_started_once_more(
    ipcluster: Callable[..., Run], tmp_path: Path, times: int, message: str, starts: int
) -> None:
    found = find_mpi()
    assert found is not None
    launcher = tmp_path / "mpiexec"
    launcher.write_text(FAILING_MPIEXEC.format(times=times, message=message))
    launcher.chmod(0o755)
    run = ipcluster("-n", "2", "--launcher", str(launcher), REAL_MPIEXEC=found.executable)
    if times < starts:
        run.until(READY)
        run.process.send_signal(signal.SIGINT)
    assert run.ends() == (0 if times < starts else 1)
    reason = "The PMIx server's listener thread failed to start."
    note = f'ipcluster: mpiexec ended (exit code 1): "{reason}" It is started once more.\n'
    assert run.text.count(f"\n{note}") == starts - 1
    assert len((tmp_path / "mpiexec.starts").read_text().split()) == starts
    (log,) = (tmp_path / "log" / "default").glob("ipcluster-*-engines.log")
    assert log.read_text().count(note) == starts - 1


def test_a_controller_that_is_killed_is_started_again_and_given_up_when_that_does_not_help(
    ipcluster: Callable[..., Run],
) -> None:
    run = ipcluster("-n", "2", "--mpi", "none")
    run.until(READY)
    told = "The controller ended unexpectedly (killed by SIGKILL)"
    pids = [run.controller]
    for number in range(1, MOST + 1):
        os.kill(pids[-1], signal.SIGKILL)
        run.until_count("Starting controller: Controller PID:", number + 1)
        pids.append(run.controllers[-1])
        assert run.text.count(f"ipcluster: {told}. It is started again, with the same furls.") == number
    os.kill(pids[-1], signal.SIGKILL)
    assert run.ends() == 1
    assert f"{told}, although it was started again {MOST} times within {WITHIN:g} s." in run.text
    assert len(set(pids)) == MOST + 1
    assert "controller is up" in run.text, "its log is shown"
    assert run.leftovers() == []


def test_the_death_of_one_engine_leaves_the_others(ipcluster: Callable[..., Run]) -> None:
    run = ipcluster("-n", "3", "--mpi", "none")
    run.until(READY)
    os.kill(run.engine_sessions[1], signal.SIGKILL)
    run.until("2 of 3 engines are left (engine process 1 ended (killed by SIGKILL)). The others keep working.")
    assert run.process.poll() is None


def test_the_death_of_all_engines_ends_the_cluster(ipcluster: Callable[..., Run]) -> None:
    run = ipcluster("-n", "2", "--mpi", "none", "--restarts", "0")
    run.until(READY)
    begin = time.monotonic()
    for pid in run.engine_sessions:
        os.kill(pid, signal.SIGKILL)
    assert run.ends() == 1
    assert time.monotonic() - begin < 10
    assert "All engines have ended: " in run.text
    assert "engine process 0 ended (killed by SIGKILL)" in run.text
    assert "engine process 1 ended (killed by SIGKILL)" in run.text
    assert run.leftovers() == []


def test_a_second_ctrl_c_kills_at_once(ipcluster: Callable[..., Run]) -> None:
    run = ipcluster("-n", "2", "--mpi", "none", FAKE_CONTROLLER="deaf", FAKE_ENGINE="deaf")
    run.until(READY)
    begin = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    run.until("Stopping engine process 1")
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert time.monotonic() - begin < 3
    assert run.leftovers() == []


@needs_mpi
def test_ranks_that_hear_nothing_are_killed(ipcluster: Callable[..., Run]) -> None:
    run = ipcluster("-n", "2", FAKE_ENGINE="deaf")
    run.until(READY)
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert run.leftovers() == []


def test_when_ipcluster_is_killed_its_controller_ends_the_engines(ipcluster: Callable[..., Run]) -> None:
    run = ipcluster("-n", "2", "--mpi", "none")
    run.until(READY)
    descriptors = [os.pidfd_open(pid) for pid in run.engine_sessions]
    run.process.send_signal(signal.SIGKILL)
    run.ends()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 10)[0]
        os.close(descriptor)
