"""Times as people write them, and what environment and batch systems say of the end of a job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from ipmpi.environment import jobend, walltime

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


# --- what batch systems answer ----------------------------------------------------------------------------------

SLURM = {"SLURM_JOB_ID": "17"}
PBS = {"PBS_JOBID": "12.server"}


def test_nobody_is_asked_outside_of_a_job() -> None:
    assert jobend.questions({}) == []
    assert not walltime.is_in_job({})
    assert walltime.is_in_job(SLURM)
    assert walltime.is_in_job(PBS)


def slurm(output: str) -> float | None:
    (argv,) = jobend.questions(SLURM)
    assert argv == ["squeue", "-h", "-j", "17", "-o", "%A|%L|%e"]
    return jobend.answered(argv, output, SLURM, NOW)


def local(when: float, form: str) -> str:
    return time.strftime(form, time.localtime(when))


def test_slurm_says_what_is_left() -> None:
    end = local(NOW + 3600, "%Y-%m-%dT%H:%M:%S")
    assert slurm(f"17|1:00:00|{end}\n") == 3600
    assert slurm("17|0:59|N/A\n") == 59
    assert slurm("17|1-00:00:00|N/A\n") == 86_400
    assert slurm(f"17|INVALID|{end}\n") == 3600


def test_of_an_array_s_elements_the_right_one_counts() -> None:
    assert slurm("18|0:10|N/A\n17|0:20|N/A\n19|0:30|N/A\n") == 20


NO_END = ("", "17|UNLIMITED|NONE\n", "17|NOT_SET|N/A\n", "error: Invalid job id\n", "18|0:1|\n19|0:1|\n")


@pytest.mark.parametrize("output", NO_END)
def test_slurm_does_not_always_know(output: str) -> None:
    assert slurm(output) is None


ATTRIBUTES = {"Job_Name": "STDIN", "job_state": "R"}


def pbs(output: str, number: int = 0) -> float | None:
    return jobend.answered(jobend.questions(PBS)[number], output, PBS, NOW)


def test_pbs_says_when_it_began_and_how_long_it_may_take() -> None:
    began = local(NOW - 600, "%a %b %d %H:%M:%S %Y")
    limits = {"walltime": "01:00:00", "ncpus": 4}
    job = {**ATTRIBUTES, "stime": began, "resources_used": {"walltime": "00:09:00"}, "Resource_List": limits}
    assert pbs(json.dumps({"timestamp": 1, "Jobs": {"12.server": job}})) == 3000


@pytest.mark.parametrize("name", ["stime", "start_time"])
def test_torque_has_no_json(name: str) -> None:
    assert jobend.questions(PBS)[1] == ["qstat", "-f", "12.server"]
    began = local(NOW - 600, "%a %b %d %H:%M:%S %Y")
    text = (
        f"Job Id: 12.server\n    Job_Name = STDIN\n    resources_used.walltime = 00:09:00\n    {name} = {began}\n"
        "    Resource_List.walltime = 01:00:00\n    Variable_List = PBS_O_HOME=/home/me,\n\tPBS_O_LANG=C\n"
    )
    assert pbs(text, 1) == 3000


NO_START = '{"Jobs": {"12": {"Resource_List": {"walltime": 5}}}}'
UNKNOWN = "qstat: Unknown Job Id 12.server\n"


@pytest.mark.parametrize("output", ["", "{", "[]", '{"Jobs": {}}', '{"Jobs": {"12": {}}}', NO_START, UNKNOWN])
def test_pbs_does_not_always_know(output: str) -> None:
    assert pbs(output) is None


def test_times_as_people_read_them() -> None:
    now = time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1))
    assert [walltime.duration(s) for s in (0, 5, 61, 599, 3600, 7800, 90_000, -3)] == [
        *("0 s", "5 s", "1 min 1 s", "9 min 59 s", "1 h", "2 h 10 min", "1 d 1 h", "0 s")
    ]
    assert walltime.duration(3540) == "59 min"
    assert walltime.moment(now + 86400, now) == "2026-11-25 12:00"
