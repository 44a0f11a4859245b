"""The ends of jobs: what is left, and what clients are told when."""

from __future__ import annotations

import math

import pytest

from ipmpi.controller.deadlines import Deadlines, failure
from ipmpi.controller.effects import Announce
from ipmpi.controller.registry import Registry
from ipmpi.protocol import messages as m, operations

SET, OTHER = 10, 11


@pytest.fixture
def deadlines() -> Deadlines:
    """Engines 0 to 2 in one set, 3 in another."""
    registry = Registry()
    for key, ranks in ((SET, 3), (OTHER, 1)):
        registry.register(key, m.Register([m.EngineInfo(rank, rank, "h", 1) for rank in range(ranks)], "", ""))
    return Deadlines(registry)


def texts(announced: list[Announce]) -> list[str]:
    return [each.text for each in announced]


def test_what_is_left(deadlines: Deadlines) -> None:
    assert deadlines.left(SET, 0) is None
    assert deadlines.told(SET, m.JobEnds(3600.0, "17"), 100) == 3700
    assert deadlines.left(SET, 100) == 3600
    assert deadlines.left(SET, 3699) == 1
    assert deadlines.left(SET, 5000) == 0
    assert (deadlines.job(SET), deadlines.job(OTHER)) == ("17", "")
    deadlines.forget(SET)
    assert deadlines.left(SET, 200) is None


@pytest.mark.parametrize("seconds", [None, math.nan, math.inf])
def test_an_end_that_is_not_known(deadlines: Deadlines, seconds: float | None) -> None:
    assert deadlines.told(SET, m.JobEnds(seconds, "17"), 0) is None
    assert deadlines.left(SET, 0) is None
    assert deadlines.next_deadline() is None
    assert not deadlines.is_over(SET, 1e9)


def test_clients_are_told_twice(deadlines: Deadlines) -> None:
    deadlines.told(SET, m.JobEnds(3600.0, "17"), 0)
    assert deadlines.next_deadline() == 3000
    assert deadlines.due(2999) == []
    assert texts(deadlines.due(3000)) == ["job 17 of engines 0-2 ends in 10 minutes"]
    assert deadlines.due(3000) == []
    assert deadlines.next_deadline() == 3480
    assert texts(deadlines.due(3480)) == ["job 17 of engines 0-2 ends in 2 minutes"]
    assert deadlines.next_deadline() is None


def test_a_short_job_has_fewer_warnings(deadlines: Deadlines) -> None:
    deadlines.told(SET, m.JobEnds(300.0), 0)
    assert deadlines.next_deadline() == 180
    assert texts(deadlines.due(200)) == ["the job of engines 0-2 ends in 2 minutes"]
    deadlines.told(OTHER, m.JobEnds(100.0), 0)
    assert deadlines.next_deadline() is None


def test_sets_of_one_job_are_told_of_together(deadlines: Deadlines) -> None:
    deadlines.told(SET, m.JobEnds(3600.0, "17"), 0)
    deadlines.told(OTHER, m.JobEnds(3600.0, "17"), 0.3)
    assert texts(deadlines.due(3000)) == ["job 17 of engines 0-3 ends in 10 minutes"]
    assert deadlines.due(3001) == []


def test_other_jobs_are_told_of_by_themselves(deadlines: Deadlines) -> None:
    deadlines.told(SET, m.JobEnds(3600.0, "17"), 0)
    deadlines.told(OTHER, m.JobEnds(3600.0, "18"), 0)
    assert texts(deadlines.due(3000)) == [
        "job 17 of engines 0-2 ends in 10 minutes", "job 18 of engine 3 ends in 10 minutes",
    ]  # fmt: skip


@pytest.mark.parametrize(("ids", "array"), [(("17_0", "17_1"), "17"), (("9[3].pbs", "9[4].pbs"), "9[].pbs")])
def test_elements_of_a_job_array_are_told_of_together(
    deadlines: Deadlines, ids: tuple[str, str], array: str
) -> None:
    deadlines.told(SET, m.JobEnds(3600.0, ids[0]), 0)
    deadlines.told(OTHER, m.JobEnds(3602.0, ids[1]), 0)
    assert texts(deadlines.due(3000)) == [f"job {array} of engines 0-3 ends in 10 minutes"]
    deadlines.forget(SET)
    assert texts(deadlines.due(3482)) == [f"job {ids[1]} of engine 3 ends in 2 minutes"]


def test_the_batch_system_s_own_warning(deadlines: Deadlines) -> None:
    deadlines.told(SET, m.JobEnds(50.0, "17", True), 0)
    deadlines.told(OTHER, m.JobEnds(None, "18", True), 0)
    said = texts(deadlines.due(1))
    assert said[0] == "the batch system warns that job 17 of engines 0-2 ends soon (in 49 s)"
    assert said[1] == "the batch system warns that job 18 of engine 3 ends soon"


def test_losses_near_the_end_are_the_end(deadlines: Deadlines) -> None:
    deadlines.told(SET, m.JobEnds(3600.0), 0)
    assert not deadlines.is_over(SET, 3500)
    assert deadlines.is_over(SET, 3550)
    assert deadlines.is_over(SET, 4000)


def test_a_failure_is_told_with_the_last_line_of_its_traceback() -> None:
    failed = operations.Failed("OSError", "disk full", "Traceback\n  File ...\nOSError: disk full\n")
    (text,) = texts([failure([1, 0], "before_walltime(save)", operations.encode(failed))])
    assert text == "before_walltime(save) failed on engines 0-1: OSError: disk full"


@pytest.mark.parametrize("outcome", [b"", b"\xff\xfe", operations.encode(operations.Nothing())])
def test_a_failure_that_nobody_understands_is_told_all_the_same(outcome: bytes) -> None:
    assert failure([2], "before_walltime(f)", outcome).text.startswith("before_walltime(f) failed on engine 2: ")
