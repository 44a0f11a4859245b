"""Times as people write them, and what environment and batch systems say of the end of a job."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ipmpi.environment import walltime

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), (" 5400 ", 5400), ("2.5", 2.5), ("10:30", 630), ("1:30:00", 5400), ("100:00:00", 360_000),
        ("1-12", 129_600), ("1-12:30", 131_400), ("1-00:00:01", 86_401), ("0:59", 59),
        ("10m", 600), ("600s", 600), ("1h30m", 5400), ("1d12h", 129_600), ("1.5h", 5400), ("2H", 7200),
    ],
)  # fmt: skip
def test_times(text: str, seconds: float) -> None:
    assert walltime.seconds(text) == seconds


NO_TIMES = ("", "-5", "1:2:3:4", "UNLIMITED", "1-", "1--2", "5 minutes", "nan", "m", "30m1h", "1h1h", "1h30", "1w")


@pytest.mark.parametrize("meaning", [walltime.seconds, walltime.job_seconds])
@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time_is_told_with_what_to_type(text: str, meaning: Callable[[str], float]) -> None:
    with pytest.raises(ValueError, match="is no time: write it like 90m, 1h30m, 5400s, 1:30:00 or 1-12:00:00"):
        meaning(text)


@pytest.mark.parametrize("text", ["10", " 600 ", "1.5"])
def test_a_number_alone_is_no_time_for_a_job(text: str) -> None:
    with pytest.raises(ValueError, match="minutes to Slurm and seconds to PBS: write 10m, 600s or 0:10:00"):
        walltime.job_seconds(text)


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("0:10:00", 600), ("1-12", 129_600), ("90.5s", 90)])
def test_the_time_of_a_job_is_in_whole_seconds(text: str, seconds: int) -> None:
    assert walltime.job_seconds(text) == seconds


@pytest.mark.parametrize("text", ["0s", "0:00:00", "0.5s"])
def test_a_job_lasts_for_a_while(text: str) -> None:
    # To Slurm, no time means no end.
    with pytest.raises(ValueError, match="is too short for a job: write it like 90m"):
        walltime.job_seconds(text)


def test_the_job_script_s_own_end_counts_more_than_slurm_s() -> None:
    environ = {"IPMPI_JOB_END": str(NOW + 60), "SLURM_JOB_END_TIME": str(NOW + 90)}
    assert walltime.exported(environ, NOW) == 60
    assert walltime.exported({"SLURM_JOB_END_TIME": "1800000090"}, NOW) == 90


@pytest.mark.parametrize("value", ["", "soon", str(NOW - 1), "nan", "inf", "1e300"])
def test_an_end_that_is_past_or_no_time_is_no_end(value: str) -> None:
    assert walltime.exported({"IPMPI_JOB_END": value}, NOW) is None
    both = {"IPMPI_JOB_END": value, "SLURM_JOB_END_TIME": str(NOW + 5)}
    assert walltime.exported(both, NOW) == 5


def test_the_name_of_the_job() -> None:
    assert walltime.job_id({}) == ""
    assert walltime.job_id({"SLURM_JOB_ID": "17"}) == "17"
    array = {"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}
    assert walltime.job_id(array) == "17_2"
    assert walltime.job_id({"PBS_JOBID": "5.server"}) == "5.server"


def test_user_code_can_look_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPMPI_JOB_END", raising=False)
    assert walltime.left() is None
    monkeypatch.setenv("IPMPI_JOB_END", str(time.time() + 100))
    left = walltime.left()
    assert left is not None
    assert 95 < left <= 100


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "PBS_JOBID"])
def test_in_a_job_there_is_somebody_to_ask(variable: str) -> None:
    assert not walltime.is_in_job({})
    assert walltime.is_in_job({variable: "17"})


def test_what_is_no_time_to_a_batch_system_is_none() -> None:
    assert walltime.span("1-00:00:01") == 86_401
    assert walltime.span(3600) == 3600
    assert [walltime.span(text) for text in ("UNLIMITED", "INVALID", "", None)] == [None] * 4


def test_times_as_people_read_them() -> None:
    now = time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1))
    assert [walltime.duration(s) for s in (0, 5, 61, 599, 3600, 7800, 90_000, -3)] == [
        *("0 s", "5 s", "1 min 1 s", "9 min 59 s", "1 h", "2 h 10 min", "1 d 1 h", "0 s")
    ]
    assert walltime.duration(3540) == "59 min"
    assert walltime.moment(now + 86400, now) == "2026-11-25 12:00"


def test_times_as_batch_systems_take_them() -> None:
    assert [walltime.clock(s) for s in (0, 61, 5400, 360_000)] == ["0:00:00", "0:01:01", "1:30:00", "100:00:00"]
