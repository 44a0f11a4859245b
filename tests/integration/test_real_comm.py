"""Communicators of tasks on several ranks, under each MPI: as mpi4py's, except that a failure ends every wait."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from real_clusters import Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("teams_by_themselves.py")
LEFTOVERS = Path(__file__).with_name("leftovers_by_themselves.py")
LIMIT = 60.0

Run = Callable[..., str]


@pytest.fixture
def run(flavour: Flavour, tmp_path: Path) -> Run:
    """Run one part of the program on so many ranks; what it printed."""

    def on(count: int, what: str = "", program: Path = PROGRAM) -> str:
        command = [flavour.launcher, *flavour.options, "-n", str(count), flavour.python, str(program), what]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **flavour.environ}
        process = subprocess.Popen(
            [*command, str(tmp_path)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            printed, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.terminate()
            pytest.fail(f"still running: {process.communicate()[0]}")
        assert process.returncode == 0, printed
        assert printed.splitlines()[-1] == "fine", printed
        return printed

    return on


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_call_gives_what_mpi4py_gives(run: Run, count: int) -> None:
    run(count, "same")


def test_a_thousand_failures(run: Run) -> None:
    print(run(4, "rounds"))


@pytest.mark.parametrize("count", [1, 4])
def test_overlapping_groups(run: Run, count: int) -> None:
    run(count, "groups")


def test_running_out_of_communicators_is_explained(flavour: Flavour, run: Run) -> None:
    if flavour.name != "mpich":
        pytest.skip("Open MPI has room for more than anybody would wait for")
    run(3, "exhaust")


def test_interrupts_get_through(run: Run) -> None:
    run(3, "interrupts")


def test_memory_that_mpi_uses_is_kept(run: Run) -> None:
    run(3, "memory")


def test_polling_is_not_slow(run: Run) -> None:
    print(run(4, "speed"))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_what_a_task_leaves_does_not_reach_the_next(run: Run, count: int) -> None:
    print(run(count, program=LEFTOVERS))
