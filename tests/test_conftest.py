"""How the tests are run must not decide what they find."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = (
    "tests/engine/mpi/test_polling.py::test_interrupts_are_heard",
    "tests/cli/test_ipcluster_cluster.py::test_every_stop_signal_ends_all_processes",
)


def test_interrupts_reach_tests_that_run_in_the_background(root: Path) -> None:
    def as_a_shell_does() -> None:  # for: nohup make test &
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(
        command, cwd=root, env={**os.environ}, preexec_fn=as_a_shell_does, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
