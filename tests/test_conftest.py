"""How the tests are run must not decide what they find."""

from __future__ import annotations

import os
import re
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


def test_one_process_runs_all_tests_of_a_file(root: Path) -> None:
    """They share clusters, and some go on where the one before has stopped."""
    files = ("tests/test_numerals.py", "tests/test_reference.py")
    options = ["-v", "-n", "2", "--dist", "loadscope", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files], cwd=root, capture_output=True, text=True, timeout=100
    )
    ran = re.findall(r"\[(gw\d)\] .*PASSED (\S+)::", done.stdout)
    processes = {file: {process for process, of in ran if of == file} for file in files}
    assert [len(processes[file]) for file in files] == [1, 1], done.stdout
    assert processes[files[0]] != processes[files[1]]
