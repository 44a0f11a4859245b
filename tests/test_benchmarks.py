"""``python -m benchmarks``: ratios, other systems that fail or hang, and a real comparison."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import baselines
from benchmarks.baselines import BaselineFailed
from benchmarks.ratios import ratio_table, ratios
from ipmpi.bench import machine
from ipmpi.bench.figures import Figure, from_times, single
from ipmpi.launch.processes.mpi import find_mpi

ROOT = Path(__file__).parents[1]


def test_ratios_say_how_many_times_better_ours_is() -> None:
    figures = [
        single("one", "execute", "ms", 0.5),
        single("pull", "pull", "GB/s", 1.0),
        single("own", "only ours", "ms", 1.0),
        single("one", "execute", "ms", 2.0)._replace(system="peer"),
        single("pull", "pull", "GB/s", 0.25)._replace(system="peer"),
        single("own", "another unit", "s", 1.0)._replace(system="peer"),
    ]
    found = ratios(figures)
    assert {(r.key, r.peer): r.times for r in found} == {("one", "peer"): 4.0, ("pull", "peer"): 4.0}
    assert [line.split() for line in ratio_table(found).splitlines()] == [
        ["ipmpi", "is", "better", "by", "peer"], ["execute", "4", "x"], ["pull", "4", "x"]
    ]  # fmt: skip
    assert ratio_table([]) == ""


def test_a_peer_that_fails_tells_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        baselines, "_command", lambda *_: ([sys.executable, "-c", "raise SystemExit('no scheduler here')"], {})
    )
    with pytest.raises(BaselineFailed, match=r"(?s)dask\.distributed ended with exit code 1.*no scheduler here"):
        baselines.measure("dask.distributed", ["steer"], 2, 1000, 1)


def test_a_peer_that_hangs_is_ended_with_all_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # setsid, as some peers do: it is not in the group of what was started
    pid_file = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 100' & wait"
    monkeypatch.setattr(baselines, "_command", lambda *_: (["sh", "-c", script], {}))
    monkeypatch.setattr(baselines, "LIMIT", 1.0)
    with pytest.raises(BaselineFailed, match=r"ipyparallel was given up after 1 s"):
        baselines.measure("ipyparallel", ["steer"], 2, 1000, 1)
    pid, end = int(pid_file.read_text()), time.monotonic() + 5
    while machine.resident_bytes(pid):  # SIGKILL takes its time; what is dead has no memory
        assert time.monotonic() < end, "it outlives the measurement"


def test_figures_survive_the_way_from_a_peer() -> None:
    figure = from_times("tasks", "map", "tasks/s", [0.5], 10)
    assert Figure(**{**json.loads(json.dumps(figure._asdict())), "system": "ipmpi"}) == figure


@pytest.mark.slow
@pytest.mark.mpi
def test_another_system_does_the_same_work(tmp_path: Path, need: Any) -> None:
    need("an mpiexec", find_mpi())
    record = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "steer", "-n", "2", "--repeat", "1", "--json", str(record)],
        cwd=ROOT, env={**os.environ, "IPYTHONDIR": str(tmp_path)}, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ipmpi is better by" in done.stdout
    ratios = json.loads(record.read_text())["ratios"]
    assert {"execute_one", "execute_all"} <= {each["key"] for each in ratios if each["peer"] == "mpi4py.futures"}
