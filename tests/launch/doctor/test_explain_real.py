"""``ipcluster explain`` with real controllers and engines; batch systems are scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi.cli import explain, ipcluster
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.records import ClusterRecord

if TYPE_CHECKING:
    from real_clusters import Cluster

NewCluster = Callable[..., "Cluster"]
ENGINE = [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none"]
PENDING = "PENDING|Priority||N/A|N/A|1:00:00"
ROOT = Path(__file__).parents[3]
ANSWERS = ROOT / "tests" / "launch" / "batch" / "pbs_answers"
"""Of a real PBS."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def programs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put programs into an otherwise empty PATH: name to what it prints."""
    folder = home / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(**texts: str) -> None:
        for name, text in texts.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)

    return put


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run explain: its exit code, and all it says in one line."""

    def run(*arguments: str) -> tuple[int, str]:
        code = explain.main(arguments)
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return run


Told = Callable[..., tuple[int, str]]
Programs = Callable[..., None]


def slurm(line: str) -> dict[str, str]:
    return {"squeue": f"echo '{line}'", "sbatch": "exit 1", "scancel": "exit 1"}


# --- jobs --------------------------------------------------------------------------------------------------


def test_a_job_that_waits(programs: Programs, told: Told) -> None:
    programs(**slurm("PENDING|QOSMaxJobsPerUserLimit||N/A|N/A|1:00:00"))
    code, said = told("4711")
    assert code == 0
    assert "It waits: you have as many jobs running as you may (QOSMaxJobsPerUserLimit)." in said
    assert "Slurm does not say yet when it will start." in said


def test_a_job_that_failed_and_its_output(programs: Programs, told: Told, home: Path) -> None:
    programs(**slurm("FAILED|NonZeroExitCode|n1|2026-11-24T12:00:00|2026-11-24T12:00:05|0:00"))
    (home / "logs").mkdir()
    (home / "logs" / "engines-4711.out").write_text("module load gcc\npython: command not found\n")
    code, said = told("4711")
    assert code == 1
    assert "It failed (NonZeroExitCode)." in said
    assert f"The last lines of logs{os.sep}engines-4711.out: module load gcc python: command not found" in said
    _, said = told("4711", "--lines", "1")
    assert said.endswith("engines-4711.out: python: command not found")
    code, said = told("4711", "--logdir", str(home))
    assert "last lines" not in said
    assert f"What it printed is not in {home}. -> Name the folder: ipcluster explain 4711 --logdir DIR" in said


def test_a_job_that_failed_shows_its_output_whatever_that_says(programs: Programs, told: Told, home: Path) -> None:
    answer = ANSWERS / "qstat-json-finished-failed.json"
    programs(qstat=f"while read -r line; do echo \"$line\"; done < '{answer}'", qsub="exit 1", qdel="exit 1")
    (home / "logs").mkdir()
    (home / "logs" / "29.login.OU").write_text("the licence server says no\n")
    code, said = told("29.login")
    assert code == 1
    assert f"The last lines of logs{os.sep}29.login.OU: the licence server says no" in said


def test_an_array_of_pbs_by_its_number(programs: Programs, told: Told) -> None:
    answer = ANSWERS / "qstat-json-array-running.json"
    known = f"case \"$*\" in *'17[]'*) while read -r line; do echo \"$line\"; done < '{answer}';;"
    programs(
        qstat=f"{known} *) echo 'qstat: Unknown Job Id 17.login' >&2; exit 153;; esac", qsub="exit 1", qdel=""
    )
    code, said = told("17")
    assert code == 0
    assert "Job 17[]" in said
    assert "It runs since" in said


def test_a_job_of_pbs(programs: Programs, told: Told) -> None:
    job = {"job_state": "Q", "comment": "Not Running: Insufficient amount of resource: ncpus"}
    programs(qstat=f"echo '{json.dumps({'Jobs': {'12.pbs': job}})}'", qsub="exit 1", qdel="exit 1")
    code, said = told("12.pbs")
    assert code == 0
    assert "It waits: not enough nodes are free (Not Running: Insufficient amount of resource: ncpus)." in said


def test_no_batch_system_here(programs: Programs, told: Told) -> None:
    code, said = told("12")
    assert code == 1
    assert "there is no batch system on this machine, so job 12 cannot be asked about" in said
    assert "--batch (pbs, slurm)" in said
    assert "there is no squeue in PATH" in told("12", "--batch", "slurm")[1]
    programs(**slurm(PENDING), qstat="exit 1", qsub="exit 1", qdel="exit 1")
    assert "there are several batch systems here" in told("12")[1]
    assert "jobs with a higher priority" in told("12", "--batch", "slurm")[1]


def test_nothing_is_known(home: Path, told: Told) -> None:
    code, said = told()
    assert (code, "No cluster is known" in said) == (1, True)
    code, said = told("nosuch")
    assert (code, "No cluster is known" in said) == (1, True)


# --- clusters ----------------------------------------------------------------------------------------------


def record_of(cluster: Cluster, n: int, **more: Any) -> ClusterRecord:
    files = {"mec": cluster.files["multiengine_furl_file"], "engine": cluster.files["engine_furl_file"]}
    known = {"kind": "local", "run": "run1", "log_dir": str(cluster.home / "log"), "furl_files": files, **more}
    record = ClusterRecord(name="mine", n=n, started=time.time() - 1, **known)
    records.save(record)
    return record


@pytest.mark.slow
def test_which_engine_is_missing_and_why(new_cluster: NewCluster, told: Told) -> None:
    cluster = new_cluster()
    log_dir = cluster.home / "log"
    cluster.launch([*ENGINE, "-l", str(log_dir / "ipengine-run1-")])
    cluster.wait_for_engines(1)
    (log_dir / "ipengine-run2-h-7.log").write_text("error: this is about another cluster\n")
    failed = cluster.launch([*ENGINE, "-l", str(log_dir / "ipengine-run1-"), "--furl-file", "/nowhere/x.furl"])
    assert failed.wait(20) == 1
    record_of(cluster, 2)
    for name in ("", "mine"):
        code, said = told(name)
        assert code == 0
        assert "ok mine: local, 2 engines, started" in said
        assert f"1 of 2 engines are registered: 1 on {os.uname().nodename}." in said
        assert f"The last lines of {log_dir}/ipengine-run1-{os.uname().nodename}-{failed.pid}.log" in said
        assert "no furl file /nowhere/x.furl" in said


@pytest.mark.slow
def test_an_engine_that_was_ended(new_cluster: NewCluster, told: Told) -> None:
    cluster = new_cluster()
    cluster.launch(ENGINE)
    cluster.wait_for_engines(1)
    cluster.mec().kill(targets=[0])
    cluster.wait_for_engines(0)
    record_of(cluster, 1)
    log = cluster.home / "log" / "ipcontroller-run1-h-1.log"
    log.write_text((cluster.home / "controller.out").read_text())
    _, said = told("mine")
    assert "0 of 1 engines are registered." in said
    assert "note Engine 0 (rank 0, pid" in said
    assert "was there, and left: ended by a client." in said


@pytest.mark.slow
def test_a_cluster_that_is_whole(new_cluster: NewCluster, told: Told) -> None:
    cluster = new_cluster()
    cluster.launch(ENGINE)
    cluster.wait_for_engines(1)
    record_of(cluster, 1)
    code, said = told("mine")
    assert code == 0
    assert "The one engine is registered" in said
    assert "last lines" not in said


@pytest.mark.slow
def test_a_controller_that_was_started_by_hand(new_cluster: NewCluster, told: Told) -> None:
    cluster = new_cluster()
    code, said = told()
    assert code == 0
    assert "A controller runs that was not started by ipcluster" in said
    assert "no engine is registered" in said
    cluster.launch([*ENGINE, "--walltime", "1:00:00"])
    cluster.wait_for_engines(1)
    code, said = told()
    assert "The one engine is registered" in said
    assert "of engine 0 ends in 59 min" in said or "of engine 0 ends in 1 h" in said


@pytest.mark.slow
def test_a_cluster_whose_job_waits(new_cluster: NewCluster, programs: Programs, told: Told) -> None:
    programs(**slurm(PENDING))
    cluster = new_cluster()
    record_of(cluster, 64, kind="slurm", batch="slurm", jobs=["99"])
    code, said = told("mine")
    assert code == 0
    assert "Job 99 note It waits: jobs with a higher priority are before it" in said
    assert "None of the 64 engines is there yet: they start with the job." in said
    assert told("99") == (code, said)  # by the job's id


@pytest.mark.slow
def test_a_controller_that_is_gone(new_cluster: NewCluster, told: Told) -> None:
    cluster = new_cluster()
    record_of(cluster, 1)
    cluster.controller.kill()
    cluster.controller.wait()
    code, said = told("mine")
    assert code == 1
    assert "The controller cannot be asked: no controller answers" in said
    assert "ipcluster doctor" in said


def test_a_cluster_whose_process_was_killed(home: Path, told: Told) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    records.save(
        ClusterRecord(name="lost", kind="local", n=2, pid=process.pid, born=1, furl_files={"mec": "/nowhere/x"})
    )
    process.kill()
    process.wait()
    code, said = told("lost")
    assert code == 1
    assert f"Its process {process.pid} has ended without a word." in said


@pytest.mark.slow
def test_who_reads_may_stop_reading(home: Path) -> None:
    command = f"{sys.executable} -m ipmpi.cli.doctor --mpi none | true"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""


@pytest.mark.slow
def test_json_and_the_way_through_ipcluster(new_cluster: NewCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = new_cluster()
    record_of(cluster, 1, ssh="user@login", far_name="far")
    assert ipcluster.main(["explain", "mine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["log"] is None
    far = next(diagnostic for diagnostic in found["findings"] if diagnostic["check"] == "cluster-far")
    assert far["fix"] == "ssh user@login ipcluster explain far"
    assert ipcluster.main(["doctor", "--mpi", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"]
