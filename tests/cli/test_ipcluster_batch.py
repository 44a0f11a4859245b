"""ipcluster with a batch system: one of small scripts, which runs jobs as processes of this machine."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.cli import batch
from ipmpi.cli.batch import job_options, parser
from ipmpi.errors import LauncherError
from ipmpi.launch.cluster import records
from ipmpi.launch.processes.mpi import find_mpi
from ipmpi.launch.processes.process import session
from tests.cli.running import Batch, Run

UP = "Your cluster is up and running."
pytestmark = pytest.mark.skipif(find_mpi() is None, reason="no mpiexec here")


def test_from_the_queue_to_the_end(fake: Batch) -> None:
    fake.set("hold")
    fake.set("reason", "Priority")
    run = fake("-n", "2")
    run.until("Submitted job 1 to Fake: 2 engines.")
    run.until("ipcluster: Job 1 waits in the queue (Priority).\n")
    fake.set("reason", "Resources")
    run.until("ipcluster: Job 1 waits in the queue (Resources).\n")
    assert UP not in run.text
    (fake.folder / "hold").unlink()
    run.until(f"kill -INT {run.process.pid}")
    assert UP in run.text
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert run.text.endswith("OK: All processes cleaned up.\n")
    assert run.text.count("waits in the queue") == 2
    assert fake.state() in ("CANCELLED", "COMPLETED")


def test_ctrl_c_while_the_job_waits_cancels_it(fake: Batch) -> None:
    fake.set("hold")
    run = fake("-n", "2")
    run.until("waits in the queue")
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert fake.state() == "CANCELLED"


def test_a_refused_job_is_explained_in_the_words_of_the_batch_system(fake: Batch) -> None:
    fake.set("refuse", "qfsub: error: invalid account YOUR_PROJECT")
    run = fake("-n", "2")
    assert run.ends() == 1
    assert "failed with exit code 3: qfsub: error: invalid account YOUR_PROJECT" in run.text
    assert session(run.controller) == []


def test_without_its_programs_nothing_is_started(fake: Batch) -> None:
    (fake.folder / "qfdel").unlink()
    run = fake("-n", "2")
    assert run.ends() == 1
    assert "there is no qfdel in PATH, so this machine has no Fake." in run.text
    assert "Controller PID" not in run.text


def test_a_job_that_somebody_cancels_is_told_in_one_line(fake: Batch) -> None:
    run = fake("-n", "2")
    run.until("kill -INT")
    fake.end(1, "CANCELLED")
    assert run.ends() == 0
    after = run.text.partition("kill -INT")[2].splitlines()[2:]
    assert after[0] == "All engines have ended: job 1 was cancelled."
    assert after[1] == "Stopping cluster.  Cleaning up..."


def test_a_job_that_fails_at_once_is_explained_with_its_log(fake: Batch) -> None:
    run = fake("-n", "2", "--logdir", str(fake.folder), FAKE_ENGINE="import error")
    assert run.ends() == 1
    assert "before all 2 engines were registered" in run.text
    assert "No module named 'a_module_that_is_not_there'" in run.text


def test_at_its_walltime_the_job_is_submitted_again(fake: Batch) -> None:
    run = fake("-n", "2", "--time", "1:00:00", "--resubmit", "1")
    run.until("kill -INT")
    fake.end(1, "TIMEOUT")
    run.until("ipcluster: Job 1 ended at its walltime. Submitting it again (1 of 1); tasks wait for it.")
    run.until("Submitted job 2 to Fake")
    run.until("ipcluster: All 2 engines are there again.")
    fake.end(2, "TIMEOUT")
    assert run.ends() == 0
    # It says that all engines have ended, or the job, as it has heard of the one or the other first.
    assert "ob 2 ended at its walltime." in run.text


def test_a_job_that_is_not_taken_again_at_once_is_no_end(fake: Batch) -> None:
    run = fake("-n", "2", "--time", "1:00:00", "--resubmit", "1")
    run.until("kill -INT")
    fake.set("refuse", "Socket timed out")
    fake.end(1, "TIMEOUT")
    run.until("failed with exit code 3: Socket timed out. It is tried again in ")
    (fake.folder / "refuse").unlink()
    run.until("Submitted job 2 to Fake")
    run.until("All 2 engines are there again.")


def test_detached_it_goes_on_and_can_be_stopped(fake: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.set("hold")
    run = fake("-n", "2", "--detach", "--name", "big")
    assert run.ends() == 0
    assert "Submitted job 1 to Fake" in run.text
    assert "ipcluster stop big" in run.text
    monkeypatch.setenv("IPYTHONDIR", str(run.home))
    record = records.find("big")
    assert (record.kind, record.batch, record.jobs, record.up) == ("fake", "fake", ["1"], None)
    assert Path(record.furl_files["mec"]) == run.home / "security" / "big" / "ipcontroller-mec.furl"
    log = Path(record.log)
    assert log == run.home / "log" / "big" / f"ipcluster-{record.run}.log"
    assert f"What it says from now on: {log}\n" in run.text
    assert "Submitted job 1 to Fake" in log.read_text()
    descriptor = os.pidfd_open(record.pid)
    os.kill(record.pid, signal.SIGTERM)
    _wait_for_end(descriptor)
    assert fake.state() == "CANCELLED"
    assert records.living() == []
    assert "OK: All processes cleaned up." in log.read_text()


def test_a_record_that_cannot_be_written_any_more_does_not_end_the_cluster(fake: Batch) -> None:
    fake.set("hold")
    run = fake("-n", "2")
    run.until("Job 1 waits in the queue")
    record = run.home / "clusters" / "default.json"
    record.unlink()
    record.mkdir()
    (fake.folder / "hold").unlink()
    run.until(UP)
    assert "ipcluster: The record of the cluster could not be kept: " in run.text
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0


def _wait_for_end(descriptor: int) -> None:
    assert select.select([descriptor], [], [], 20)[0]
    os.close(descriptor)


def test_a_job_that_was_left_behind_is_found_and_cancelled(
    fake: Batch, ipcluster: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.set("hold")
    run = fake("-n", "2", "--name", "big")
    run.until("waits in the queue")
    run.process.send_signal(signal.SIGKILL)
    run.ends()
    listed = ipcluster("list", **fake.environ)
    assert listed.ends() == 0
    assert listed.text.splitlines()[1].split()[:4] == ["big", "fake", "2", "dead"]
    stopped = ipcluster("stop", "big", **fake.environ)
    assert stopped.ends() == 0
    assert "Cancelled job 1, which the cluster 'big' had left behind." in stopped.text
    assert fake.state() == "CANCELLED"
    monkeypatch.setenv("IPYTHONDIR", str(run.home))
    assert records.living() == []


def test_detached_it_may_wait_for_the_engines(fake: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake("-n", "2", "--detach", "--wait-engines")
    assert run.ends() == 0
    assert UP in run.text
    assert "ipcluster stop default" in run.text
    monkeypatch.setenv("IPYTHONDIR", str(run.home))
    record = records.find()
    assert record.up is not None
    descriptor = os.pidfd_open(record.pid)
    os.kill(record.pid, signal.SIGTERM)
    _wait_for_end(descriptor)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_detached_start_that_is_ended_leaves_nothing_behind(
    fake: Batch, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fake.set("hold")
    run = fake("-n", "2", "--detach", "--wait-engines")
    run.until("Job 1 waits in the queue")
    monkeypatch.setenv("IPYTHONDIR", str(run.home))
    descriptor = os.pidfd_open(records.find().pid)
    run.process.send_signal(number)
    assert run.ends() != 0
    _wait_for_end(descriptor)
    assert fake.state() == "CANCELLED"
    assert records.living() == []


def test_a_detached_start_that_fails_says_why(fake: Batch) -> None:
    fake.set("refuse", "no such account")
    run = fake("-n", "2", "--detach")
    assert run.ends() == 1
    assert "no such account" in run.text


def test_a_dry_run_submits_nothing_and_gives_reasons(fake: Batch) -> None:
    run = fake("-n", "2", "--dry-run", "--directive=extra 7", "--prologue", "module load python")
    assert run.ends() == 0
    assert run.text.startswith("#!/bin/bash\n")
    assert "#FAKE extra 7\n" in run.text
    assert "\nmodule load python\n" in run.text
    why = run.text.partition("Why it is so:\n")[2]
    assert "  #FAKE engines 2  " in why
    assert "asked for with --directive" in why
    assert list(fake.folder.glob("*.state")) == []


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["-n", "2", "--in-job", "--resubmit"], "leave out --in-job"),
        (["-n", "2", "--array", "--mpi", "mpi4py"], "leave out --array"),
        (["-n", "2", "-r"], "you must also set the client and engine ports"),
    ],
)
def test_what_does_not_fit_together_is_refused(words: list[str], refusal: str) -> None:
    with pytest.raises(LauncherError, match=refusal):
        job_options(parser().parse_args(words), "big")


@pytest.mark.parametrize("system", ["slurm", "pbs"])
def test_a_time_without_a_unit_is_refused(system: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser(system).parse_args(["-n", "4", "--time", "10"])
    assert end.value.code == 2
    told = "argument --time/--walltime: '10' alone means minutes to Slurm and seconds to PBS: write 10m, 600s or"
    assert told in capsys.readouterr().err
    assert parser(system).parse_args(["-n", "4", "--time", "1h30m"]).walltime == 5400


def test_options_reach_the_job_script() -> None:
    words = ["-n", "8", "--nodes", "2", "-q", "long", "-A", "me", "--time", "1-0:30:00", "--memory", "4G"]
    words += ["--gpus", "2", "--name", "big", "--resubmit", "-s", "mine.j2", "--requeue", "--mpi", "none"]
    words += [
        "--gpu-order",
        "1,0",
        "--launcher-option=--label",
        "--launcher-option=-x A",
        "--fault-tolerance",
        "on",
        "--comm",
        "polled",
        "--on-loss",
        "restart",
    ]
    parsed = parser("slurm").parse_args(words)
    found = job_options(parsed, "big")
    assert (found.gpu_order, found.launcher_options) == ("1,0", ("--label", "-x A"))
    assert (found.fault_tolerance, found.comm, found.on_loss) == ("on", "polled", "restart")
    assert (found.kind, found.n, found.nodes, found.queue, found.account) == ("engines", 8, 2, "long", "me")
    assert (found.walltime, found.memory, found.gpus_per_node) == (88200, "4G", 2)
    assert (found.name, found.template, found.requeue, found.mpi) == ("big", Path("mine.j2"), True, "none")
    assert parsed.resubmit == batch.AS_OFTEN_AS_NEEDED
