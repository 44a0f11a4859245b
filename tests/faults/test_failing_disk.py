"""The disk fails at each call in turn: nothing that was acknowledged is lost; service resumes when there is room.

``IPMPI_DISK_STEP=1`` tries every call. Wall-clock time that jumps is tested here as well, by the same means.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.figures import report

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STEP = int(os.environ.get("IPMPI_DISK_STEP", "7"))

pytestmark = pytest.mark.timeout(120 + 400 // STEP)


def with_library(library: Path, *arguments: str, timeout: float = 300) -> str:
    """What a Python program with that library prints."""
    environ = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environ, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def failing(library: Path, folder: Path, error: int, times: int) -> dict[str, Any]:
    program = str(HERE / "journal_on_failing_disk.py")
    text = with_library(library, program, str(folder), str(library), str(error), str(times), str(STEP))
    found: dict[str, Any] = json.loads(text)
    assert found["calls"] > 100, "the library sees the calls"
    return found


FAULTS = {
    "no room once": (errno.ENOSPC, 1),
    "no room for a while": (errno.ENOSPC, 8),
    "over quota": (errno.EDQUOT, 8),
    "input/output error once": (errno.EIO, 1),
    "input/output errors": (errno.EIO, 1_000_000),
    "read-only": (errno.EROFS, 1_000_000),
    "short writes": (-1, 50),
}


@pytest.mark.parametrize("what", FAULTS)
def test_the_disk_fails_at_any_call(library: Path, tmp_path: Path, what: str) -> None:
    error, times = FAULTS[what]
    found = failing(library, tmp_path / "journals", error, times)
    outcomes: dict[str, int] = {}
    for run in found["runs"]:
        outcomes[run["outcome"]] = outcomes.get(run["outcome"], 0) + 1
        # What was acknowledged is there. Of one transaction nobody knows, if it was the sync that failed.
        assert run["outcome"] == "whole" or (run["outcome"] == "unclear" and "JournalDamaged" in run["errors"]), (
            run
        )
        assert run["acknowledged"] == 12 or run["errors"], f"refused without a word: {run}"
    resumed = [run for run in found["runs"] if "JournalFull" in run["errors"] and run["acknowledged"] == 12]
    if error in (errno.ENOSPC, errno.EDQUOT):
        assert resumed, "tasks are accepted again when there is room"
    if error < 0:
        assert all(run["acknowledged"] == 12 for run in found["runs"])
    report(
        f"failing disk, {what}", calls=found["calls"], runs=len(found["runs"]), resumed=len(resumed), **outcomes
    )


# --- the wall clock --------------------------------------------------------------------------------------------

JUMPS = """
import ctypes, sys, threading, time
from tests.in_process import in_process
library = ctypes.CDLL(sys.argv[1])
with in_process(1) as cluster:
    mec, tc = cluster.mec(), cluster.tc()
    before = time.time()
    for seconds in (3600, -3600, 40_000_000, 0):
        library.clock_shift(ctypes.c_long(seconds))
        assert abs(time.time() - before - seconds) < 300
        mec.execute("x = 1")
        assert tc.submit(abs, -7).result(30) == 7
        pause = threading.Event()
        pause.wait(1.0)  # leases, silence and pings are looked at meanwhile
        assert mec.get_ids() == [0]
    print("all there")
"""


def test_a_wall_clock_that_jumps_ends_nothing(library: Path) -> None:
    assert with_library(library, "-c", JUMPS, str(library), timeout=100) == "all there\n"


WALL_CLOCK = {
    "ipmpi/environment/walltime.py": "the end of a job is a time of day",
    "ipmpi/steering/attaching.py": "the same",
    "ipmpi/cli/ipengine.py": "the same",
    "ipmpi/cli/askjob.py": "the same",
    "ipmpi/cli/ipcontroller.py": "validity of certificates",
    "ipmpi/engine/agent/nodelinks.py": "validity of certificates",
    "ipmpi/transport/dial/lanes.py": "validity of certificates",
    "ipmpi/transport/dial/negotiate.py": "validity of certificates",
    "ipmpi/transport/dial/reach.py": "validity of certificates",
    "ipmpi/cli/supervise.py": "a time that is shown",
    "ipmpi/cli/remote.py": "a time that is shown",
    "ipmpi/cli/explain.py": "a time that is shown",
    "ipmpi/cli/health.py": "clocks of machines are compared",
    "ipmpi/client/engines/snapshots.py": "a time that is shown",
    "ipmpi/client/session/recentoutputs.py": "a time that is shown",
    "ipmpi/client/session/calltimes.py": "a time that is shown",
    "ipmpi/controller/service.py": "a time that is shown",
    "ipmpi/controller/describe.py": "a time that is shown",
    "ipmpi/controller/clienthistory.py": "a time that is shown",
    "ipmpi/controller/commands/history.py": "a time that is shown",
    "ipmpi/bench/limits.py": "the dates of a certificate",
    "ipmpi/controller/namedtasks.py": "results are kept for days, and across restarts of the controller",
    "ipmpi/cli/sharing.py": "a time that is shown",
    "ipmpi/cli/grantsfile.py": "what has passed while the machine was off",
    "ipmpi/client/cache/store.py": "which results were not used for the longest time",
    "ipmpi/launch/doctor/engine_info.py": "clocks of machines are compared",
    "ipmpi/launch/doctor/mpi_probe.py": "clocks of machines are compared",
    "ipmpi/launch/doctor/mpi_run.py": "seconds between two processes, shown",
    "ipmpi/launch/cluster/records.py": "a time that is shown, and the age of a file",
}
"""Files that read the wall clock, and why. Deadlines are counted by a clock that nobody sets."""


def reads_wall_clock(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in (("time", "time"), ("datetime", "now"))
        for node in ast.walk(tree)
    )  # fmt: skip


def test_no_deadline_is_a_time_of_day() -> None:
    """Whoever adds to this list has to say why a clock that is set forward or back does no harm."""
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "ipmpi").rglob("*.py") if reads_wall_clock(path)}
    assert found - set(WALL_CLOCK) == set()
