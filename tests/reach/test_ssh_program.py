"""A program in C on a cluster, steered by a script and by a notebook on a laptop, through a real sshd."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.native.conftest import toolchain_named as toolchain_named
from tests.native.heatsolution import field, solution
from tests.native.platenotebook import run_plate
from tests.native.toolchains import EXAMPLES, ROOT, Toolchain
from tests.reach.conftest import Server
from tests.security.cluster import controller

SECONDS = 60
FOR_EVER = 10**9


@pytest.mark.slow
@pytest.mark.mpi
def test_a_program_in_c_is_steered_from_a_laptop(
    toolchain_named: Callable[[str], Toolchain], sshd: Server, login: str, tmp_path: Path
) -> None:
    chain = toolchain_named("debian")
    words = chain.command(2, chain.c(EXAMPLES / "heat.c", tmp_path / "heat"), FOR_EVER, tmp_path / "T.bin")
    laptop = {**os.environ, "IPYTHONDIR": str(tmp_path / "laptop"), "PYTHONPATH": str(ROOT)}
    with controller(sshd.home) as running, subprocess.Popen(words, env=chain.environ(sshd.home)) as program:
        try:
            running.wait_engines(2)
            script = [sys.executable, str(EXAMPLES / "steer_heat.py"), "0.5", login]
            done = subprocess.run(script, env=laptop, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert not done.returncode, done.stderr
            assert program.wait(SECONDS) == 0
        finally:
            program.terminate()
    found = re.search(r"changed before step (\d+), ended before step (\d+)\n", done.stdout)
    assert found, done.stdout
    changed_at, ended_at = int(found[1]), int(found[2])
    assert np.array_equal(field(tmp_path / "T.bin"), solution(ended_at, changed_at, 0.5))


@pytest.mark.slow
@pytest.mark.mpi
def test_the_notebook_steers_a_program_in_c_from_a_laptop(
    toolchain_named: Callable[[str], Toolchain],
    need: Callable[[str, object], None],
    sshd: Server,
    login: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From its first cell to its last; the laptop has a folder of its own, without the furls of the cluster."""
    chain = toolchain_named("debian")
    words = chain.command(2, chain.c(EXAMPLES / "heat.c", tmp_path / "heat"), FOR_EVER)
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    with controller(sshd.home) as running, subprocess.Popen(words, env=chain.environ(sshd.home)) as program:
        try:
            running.wait_engines(2)
            monkeypatch.setenv("IPYTHONDIR", str(laptop))
            monkeypatch.setenv("PYTHONPATH", str(ROOT))
            shown = run_plate(need, laptop, login)
            assert program.wait(SECONDS) == 0
        finally:
            program.terminate()
    assert shown == [
        "('heat', 2, 1.0)",
        "((64, 64), dtype('float64'))",
        "picture",
        "['execute', 'execute', 'set']",
    ]
