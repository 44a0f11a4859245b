"""ipcluster with the real controller and the real engines."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi.launch.processes.mpi import find_mpi

ROOT = Path(__file__).parents[2]
THERE = all(importlib.util.find_spec(f"ipmpi.cli.{name}") for name in ("ipcontroller", "ipengine"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not THERE, reason="controller or engine is not there")]


@pytest.mark.parametrize(
    "mpi",
    ["none", pytest.param("auto", marks=pytest.mark.skipif(find_mpi() is None, reason="no mpiexec here"))],
)
def test_up_and_down_again(tmp_path: Path, mpi: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ipmpi.cli.ipcluster", "-n", "2", "--mpi", mpi],
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if line.startswith("kill -INT"):
                process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, text
    assert "Your cluster is up and running." in text
    assert "OK: All processes cleaned up." in text
