"""``python -m benchmarks.growth``, and the nodes that it puts ranks on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import growth, growthtable, nodes
from benchmarks.slownetwork import Switch
from ipmpi.launch.processes.mpi import find_mpi

ROOT = Path(__file__).parents[1]


def test_a_switch_learns_who_is_where_and_keeps_each_frame_for_a_while() -> None:
    switch = Switch(0.5, [1, 2, 3])
    everybody, one, two = b"\xff" * 6, b"\x02" + b"\x01" * 5, b"\x02" + b"\x02" * 5
    asks, answers = everybody + one + b"who is there", one + two + b"I am"
    assert switch.next_due() is None
    switch.came(1, asks, 10.0)
    switch.came(2, answers, 10.1)
    assert (switch.due(10.4), switch.next_due()) == ([], 10.5)
    assert switch.due(10.5) == [([2, 3], asks)]
    assert switch.due(99.0) == [([1], answers)]
    switch.came(3, two + one + b"to two", 99.0)
    assert switch.due(100.0) == [([2], two + one + b"to two")]


def grown(*words: str, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """What ``python -m benchmarks.growth`` measures, and the table that it prints."""
    record = folder / "growth.json"
    command = [sys.executable, "-m", "benchmarks.growth", *words, "--repeat", "1", "--idle", "0.5"]
    command += ["--json", str(record), "--plot", str(folder / "growth.svg")]
    environ = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    return json.loads(record.read_text())["rows"], done.stdout


@pytest.mark.skipif(find_mpi() is None, reason="there is no mpiexec")
def test_growth_is_measured_printed_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows, table = grown("--ranks", "1,2", folder=tmp_path)
    assert [(row["ranks"], row["nodes"]) for row in rows] == [(1, 1), (2, 1)]
    for key in growthtable.COLUMNS.values():
        assert all(row[key] >= 0 for row in rows), key
    assert all(row["rank_mb"] > 5 and row["tasks_per_s"] > 100 for row in rows)
    assert [line.split()[0] for line in table.splitlines() if line.startswith("ranks")] == ["ranks"]
    assert "no-op tasks/s" in table
    assert "<svg" in (tmp_path / "growth.svg").read_text()


@pytest.mark.skipif(find_mpi() is None, reason="there is no mpiexec")
@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_nodes_have_networks_of_their_own(tmp_path: Path, delay: float) -> None:
    try:
        nodes.check()
    except nodes.NoNodes as error:
        pytest.skip(str(error))
    rows, table = grown("--ranks", "2", "--nodes", "2", "--delay", str(delay), folder=tmp_path)
    assert [(row["ranks"], row["nodes"]) for row in rows] == [(2, 2)]
    assert "2 nodes" in table
    if delay:  # there and back to the first, and to the second by way of it
        assert rows[0]["execute_one_ms"] > 2e3 * delay
        assert rows[0]["execute_all_ms"] > 4e3 * delay


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--ranks", "3", "--nodes", "2"], "--nodes 2 has to divide each number of --ranks"),
        (["--delay", "0.1"], "--delay is between nodes"),
        (["--ranks", "0"], "invalid numbers value"),
        (["--nodes", "-1"], "--nodes is a number of nodes"),
        (["--nodes", "1", "--delay", "-1"], "--delay is a number of seconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_growth_that_cannot_be_measured_is_refused(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        growth.main(words)
    assert why in capsys.readouterr().err
