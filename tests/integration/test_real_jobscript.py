"""A job script as a batch system runs it: a real controller, real ranks, and the end of the job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.launch.batch.joboptions import JobOptions
from ipmpi.launch.batch.jobscript import render
from ipmpi.launch.batch.registry import batch_system

LOCAL = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1")


@pytest.fixture(params=["openmpi", pytest.param("mpich", marks=pytest.mark.mpich)])
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter of an environment with a whole MPI."""
    found: str = request.getfixturevalue("mpich_python") if request.param == "mpich" else sys.executable
    return found


@pytest.mark.slow
@pytest.mark.mpi
def test_a_job_with_controller_and_engines(
    python: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PBS ends a job with SIGTERM to its shell. Before that, its script restarts the engines, as a client asks."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # Two machines that are reached through PBS, and are both this one.
    (tmp_path / "nodes").write_text("machine-a\nmachine-b\n")
    (tmp_path / "pbs_tmrsh").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "pbs_tmrsh").chmod(0o755)
    news_fd, told_fd = os.pipe()
    options = JobOptions(
        kind="cluster", n=2, nodes=2, walltime=600, python=python, log_dir=tmp_path / "logs",
        engine_furl_file=tmp_path / "secret" / "engine.furl",
        controller_args=(*LOCAL, "--ready-fd", str(told_fd)),
    )  # fmt: skip
    script = tmp_path / "job.sh"
    script.write_text(render(batch_system("pbs"), options).text)
    environ = {**os.environ, "PBS_JOBID": "12.server", "PBS_O_WORKDIR": str(tmp_path), "PYTHONPATH": str(root)}
    environ |= {"PBS_NODEFILE": str(tmp_path / "nodes"), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "output").open("wb") as output:
        job = subprocess.Popen(
            ["bash", str(script)], env=environ, cwd="/", stdout=output, stderr=output, pass_fds=[told_fd]
        )
    os.close(told_fd)
    try:
        with open(news_fd) as news:
            engines = 0
            while engines < 2:
                line = news.readline()
                assert line, (tmp_path / "output").read_text()
                engines = json.loads(line).get("engines", 0)
            with MultiEngineClient() as mec:
                mec.execute(
                    "import os; seen = mpi.size, os.environ['IPMPI_JOB_END'] > '1', os.environ['TMPDIR'] > ''"
                )
                assert mec.pull("seen") == [(2, True, True)] * 2
                first = [engine["pid"] for engine in mec.cluster_info()["engines"]]
                mec.snapshot(folder=tmp_path / "snapshots")
                restarted = mec.restart(folder=tmp_path / "snapshots")
                assert restarted.engines == [0, 1]
                assert mec.pull("seen") == [(2, True, True)] * 2
                assert not {engine["pid"] for engine in mec.cluster_info()["engines"]} & set(first)
                mec.execute("size = mpi.COMM_WORLD.allreduce(1)")
                assert mec.pull("size") == [2, 2]
            job.send_signal(signal.SIGTERM)
            job.wait(30)
            said = [json.loads(line) for line in news]
        assert said[-1]["engines"] == 0, "the engines left in good order"
    finally:
        job.kill()
        job.wait()
    asked = "ipmpi: a client has asked for a restart; its engines are started again (asked for)\n"
    assert (tmp_path / "logs" / "ipengine-12-restarts.txt").read_text() == asked
    (tmp_path / "logs" / "ipengine-12-restarts.txt").unlink()
    names = {path.name.rstrip("0123456789.log-") for path in (tmp_path / "logs").iterdir()}
    host = os.uname().nodename
    assert names == {f"ipcontroller-12-{host}", f"ipengine-12-{host}", f"ipengine-12-{host}-agent"}
