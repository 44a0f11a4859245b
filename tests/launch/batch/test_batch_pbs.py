"""PBS's commands, and answers in the formats of its programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.pbs import PBS
from ipmpi.launch.batch.queue import Queue
from ipmpi.launch.batch.registry import JobState, JobStatus, Shape

JSON, TEXT, _, _ = PBS.status("12.server")
ANSWERS = Path(__file__).with_name("pbs_answers")
"""What qstat of OpenPBS 23.06 said, with neutral names."""

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
    assert JSON == ["qstat", "-f", "-F", "json", "12.server"]
    assert PBS.cancel("12[].server") == ["qdel", "12[].server"]
    assert PBS.programs == ("qsub", "qstat", "qdel")


@pytest.mark.parametrize("id", ["12.server", "12[].server.site.org", "12"])
def test_the_id(id: str) -> None:
    assert PBS.job_id(f"{id}\n") == id


def test_no_id() -> None:
    with pytest.raises(LauncherError, match="qsub did not print the id of the job, but: hello"):
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
        "12.server", TEXT, text.replace("used.walltime = 01:00:11", "used.walltime = 00:01:11")
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
    for id in ("12.server", "12[].server"):
        assert PBS.output_files("ipmpi", id) == ["12[[.]*.OU", "ipmpi.o12*"]


def recorded(name: str) -> JobStatus:
    """What PBS said of the first job in this answer."""
    text = (ANSWERS / name).read_text("utf-8")
    if name.endswith(".txt"):
        status = PBS.parse_status("100.login", TEXT, text)
    else:
        found = re.search(r'"(\d[^"]*)":\s*{\s*"Job_Name"', text)
        assert found is not None
        status = PBS.parse_status(found[1], JSON, text)
    assert status is not None, name
    return status


@pytest.mark.parametrize(
    ("name", "state", "outcome", "reason"),
    [
        ("array-element-X", JobState.ENDED, "cancelled", "and terminated by user1@login"),
        ("array-finished-qdel", JobState.ENDED, "cancelled", "and terminated"),
        ("array-running", JobState.RUNNING, "", "Job Array Began at Thu Nov 26 at 20:26"),
        ("array-running-with-elements", JobState.RUNNING, "", "Job Array Began at Thu Nov 26 at 20:26"),
        ("can-never-run-nodes", JobState.PENDING, "", "Can Never Run: Not enough total nodes available"),
        ("finished-failed", JobState.ENDED, "failed", "and failed"),
        ("finished-qdel-race-137", JobState.ENDED, "failed", "and failed"),
        ("finished-qdel-while-queued", JobState.ENDED, "cancelled", "and terminated"),
        ("finished-qdel", JobState.ENDED, "cancelled", "and terminated by user1@login"),
        ("finished-walltime", JobState.ENDED, "timeout", "its time was up"),
        ("held-at-submit-no-comment", JobState.PENDING, "", "held by its user"),
        ("held-by-user", JobState.PENDING, "", "Job held by user1 on Thu Nov 26 20:28:02 2026"),
        ("held-dependency-no-comment", JobState.PENDING, "", "depend=afterok:21.login@login"),
        ("odd-environment", JobState.RUNNING, "", "on (node1:ncpus=1)"),
        ("qdel-sent-still-R", JobState.ENDING, "", "and terminated by user1@login"),
        ("qdel-sigterm-ignored-still-R", JobState.ENDING, "", "and terminated by user1@login"),
        ("queue-not-started", JobState.PENDING, "", "Not Running: Queue not started"),
        ("queued-can-never-run", JobState.PENDING, "", "ncpus (R: 18 A: 16 T: 16)"),
        ("queued-estimated-start", JobState.PENDING, "", "Not Running: Not enough free nodes available"),
        ("queued-insufficient", JobState.PENDING, "", "ncpus (R: 16 A: 12 T: 16)"),
        ("queued-user-limit", JobState.PENDING, "", "User has reached queue small running job limit"),
        ("running-2nodes", JobState.RUNNING, "", "on (node1:ncpus=2)+(node2:ncpus=2)"),
        ("suspended", JobState.RUNNING, "", "on (node1:ncpus=2)+(node2:ncpus=2)"),
        ("waiting-execution-time", JobState.PENDING, "", ""),
    ],
)
def test_answers_of_a_real_pbs(name: str, state: JobState, outcome: str, reason: str) -> None:
    status = recorded(f"qstat-json-{name}.json")
    assert (status.state, status.outcome) == (state, outcome)
    assert status.reason.endswith(reason)
    assert bool(status.reason) is bool(reason)


def test_all_recorded_answers_are_looked_at() -> None:
    (test,) = [mark for mark in test_answers_of_a_real_pbs.pytestmark if mark.name == "parametrize"]
    there = {path.stem.removeprefix("qstat-json-") for path in ANSWERS.glob("qstat-json-*.json")}
    assert there == {row[0] for row in test.args[1]}


@pytest.mark.parametrize(
    ("name", "nodes"), [("running-single-no-history", "node1"), ("running-2nodes", "node1,node2")]
)
def test_answers_of_a_real_pbs_as_text(name: str, nodes: str) -> None:
    status = recorded(f"qstat-f-{name}.txt")
    assert (status.state, status.nodes) == (JobState.RUNNING, nodes)
    assert status.reason.startswith("Job run at")
    assert status.reason == status.reason.strip(" .\n\t")


def test_a_job_that_is_not_to_start_before_a_time_starts_then() -> None:
    assert recorded("qstat-json-waiting-execution-time.json").start == local("2026-11-26T21:29:00")
    assert recorded("qstat-json-queued-estimated-start.json").start == local("2026-11-26T21:03:21")


def test_a_suspended_job_has_no_end() -> None:
    status = recorded("qstat-json-suspended.json")
    assert (status.native, status.time_left, status.end) == ("S", None, None)


@pytest.mark.parametrize(
    ("id", "array"), [("17", "17[]"), ("17.login", "17[]"), ("17[].login", ""), ("17[1].login", "")]
)
def test_an_array_may_be_called_by_its_number(id: str, array: str) -> None:
    assert PBS.as_array(id) == array


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

    def wait_for(reached: Callable[[JobStatus], bool]) -> None:
        deadline = time.monotonic() + 60
        while not reached(status := queue.status(id)):
            assert time.monotonic() < deadline, (status, os.environ.get("PBS_SERVER", ""))
            time.sleep(0.5)  # the batch system tells nobody

    try:
        # PBS forgets a qdel that comes in the second in which a job starts, and says later that it failed.
        wait_for(lambda status: status.state is JobState.RUNNING and time.time() > (status.start or 0) + 3)
    finally:
        queue.cancel(id)
    wait_for(lambda status: status.state is JobState.ENDED)
    assert queue.status(id).outcome in ("cancelled", "")
