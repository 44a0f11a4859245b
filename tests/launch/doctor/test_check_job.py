"""What jobs wait for, in words; which engines are missing, and which log tells why."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ipmpi.controller.engineslog import came, gone
from ipmpi.controller.registry import EngineSet
from ipmpi.ids import Ids
from ipmpi.launch.batch.nodelist import expand_nodes
from ipmpi.launch.batch.registry import JobState, JobStatus
from ipmpi.launch.doctor.check_job import check_job
from ipmpi.launch.doctor.check_ranks import (
    LogFacts,
    Loss,
    check_losses,
    check_ranks,
    check_time,
    failing_log,
    parse_losses,
    understand_log,
)
from ipmpi.launch.doctor.diagnostics import Level
from ipmpi.launch.doctor.reasons import TABLES, explain_reason
from ipmpi.protocol.messages import EngineInfo, Register

NOW = time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1))


def pending(reason: str, native: str = "PENDING", start: float | None = None) -> JobStatus:
    return JobStatus("123", JobState.PENDING, native, reason=reason, start=start)


@pytest.mark.parametrize(
    ("system", "words", "meaning"),
    [
        ("slurm", "Priority", "jobs with a higher priority are before it"),
        ("slurm", "Resources", "as soon as enough nodes are free"),
        ("slurm", "QOSMaxJobsPerUserLimit", "as many jobs running as you may"),
        ("slurm", "AssocMaxJobsLimit", "as many jobs running as you may"),
        ("slurm", "MaxJobsPerAccount", "as many jobs running as you may"),
        ("slurm", "QOSMaxSubmitJobPerUserLimit", "as many jobs queued"),
        ("slurm", "QOSGrpCpuLimit", "everybody of your account or QOS together"),
        ("slurm", "AssocGrpCpuLimit", "everybody of your account"),
        ("slurm", "AssocGrpCPURunMinutesLimit", "everybody of your account"),
        ("slurm", "AssocGrpCPUMinutesLimit", "your account has used up its time"),
        ("slurm", "QOSMaxCpuPerUserLimit", "more than one user may"),
        ("slurm", "QOSMaxWallDurationPerJobLimit", "more time than is allowed"),
        ("slurm", "PartitionTimeLimit", "more time than is allowed"),
        ("slurm", "ReqNodeNotAvail, UnavailableNodes:n[1-4]", "down, reserved, or will be in maintenance"),
        ("slurm", "Dependency", "waits for another job, as"),
        ("slurm", "DependencyNeverSatisfied", "never start"),
        ("slurm", "JobHeldUser", "you held it"),
        ("slurm", "BadConstraints", "no node has what it asks for"),
        ("slurm", "", "the scheduler has not looked at it yet"),
        ("slurm", "SomethingNew", "the batch system says: SomethingNew"),
        (
            "pbs",
            "Not Running: Insufficient amount of resource: ncpus (R: 8 A: 2 T: 4)",
            "not enough nodes are free",
        ),
        ("pbs", "Can Never Run: Insufficient amount of resource: ncpus (R: 800 A: 4 T: 4)", "never start"),
        ("pbs", "Not Running: User has reached server running job limit.", "as one user may"),
        ("pbs", "Not Running: Job would conflict with reservation or top job", "before a reservation"),
        ("pbs", "Not Running: Queue not started.", "switched off"),
        ("pbs", "Not Running: Server per-user limit reached on resource ncpus", "as one user may"),
        ("pbs", "Not Running: would exceed user's limit on resource ncpus in queue", "as one user may"),
        ("pbs", "Not Running: would exceed project's limit on resource ncpus in complex", "as much as it may"),
        ("pbs", "Not Running: Job would exceed queue's walltime limit", "more than its queue allows"),
        ("pbs", "Not Running: would exceed overall limit on resource ncpus in queue X", "all jobs there together"),
        ("pbs", "Not Running: would exceed overall limit on resource ncpus in complex", "all jobs there together"),
        ("pbs", "Not Running: Queue X job limit has been reached.", "all jobs there together"),
        ("pbs", "Not Running: Server job limit has been reached.", "all jobs there together"),
        ("pbs", "Insufficient amount of queue resource: ncpus (R: 8 A: 2 T: 4)", "all jobs there together"),
        ("pbs", "Not Running: Queue X job limit reached for user a", "as one user may"),
        ("pbs", "Not Running: User has reached queue X running job limit.", "as one user may"),
        ("pbs", "Not Running: Group has reached queue X running limit.", "as much as it may"),
        ("pbs", "Not Running: Project has reached server running limit.", "as much as it may"),
        ("pbs", "Not Running: Job would interfere with a confirmed reservation", "before a reservation"),
        ("pbs", "Not Running: Job would interfere with a top job", "before a reservation"),
        ("pbs", "Not Running: Job would cross dedicated time boundary", "before a reservation"),
        ("pbs", "Not Running: Job will run in primetime only", "in certain hours only"),
        ("pbs", "Not Running: Job will run in nonprimetime only", "in certain hours only"),
        ("pbs", "Not Running: Job will cross into primetime", "in certain hours only"),
        ("pbs", "Not Running: Too few free resources", "not enough nodes are free"),
        ("pbs", "Not Running: host set node1 has too few free resources", "not enough nodes are free"),
        ("pbs", "Not Running: Can't preempt enough work to run job", "not enough nodes are free"),
        ("pbs", "Not Running: Node has reached job run limit", "not enough nodes are free"),
        (
            "pbs",
            "Can Never Run: can't fit in the largest placement set, and can't span psets",
            "never start",
        ),
        ("pbs", "Not Running: can't fit in the largest placement set, and can't span psets", "never start"),
        ("pbs", "Not Running: Job is under job_sort_formula threshold value", "higher priority"),
        ("pbs", "Not Running: Number of concurrent running subjobs limit reached", "elements of this array"),
        ("pbs", "Not Running: Job has zero shares for fairshare", "no share of this machine"),
        ("pbs", "Not Running: Specified host does not exist: node9", "never start"),
        ("pbs", "depend=afterok:21.login@login", "waits for another job"),
        ("pbs", "Job held by user7 on Tue Nov 24", "it is held"),
        ("pbs", "Job held by root on Tue Nov 24", "it is held"),
        ("pbs", "", "not looked at it yet"),
        ("lsf", "whatever", "the batch system says: whatever"),
        ("lsf", "", "does not say why"),
    ],
)
def test_reasons_in_words(system: str, words: str, meaning: str) -> None:
    assert meaning in explain_reason(system, words)[0]


@pytest.mark.parametrize("system", TABLES)
def test_what_never_starts_says_how_to_submit_it(system: str) -> None:
    assert all(reason.fix for reason in TABLES[system] if "never start" in reason.meaning)


def test_a_job_that_waits() -> None:
    first, second = check_job("slurm", "Slurm", pending("Priority", start=NOW + 7800), NOW)
    assert (first.area, first.level) == ("Job 123", Level.NOTE)
    assert first.text == "It waits: jobs with a higher priority are before it (Priority)."
    assert "--time" in first.fix
    assert second.text == "Slurm expects to start it at 14:10, in 2 h 10 min."
    _, second = check_job("slurm", "Slurm", pending("Resources"), NOW)
    assert second.text == "Slurm does not say yet when it will start."


def test_a_job_that_will_never_start_is_a_problem() -> None:
    (diagnostic,) = check_job("slurm", "Slurm", pending("PartitionTimeLimit"), NOW)
    assert diagnostic.level is Level.PROBLEM
    (diagnostic, _) = check_job("slurm", "Slurm", pending("JobHeldUser"), NOW)
    assert diagnostic.fix == "scontrol release 123"


def test_held_by_whom_and_what_to_do() -> None:
    for reason in ("", "held by its user", "Job held by user1 on Thu Nov 26 20:28:02 2026"):
        diagnostic = check_job("pbs", "PBS", pending(reason, "H"), NOW)[0]
        assert "qrls 123" in diagnostic.fix, reason
    diagnostic = check_job("pbs", "PBS", pending("depend=afterok:21.login@login", "H"), NOW)[0]
    assert (
        diagnostic.text
        == "It waits: it waits for another job, as its script asks (depend=afterok:21.login@login)."
    )
    assert "minute" not in diagnostic.fix


def test_a_job_that_starts_at_a_certain_time() -> None:
    first, second = check_job("pbs", "PBS", pending("", "W", start=NOW + 3600), NOW)
    assert first.text == "It waits: it is not to start before a certain time, as was asked for."
    assert "at 13:00" in second.text


def test_an_account_of_the_used_time_that_is_behind() -> None:
    status = JobStatus("7", JobState.RUNNING, "R", start=NOW - 60, end=NOW, time_left=11.0)
    assert check_job("pbs", "PBS", status, NOW)[0].text == "It runs since 11:59; 0 s are left."
    suspended = status._replace(time_left=3600.0)
    assert "; 1 h are left" in check_job("pbs", "PBS", suspended, NOW)[0].text
    ahead = status._replace(time_left=11.0, end=NOW + 60)
    assert "; 11 s are left" in check_job("pbs", "PBS", ahead, NOW)[0].text


def test_native_states_that_say_more() -> None:
    assert "being started" in check_job("slurm", "Slurm", pending("", "CONFIGURING"), NOW)[0].text
    assert "it is held" in check_job("pbs", "PBS", pending("", "H"), NOW)[0].text


def test_a_job_that_runs() -> None:
    status = JobStatus("7", JobState.RUNNING, "RUNNING", start=NOW - 60, time_left=3540, nodes="n[1-2]")
    (diagnostic,) = check_job("slurm", "Slurm", status, NOW)
    assert diagnostic.level is Level.OK
    assert diagnostic.text == "It runs on n[1-2] since 11:59; 59 min are left."
    (diagnostic,) = check_job("slurm", "Slurm", status._replace(native="SUSPENDED"), NOW)
    assert (diagnostic.level, "suspended" in diagnostic.text) == (Level.NOTE, True)
    (diagnostic,) = check_job("slurm", "Slurm", status._replace(state=JobState.ENDING, native="COMPLETING"), NOW)
    assert diagnostic.text == "It is ending (COMPLETING)."


@pytest.mark.parametrize(
    ("outcome", "level", "words", "fix"),
    [
        ("completed", Level.OK, "in good order", ""),
        ("timeout", Level.WARNING, "at its walltime", "--resubmit"),
        ("cancelled", Level.NOTE, "was cancelled", "administrators"),
        ("preempted", Level.WARNING, "was preempted", "--resubmit"),
        ("failed", Level.PROBLEM, "It failed (NonZeroExitCode)", "end of its output"),
        ("node-failure", Level.PROBLEM, "one of its nodes failed", "Submit it again"),
        ("", Level.NOTE, "does not know it any more", "forget jobs"),
    ],
)
def test_how_it_ended(outcome: str, level: Level, words: str, fix: str) -> None:
    status = JobStatus("7", JobState.ENDED, "X", reason="NonZeroExitCode", outcome=outcome)
    (diagnostic,) = check_job("slurm", "Slurm", status, NOW)
    assert diagnostic.level is level
    assert words in diagnostic.text
    assert fix in diagnostic.fix


def test_a_batch_system_that_does_not_answer() -> None:
    status = JobStatus("7", JobState.UNKNOWN, "", reason="socket timed out")
    (diagnostic,) = check_job("pbs", "PBS", status, NOW)
    assert diagnostic.level is Level.WARNING
    assert diagnostic.text == "PBS does not tell how it is: socket timed out."


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n[1-3,07],gpu1", ["n1", "n2", "n3", "n07", "gpu1"]),
        ("n[08-10].site", ["n08.site", "n09.site", "n10.site"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("n[x]", []),
        ("n[1-999999999]", []),
    ],
)
def test_nodes_as_slurm_writes_them(text: str, names: list[str]) -> None:
    assert expand_nodes(text) == names


# --- engines -----------------------------------------------------------------------------------------------


def engines(*ranks: int, host: str = "n1", joined: bool = True) -> list[dict[str, Any]]:
    mpi = "Open MPI v5.0.11, MPI_THREAD_MULTIPLE" if joined else "not joined"
    return [{"id": r, "rank": r, "set": 1, "host": host, "pid": 100 + r, "mpi": mpi} for r in ranks]


def log_of(rank: int, size: int = 4, failure: str = "") -> LogFacts:
    path = f"/l/ipengine-20261124-233007-7-n1-{rank}-{100 + rank}.log"
    return LogFacts(path, "engine", rank, size, failure, (failure,) if failure else ())


def test_all_are_there() -> None:
    (diagnostic,) = check_ranks(3, engines(0, 1) + engines(2, host="n2"))
    assert (diagnostic.level, diagnostic.text) == (Level.OK, "All 3 engines are registered: 2 on n1, 1 on n2.")


def test_engines_that_were_added_later() -> None:
    (diagnostic,) = check_ranks(3, engines(0, 1, 2, 3, 4))
    assert diagnostic.text == "All 3 engines are registered, and 2 more that were added: 5 on n1."


def test_which_ranks_are_missing_and_how_far_they_came() -> None:
    logs = [log_of(rank) for rank in (0, 1, 2)]
    (diagnostic,) = check_ranks(4, engines(0, 1), ["n1", "n2"], logs)
    assert diagnostic.level is Level.WARNING
    assert diagnostic.text == (
        "2 of 4 engines are registered: 2 on n1. Missing: ranks 2-3. Of these, rank 2 did start; rank 3 wrote no "
        "log. Nothing is there from n2."
    )
    assert "file system" in diagnostic.fix
    (diagnostic,) = check_ranks(4, engines(0, 1, 2), logs=[log_of(3, failure="error")])
    assert "Missing: rank 3. All of these did start." in diagnostic.text
    assert diagnostic.fix == "The log below says what failed."


def test_engines_without_a_communicator_have_no_ranks_to_miss() -> None:
    (diagnostic,) = check_ranks(4, engines(0, joined=False))
    assert diagnostic.text == "1 of 4 engines are registered: 1 on n1."
    (diagnostic,) = check_ranks(4, [])
    assert diagnostic.text == "0 of 4 engines are registered."


def test_engines_start_with_their_job() -> None:
    (diagnostic,) = check_ranks(4, [], starting=True)
    assert (diagnostic.level, diagnostic.text) == (
        Level.NOTE,
        "None of the 4 engines is there yet: they start with the job.",
    )


def test_the_log_that_tells_most() -> None:
    output = LogFacts("/l/ipcluster-7-1.log", "output", failure="mpiexec: rank 3 was killed")
    controller = LogFacts("/l/ipcontroller7.log", "controller", failure="error: x")
    failed = [log_of(3, failure="12:00:01 no furl file"), log_of(2, failure="12:00:07 no furl file")]
    assert failing_log([controller, output, *failed]) == (failed[1], 1)
    assert failing_log([controller, output]) == (output, 0)
    assert failing_log([log_of(0)]) is None
    # User code of an engine that lives may print what it likes.
    assert failing_log([log_of(0, failure="error in the model")], engines(0)) is None
    assert failing_log([log_of(0, failure="error in the model")], engines(0, host="n11")) is not None


@pytest.mark.parametrize(
    "name", ["ipengine-n-1-5.log", "ipengine-4711-n-1-3-5.log", "x-n-1-0-5.2.log", "n-1-5.log"]
)
def test_the_log_of_an_engine_is_known_by_host_and_process(name: str) -> None:
    log = LogFacts(f"/l/{name}", "engine", failure="error in the model")
    for host, pid, known in (("n-1", 5, True), ("n-2", 5, False), ("-1", 5, False), ("n-1", 15, False)):
        assert (failing_log([log], [{"host": host, "pid": pid}]) is None) is known


def test_how_long_engines_have() -> None:
    here = [{**each, "job": "99", "time_left": 3600.0 - each["id"]} for each in engines(0, 1)]
    (diagnostic,) = check_time([*here, *engines(2)])
    assert (diagnostic.level, diagnostic.text) == (Level.OK, "Job 99 of engines 0-1 ends in 59 min.")
    (diagnostic,) = check_time([{**engines(3)[0], "job": "", "time_left": 65.0}])
    assert (diagnostic.level, diagnostic.text) == (Level.NOTE, "The time of engine 3 ends in 1 min 5 s.")
    assert check_time(engines(0)) == []


CONTROLLER = """\
2026-11-24 23:30:07 ipcontroller: registered engine with id: 0 (rank 0, pid 2445 on n1)
2026-11-24 23:30:07 ipcontroller: registered engine with id: 1 (rank 1, pid 2447 on n1)
2026-11-24 23:30:07 ipcontroller: registered engine with id: 2 (rank 2, pid 2451 on n2)
2026-11-24 23:30:10 ipcontroller: unregistered engine with id: 1 (its process ended)
2026-11-24 23:30:10 ipcontroller: unregistered engine with id: 0 (the network was cut)
2026-11-24 23:30:12 ipcontroller: registered engine with id: 0 (rank 0, pid 2445 on n1)
2026-11-24 23:30:15 ipcontroller: unregistered engine with id: 2 (it said goodbye: got SIGTERM)
"""


def test_engines_that_are_gone_and_why() -> None:
    losses = parse_losses(CONTROLLER)
    assert [(loss.id, loss.reason) for loss in losses] == [
        (1, "its process ended"),
        (2, "it said goodbye: got SIGTERM"),
    ]
    lost, left = check_losses(losses, engines(0))
    assert (lost.level, left.level) == (Level.WARNING, Level.NOTE)
    assert lost.text == "Engine 1 (rank 1, pid 2447 on n1) was there, and left: its process ended."
    assert "dmesg" in lost.fix
    assert check_losses(losses, engines(0, 1, 2)) == []
    many = [Loss(i, "", "its process ended") for i in range(4)]
    (diagnostic,) = check_losses(many, [])
    assert diagnostic.text == "Engines 0-3 were there, and left: its process ended."


def test_engines_of_large_sets_that_are_gone() -> None:
    """The controller has one line for many of them."""
    infos = [EngineInfo(rank, rank, f"n{rank // 150}", 1000 + rank) for rank in range(300)]
    engine_set = EngineSet(1, Register(infos, "Open MPI", "3.11"), range(300))
    lines = [
        *came(engine_set),
        *gone(Ids.of(range(299)), "its node is down (n0)"),
        *gone(Ids.of([299]), "it ended"),
    ]
    assert len(lines) == 4
    losses = parse_losses("".join(f"2026-11-24 23:30:07 ipcontroller: {line}\n" for line in lines))
    assert losses == [*(Loss(i, "", "its node is down (n0)") for i in range(299)), Loss(299, "", "it ended")]
    assert not parse_losses("\n".join([*lines, *came(engine_set)]))


def test_a_log_is_understood() -> None:
    beginning = (
        "2026-11-24 12:00:00 ipengine: pid 1, x\n2026-11-24 ipengine: MPI started with rank = 3 and size = 8\n"
    )
    facts = understand_log(
        "/l/a", "engine", beginning, ["fine", "Traceback (most recent call last):", "  x", "done"]
    )
    assert (facts.rank, facts.size, facts.failure) == (3, 8, "Traceback (most recent call last):")
    harmless = ["ipcontroller: refused a connection from 10.0.0.1: it went away"]
    assert understand_log("/l/a", "controller", "", harmless).failure == ""
