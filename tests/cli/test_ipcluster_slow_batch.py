"""ipcluster with a batch system that is slow, fails, or does not know what it should."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.launch.cluster import records
from ipmpi.launch.processes.mpi import find_mpi
from tests.cli.running import Batch, Run

pytestmark = pytest.mark.skipif(find_mpi() is None, reason="no mpiexec here")

HANGS = """#!/bin/bash
echo x > "$FAKE_BATCH/{program}.called"
while [ ! -e "$FAKE_BATCH/go" ] && [ $SECONDS -lt 100 ]; do sleep 0.05; done
exec "$FAKE_BATCH/{program}.real" "$@"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def replace(fake: Batch, program: str, text: str) -> None:
    path = fake.folder / program
    path.rename(fake.folder / f"{program}.real")
    path.write_text(text.replace("{program}", program))
    path.chmod(0o755)


def wait_for(path: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        select.select([], [], [], 0.02)  # files of another process tell of no events


def test_ctrl_c_is_heard_while_the_batch_system_does_not_answer(fake: Batch) -> None:
    fake.set("hold")
    replace(fake, "qfstat", HANGS)
    run = fake("-n", "2")
    wait_for(fake.folder / "qfstat.called")
    begin = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert time.monotonic() - begin < 15
    assert fake.state() == "CANCELLED"


def test_a_job_that_is_being_submitted_when_the_user_gives_up_is_cancelled(fake: Batch) -> None:
    fake.set("hold")
    replace(fake, "qfsub", HANGS)
    run = fake("-n", "2")
    wait_for(fake.folder / "qfsub.called")
    run.process.send_signal(signal.SIGINT)
    run.until("Stopping cluster.")
    fake.set("go")
    assert run.ends() == 0
    assert "Submitted" not in run.text
    assert fake.state() == "CANCELLED"


def test_the_second_ctrl_c_does_not_wait_for_the_batch_system(fake: Batch) -> None:
    replace(fake, "qfsub", HANGS)
    run = fake("-n", "2")
    wait_for(fake.folder / "qfsub.called")
    run.process.send_signal(signal.SIGINT)
    run.until("Stopping cluster.")
    begin = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 1
    assert time.monotonic() - begin < 15
    assert "has not answered, and may have submitted a job all the same: look at your jobs with qfstat" in run.text
    fake.set("hold")
    fake.set("go")


def test_a_job_that_cannot_be_cancelled_stays_known_and_is_cancelled_later(
    fake: Batch, ipcluster: Callable[..., Run]
) -> None:
    fake.set("hold")
    replace(fake, "qfdel", "#!/bin/bash\necho 'qfdel: Socket timed out' >&2; exit 1\n")
    run = fake("-n", "2")
    run.until("waits in the queue")
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 1
    assert "job 1 could not be cancelled: `qfdel 1` failed with exit code 1: qfdel: Socket timed out" in run.text
    assert "To try again: ipcluster stop default" in run.text
    (record,) = records.living()
    assert (record.name, record.jobs) == ("default", ["1"])
    # Its name is taken for as long as its job could start and look for its furl file.
    second = ipcluster("-n", "1", "--mpi", "none")
    second.until("kill -INT")
    assert sorted(each.name for each in records.living()) == ["default", "default-2"]
    (fake.folder / "qfdel.real").replace(fake.folder / "qfdel")
    stopped = ipcluster("stop", "default", **fake.environ)
    assert stopped.ends() == 0, stopped.text
    assert fake.state() == "CANCELLED"


def test_ipcluster_stop_waits_and_cancels_what_was_left(fake: Batch, ipcluster: Callable[..., Run]) -> None:
    fake.set("hold")
    replace(fake, "qfdel", HANGS)
    run = fake("-n", "2")
    run.until("waits in the queue")
    stopped = ipcluster("stop", **fake.environ)
    stopped.until("The cluster 'default' is ending. Its job 1 is being cancelled, which may take a minute.")
    fake.set("go")
    assert stopped.ends() == 0
    assert "Stopped the cluster 'default'." in stopped.text
    assert run.ends() == 0
    assert fake.state() == "CANCELLED"


def test_a_job_that_the_batch_system_does_not_know_yet_is_no_end_and_is_cancelled(fake: Batch) -> None:
    fake.set("hold")
    unknown = "#!/bin/bash\necho x >> \"$FAKE_BATCH/asked\"; echo 'no such job' >&2; exit 1\n"
    replace(fake, "qfstat", unknown)
    run = fake("-n", "2")
    run.until("Submitted job 1")
    wait_for(fake.folder / "asked")
    while len((fake.folder / "asked").read_text().split()) < 3:
        assert run.process.poll() is None, run.text
        select.select([], [], [], 0.05)
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert fake.state() == "CANCELLED"


def test_a_detaching_ipcluster_that_is_killed_leaves_nothing_behind(fake: Batch) -> None:
    fake.set("hold")
    run = fake("-n", "2", "--detach", "--wait-engines")
    run.until("Job 1 waits in the queue")
    descriptor = os.pidfd_open(records.find().pid)
    run.process.send_signal(signal.SIGKILL)
    run.ends()
    assert select.select([descriptor], [], [], 20)[0]
    os.close(descriptor)
    assert fake.state() == "CANCELLED"
    assert records.living() == []
