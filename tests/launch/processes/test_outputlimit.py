"""What ranks print does not fill the disk."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from ipmpi import limits
from ipmpi.launch.cluster.local import Processes
from ipmpi.launch.processes import outputlimit
from ipmpi.launch.processes.outputlimit import BUSY, IDLE, OutputLimit
from ipmpi.launch.processes.process import ChildProcess


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BYTES", 100_000)
    monkeypatch.setattr(outputlimit, "KEPT", 1_000)


def test_beginning_and_end_stay_and_the_cut_is_told(tmp_path: Path) -> None:
    path = tmp_path / "engines.log"
    path.write_bytes(b"first\n" + b"x" * 150_000 + b"\nlast\n")
    with path.open("ab") as writer:
        OutputLimit(path).look(0.0)
        writer.write(b"later\n")
    text = path.read_text()
    assert text.startswith("first\n")
    assert text.endswith("\nlast\nlater\n")
    assert "\n... [ipcluster: 148,012 bytes of output were cut here, as the file had 150,012] ...\n" in text
    assert len(text) < 2_200


def test_a_file_that_is_short_enough_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "engines.log"
    path.write_bytes(b"x" * 100_000)
    OutputLimit(path).look(0.0)
    assert path.read_bytes() == b"x" * 100_000


def test_a_file_that_grows_is_looked_at_more_often(tmp_path: Path) -> None:
    path = tmp_path / "engines.log"
    limit = OutputLimit(path)
    limit.look(0.0)
    assert limit.due == IDLE
    path.write_bytes(b"x" * 50_000)
    limit.look(IDLE - 1)
    assert limit.due == IDLE
    limit.look(IDLE)
    assert limit.due == IDLE + BUSY
    limit.look(IDLE + BUSY)
    assert limit.due == IDLE + BUSY + IDLE


def test_a_program_that_prints_without_end(tmp_path: Path) -> None:
    class Printing(Processes):
        def check(self) -> None: ...
        def said(self) -> list[str]:
            return []

        def start(self, why: str = "") -> None:
            del why
            source = "import os\nwhile True: os.write(1, b'a line from a library in C\\n' * 100)"
            self.started.append(ChildProcess.start("printing", [sys.executable, "-c", source], self.output))

    launch = Printing(1, tmp_path, "1", waits=False)
    assert launch.next_look(starting=False) is None
    launch.start()
    now, cuts, deadline = 0.0, 0, time.monotonic() + 30
    try:
        while cuts < 3:
            assert time.monotonic() < deadline
            due = launch.next_look(starting=False)
            assert due is not None
            if launch.output.stat().st_size > limits.LOG_BYTES:
                cuts += 1
                now = due
            list(launch.news(now, starting=False))
    finally:
        (child,) = launch.started
        child.send(9)
    while child.exit_code() is None:
        os.sched_yield()
    list(launch.news(now + IDLE, starting=False))
    assert launch.output.stat().st_size < limits.LOG_BYTES + 10_000
    assert "bytes of output were cut here" in launch.output.read_text()
