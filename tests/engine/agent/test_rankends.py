"""In which order the ends of ranks are reported, and for which reasons."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import cast

import pytest

from ipmpi.engine.agent.crashfile import CrashFile
from ipmpi.engine.agent.localrank import LocalRank
from ipmpi.engine.agent.rankends import CAUSE_WITHIN, RankEnds, got

JOB = "4711"
CANCELLED = "got SIGTERM, as when job 4711 is cancelled or its time is up"
GONE = "the launcher (mpirun) is gone"


@dataclass
class Hello:
    job: str = JOB


@dataclass(eq=False)
class Ended:
    """What is known of a rank."""

    rank: int
    exit_status: int | None = None
    has_aborted: bool = False
    farewell: str = ""
    hello: Hello = field(default_factory=Hello)
    crash_file: CrashFile = field(default_factory=CrashFile)


def rank(number: int, status: int | None = None, *, aborted: bool = False) -> LocalRank:
    return cast(LocalRank, Ended(number, status, aborted))


def reported(ends: RankEnds) -> list[int]:
    """The ranks whose ends are due, in their order."""
    found = []
    while (due := ends.due()) is not None:
        ends.over(due[0])
        found.append(cast(Ended, due[0]).rank)
    return found


def test_ranks_are_reported_in_the_order_in_which_their_sockets_closed() -> None:
    ends = RankEnds()
    first, second = rank(0, signal.SIGSEGV), rank(1, signal.SIGKILL)
    ends.begins(first, 10)
    ends.begins(second, 10, "its process ended")
    assert reported(ends) == []
    ends.begins(first, 10.1, "its process ended")
    assert reported(ends) == [0, 1]
    assert ends.farewell(first, 10.1) == ends.farewell(second, 10.1) == ""


def test_a_rank_that_sigterm_has_ended_before_it_could_say_so_explains_all() -> None:
    ends = RankEnds()
    ended, killed = rank(0, signal.SIGTERM), rank(1, signal.SIGKILL)
    ends.begins(ended, 10, "its process ended")
    assert ends.farewell(ended, 100) == CANCELLED
    assert ends.farewell(killed, 11) == CANCELLED
    assert ends.farewell(killed, 16) == ""
    assert ends.farewell(rank(2, aborted=True), 10) == ""


def test_of_a_rank_outside_of_a_job_nothing_is_said_of_a_job() -> None:
    assert got("SIGTERM", "") == "got SIGTERM"


@pytest.mark.parametrize("status", [signal.SIGTERM, signal.SIGTERM << 8, (128 + signal.SIGTERM) << 8])
def test_a_launcher_that_sigterm_has_ended_tells_why_its_ranks_are_killed(status: int) -> None:
    ends, ranks = RankEnds(), [rank(0), rank(1)]
    ends.launcher_ended(status, JOB, 10)
    assert ends.is_decided(ranks, 10)
    assert ends.decide(ranks, JOB, 10) == ([], CANCELLED)
    assert ends.farewell(rank(0, signal.SIGKILL), 10.1) == CANCELLED


def test_after_the_end_of_the_launcher_ranks_may_say_why() -> None:
    ends, ranks = RankEnds(), [rank(0), rank(1)]
    ends.launcher_ended(1 << 8, JOB, 10)
    ends.begins(ranks[0], 10, "its process ended")
    assert reported(ends) == []
    assert not ends.is_decided(ranks, 10.1)
    ends.told(CANCELLED, 10.2)
    assert ends.is_decided(ranks, 10.2)
    assert ends.decide(ranks, JOB, 10.2)[1] == CANCELLED
    assert reported(ends) == [0]


@pytest.mark.parametrize(("job", "reason"), [(JOB, f"{GONE}, perhaps by SIG"), ("", GONE)], ids=["job", "no job"])
@pytest.mark.parametrize("all_end", [True, False])
def test_the_end_of_a_launcher_for_which_there_is_no_cause(job: str, reason: str, all_end: bool) -> None:
    ends, ranks = RankEnds(), [rank(0, signal.SIGKILL), rank(1)]
    ends.launcher_ended(None, job, 10)
    for each in ranks if all_end else ranks[:1]:
        ends.begins(each, 10.1, "its process ended")
    assert ends.is_decided(ranks, 10.1) == all_end
    assert ends.is_decided(ranks, 10 + CAUSE_WITHIN)
    causes, told = ends.decide(ranks, job, 10.1)
    assert (causes, told[: len(reason)]) == ([], reason)
    assert told == GONE or told.endswith(", as when job 4711 is cancelled or its time is up")


def test_a_rank_whose_end_had_begun_before_that_of_the_launcher_is_its_cause() -> None:
    ends, ranks = RankEnds(), [rank(0, signal.SIGKILL), rank(1, signal.SIGKILL)]
    ends.begins(ranks[0], 10)
    ends.launcher_ended(signal.SIGTERM, JOB, 10)
    ends.begins(ranks[1], 10.1, "its process ended")
    assert not ends.is_decided(ranks, 10.1), "how the first one has ended is not known"
    ends.begins(ranks[0], 10.2, "its process ended")
    assert ends.is_decided(ranks, 10.2)
    assert ends.decide(ranks, JOB, 10.2) == ([(ranks[0], "its process ended")], GONE)


def test_a_rank_that_has_called_mpi_abort_is_the_cause() -> None:
    ends, ranks = RankEnds(), [rank(0), rank(1, aborted=True)]
    ends.launcher_ended(1 << 8, JOB, 10)
    causes, told = ends.decide(ranks, JOB, 11)
    assert causes == [(ranks[1], "its process ended")]
    assert told == f"{GONE}, since rank 1 has called MPI_Abort"


def test_a_rank_that_was_killed_in_c_code_had_got_sigterm() -> None:
    """Its handler in Python has not run; that in C has left a note."""
    code = (
        "import signal; from ipmpi.engine.rank.interrupts import record_signals;"
        "signal.signal(signal.SIGTERM, lambda *_: None); print(record_signals(), flush=True); sum(range(1 << 60))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            descriptor = os.open(f"/proc/{process.pid}/fd/{process.stdout.readline().strip()}", os.O_RDONLY)
            found = CrashFile(-1, descriptor)
            assert not found.has_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            until = time.monotonic() + 60
            while not found.has_signal(signal.SIGTERM):
                assert time.monotonic() < until
                time.sleep(0.01)
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()
    assert found.has_signal(signal.SIGTERM)
    assert not found.has_signal(signal.SIGURG)
    ends, killed = RankEnds(), rank(0, signal.SIGKILL)
    killed.crash_file = found
    assert ends.farewell(killed, 10) == CANCELLED
    assert ends.farewell(cast(LocalRank, Ended(0, signal.SIGSEGV, crash_file=found)), 10) == ""
    found.close()
