"""PBS's commands, and answers in the formats of its programs."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch import JobState, JobStatus, Shape
from ipmpi.launch.pbs import PBS
from ipmpi.launch.queue import Queue

JSON, TEXT, TORQUE = PBS.status("12.server")
RUNNING: dict[str, Any] = {
    "Job_Name": "ipmpi",
    "job_state": "R",
    "queue": "workq",
    "server": "server",
    "ctime": "Tue Nov 24 21:59:00 2026",
    "exec_host": "n1/0*4+n2/0*4",
    "Rerunable": "False",
    "Resource_List": {"ncpus": 8, "nodect": 2, "place": "scatter", "select": "2:ncpus=4", "walltime": "01:00:00"},
    "resources_used": {"cpupercent": 0, "cput": "00:00:10", "mem": "9692kb", "walltime": "00:20:00"},
    "stime": "Tue Nov 24 22:00:00 2026",
    "substate": 42,
    "comment": "Job run at Tue Nov 24 at 22:00 on (n1:ncpus=4)+(n2:ncpus=4)",
}
ENDED = {**RUNNING, "job_state": "F", "obittime": "Tue Nov 24 22:20:11 2026", "substate": 92}


def local(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def of_json(**changes: Any) -> JobStatus:
    text = json.dumps({"timestamp": 1, "pbs_version": "23.06.06", "Jobs": {"12.server": {**RUNNING, **changes}}})
    status = PBS.parse_status("12.server", JSON, text)
    assert status is not None
    return status


def test_commands() -> None:
    assert PBS.submit(Path("/a b/job")) == ["qsub", "/a b/job"]
    assert JSON == ["qstat", "-x", "-f", "-F", "json", "12.server"]
    assert PBS.cancel("12[].server") == ["qdel", "12[].server"]
    assert PBS.programs == ("qsub", "qstat", "qdel")


@pytest.mark.parametrize("id", ["12.server", "12[].server.site.org", "12"])
def test_the_id(id: str) -> None:
    assert PBS.job_id(f"{id}\n") == id


def test_no_id() -> None:
    with pytest.raises(LauncherError, match="qsub did not say the id of the job; it printed: hello"):
        PBS.job_id("hello")


def test_a_job_that_runs() -> None:
    assert of_json() == JobStatus(
        "12.server", JobState.RUNNING, "R", reason=RUNNING["comment"], start=local("2026-11-24T22:00:00"),
        end=local("2026-11-24T23:00:00"), time_left=2400.0, nodes="n1,n2",
    )  # fmt: skip


def test_a_job_that_waits_says_why() -> None:
    comment = "Not Running: Insufficient amount of resource: ncpus (R: 8 A: 4 T: 8)"
    queued = {"job_state": "Q", "comment": comment, "stime": None, "resources_used": {}, "exec_host": ""}
    status = of_json(**queued, estimated={"start_time": "Wed Nov 25 03:10:00 2026"})
    assert status == JobStatus(
        "12.server", JobState.PENDING, "Q", reason=comment, start=local("2026-11-25T03:10:00")
    )
    assert of_json(**queued).start is None


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"Exit_status": 0}, "completed"),
        ({"Exit_status": 3}, "failed"),
        ({"Exit_status": -29, "substate": 93}, "timeout"),
        ({"Exit_status": 143, "resources_used": {"walltime": "01:00:11"}, "substate": 93}, "timeout"),
        ({"Exit_status": 271, "substate": 91}, "cancelled"),
        ({"Exit_status": 143, "substate": 91}, "cancelled"),
        ({"Exit_status": 271}, "cancelled"),
        ({"substate": 91}, "cancelled"),
        ({"Exit_status": -27, "substate": 93}, "failed"),
    ],
)
def test_how_a_job_ended(changes: dict[str, Any], outcome: str) -> None:
    status = of_json(**{**ENDED, **changes})
    assert (status.state, status.outcome, status.time_left) == (JobState.ENDED, outcome, None)
    assert status.end == local("2026-11-24T22:20:11")


def test_what_pbs_killed_a_job_for() -> None:
    assert of_json(**ENDED, Exit_status=-29).reason == "its time was up"
    assert of_json(**ENDED, Exit_status=-27).reason == "it used more memory than it asked for"


@pytest.mark.parametrize(
    ("native", "state"),
    [
        *(("H", JobState.PENDING), ("W", JobState.PENDING), ("T", JobState.PENDING), ("S", JobState.RUNNING)),
        *(("E", JobState.ENDING), ("X", JobState.ENDED), ("C", JobState.ENDED), ("?", JobState.UNKNOWN)),
    ],
)
def test_letters(native: str, state: JobState) -> None:
    assert of_json(job_state=native)[1:3] == (state, native)


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ("Queued:2 Running:1 Exiting:0 Expired:1 ", JobState.RUNNING),
        ("Queued:2 Running:0 Exiting:0 Expired:1 ", JobState.PENDING),
    ],
)
def test_an_array_runs_if_one_of_its_elements_does(counts: str, state: JobState) -> None:
    job = {
        "job_state": "B",
        "array": "True",
        "array_state_count": counts,
        "Resource_List": {"walltime": "01:00:00"},
    }
    text = json.dumps({"Jobs": {"12[].server": job}})
    status = PBS.parse_status("12[].server", JSON, text)
    assert status is not None
    assert (status.state, status.native, status.time_left) == (state, "B", None)


def test_another_name_of_the_server_is_the_same_job() -> None:
    text = json.dumps({"Jobs": {"12.server.site.org": RUNNING}})
    assert PBS.parse_status("12.server", JSON, text) is not None
    assert PBS.parse_status("13.server", JSON, text) is None


PLAIN = """\
Job Id: 12.server
    Job_Name = ipmpi
    resources_used.walltime = 01:00:11
    job_state = F
    exec_host = n1/0*4+n2/0*4
    Resource_List.walltime = 01:00:00
    stime = Tue Nov 24 22:00:00 2026
    Variable_List = PBS_O_HOME=/home/a,PBS_O_PATH=/usr/bin:/bin,
\tPBS_O_SHELL=/bin/bash
    comment = Job run at Tue Nov 24 at 22:00 on (n1:ncpus=4)+(n2:ncpus=4) and te
\trminated
    Exit_status = -29
    obittime = Tue Nov 24 23:00:11 2026

"""


@pytest.mark.parametrize("spoilt", ['{"Jobs": {"12.server": {"Job_Name": 007, ', "", "[]", '{"Jobs": 3}'])
def test_json_that_is_none_is_asked_for_as_text(spoilt: str) -> None:
    assert PBS.parse_status("12.server", JSON, spoilt) is None
    status = PBS.parse_status("12.server", TEXT, PLAIN)
    assert status is not None
    assert (status.state, status.outcome, status.nodes) == (JobState.ENDED, "timeout", "n1,n2")
    assert (status.start, status.end) == (local("2026-11-24T22:00:00"), local("2026-11-24T23:00:11"))


def test_torque_is_understood() -> None:
    text = PLAIN.replace("job_state = F", "job_state = C").replace("Exit_status = -29", "exit_status = 271")
    status = PBS.parse_status(
        "12.server", TORQUE, text.replace("used.walltime = 01:00:11", "used.walltime = 00:01:11")
    )
    assert status is not None
    assert (status.state, status.outcome) == (JobState.ENDED, "cancelled")


def test_xml_is_not_understood() -> None:
    assert PBS.parse_status("12.server", TEXT, "<Data><Job><Job_Id>12.server</Job_Id></Job></Data>") is None


@pytest.mark.parametrize(
    ("shape", "select", "place"),
    [
        (Shape(8), "8:ncpus=1:mpiprocs=1:ompthreads=1", "free"),
        (Shape(8, 2, 4), "2:ncpus=4:mpiprocs=4:ompthreads=1", "scatter"),
        (Shape(8, 2, 4, 3), "2:ncpus=12:mpiprocs=4:ompthreads=3", "scatter"),
        (
            Shape(7, 2, 4),
            "1:ncpus=4:mpiprocs=4:ompthreads=1+1:ncpus=3:mpiprocs=3:ompthreads=1",
            "scatter",
        ),
        (Shape(4, 1, 4, 1, 2, "64G"), "1:ncpus=4:mpiprocs=4:ompthreads=1:ngpus=2:mem=64gb", "free"),
    ],
)
def test_directives_of_a_shape(shape: Shape, select: str, place: str) -> None:
    assert [line.text for line in PBS.resources(shape)] == [f"-l select={select}", f"-l place={place}"]


@pytest.mark.parametrize("shape", [Shape(8, gpus=4), Shape(8, memory="64G")])
def test_memory_and_gpus_need_nodes(shape: Shape) -> None:
    with pytest.raises(LauncherError, match="add --per-node or --nodes"):
        PBS.resources(shape)


def test_the_files_with_the_output_of_a_job() -> None:
    assert PBS.output_files("ipmpi", "12.server") == "ipmpi.o12*"
    assert PBS.output_files("ipmpi", "12[].server") == "ipmpi.o12*"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qsub") is None, reason="no qsub: OpenPBS is in no release of Debian")
def test_a_real_pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that sleeps is submitted, seen, and cancelled."""
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\n#PBS -N ipmpi-test\n#PBS -l select=1:ncpus=1\n#PBS -l walltime=0:05:00\nsleep 200\n"
    )
    queue = Queue(PBS)
    id = queue.submit(script)
    try:
        status = queue.status(id)
        assert status.state in (JobState.PENDING, JobState.RUNNING), status
    finally:
        queue.cancel(id)
    deadline = time.monotonic() + 60
    while queue.status(id).state is not JobState.ENDED:
        assert time.monotonic() < deadline, os.environ.get("PBS_SERVER", "")
        time.sleep(0.5)  # the batch system tells nobody
    assert queue.status(id).outcome in ("cancelled", "")
