"""ipcluster with a batch system of small scripts, and the real controller and engines."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.launch.processes.mpi import find_mpi
from tests.cli.running import WITH_FAKE_BATCH, Batch

LOCAL = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.mpi,
    pytest.mark.skipif(find_mpi() is None, reason="no mpiexec here"),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def test_tasks_go_on_in_the_next_job(fake: Batch) -> None:
    run = fake("-n", "2", *LOCAL, "--time", "1:00:00", "--resubmit", command=WITH_FAKE_BATCH)
    run.until("kill -INT")
    with TaskClient() as tc:
        first = tc.submit(sum, [1, 2])
        assert first.result(20) == 3
        fake.set("hold")
        fake.end(1, "TIMEOUT")
        run.until("Submitting it again; tasks wait for it.")
        waiting = [tc.submit(pow, 2, k) for k in range(20)]
        run.until("Submitted job 2")
        (fake.folder / "hold").unlink()
        assert [future.result(40) for future in waiting] == [2**k for k in range(20)]
    run.until("All 2 engines are there again.")
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0


def test_a_controller_inside_the_job(fake: Batch) -> None:
    run = fake("-n", "2", *LOCAL, "--in-job", command=WITH_FAKE_BATCH)
    run.until("kill -INT", 40)
    assert "Submitted job 1 to Fake: a controller and 2 engines." in run.text
    assert "Controller PID" not in run.text
    with MultiEngineClient() as mec:
        assert mec.get_ids() == [0, 1]
    fake.end(1, "CANCELLED")
    assert run.ends(30) == 0
    assert "All engines have ended: job 1 was cancelled." in run.text


def test_engines_are_added_by_a_further_job(fake: Batch) -> None:
    run = fake("-n", "1", *LOCAL, command=WITH_FAKE_BATCH)
    run.until("kill -INT")
    more = fake._start("engines", "-n", "2", command=WITH_FAKE_BATCH, **fake.environ)
    more.until("ipcluster: 2 engines were added to the cluster 'default'.", 40)
    assert "Submitted job 2 to Fake: 2 engines." in more.text
    with MultiEngineClient() as mec:
        assert mec.get_ids() == [0, 1, 2]
        fake.end(1, "TIMEOUT")
        run.until(
            "The engines that were started here have ended: job 1 ended at its walltime. Others keep working."
        )
        assert len(mec.get_ids()) == 2
        more.process.send_signal(signal.SIGINT)
        assert more.ends() == 0
    assert fake.state(2) in ("CANCELLED", "COMPLETED")
    assert run.ends(30) == 0
