"""The parts of polled communicators that need no MPI; tests/integration/test_real_comm.py has the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi.engine.mpi.pickled import fold, fold_up_to


def in_brackets(a: str, b: str) -> str:
    return f"({a}{b})"


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, "0"),
        (2, "(01)"),
        (3, "((01)2)"),
        (4, "((01)(23))"),
        (6, "(((01)(23))(45))"),
        (7, "(((01)(23))((45)6))"),
    ],
)
def test_fold_combines_as_a_binomial_tree(count: int, expected: str) -> None:
    items = [str(rank) for rank in range(count)]
    assert fold(items, in_brackets) == expected
    assert len(items) == count


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, "0"), (2, "(01)"), (3, "((01)2)"), (4, "((01)(23))"), (7, "((0123)((45)6))"), (8, "((0123)((45)(67)))")],
)
def test_fold_up_to_combines_as_recursive_doubling(count: int, expected: str) -> None:
    items = [str(rank) for rank in range(count)]
    assert fold_up_to(items, in_brackets) == expected.replace("0123", "(01)(23)")


def test_importing_them_loads_no_mpi(root: Path) -> None:
    code = "import sys, ipmpi.engine.mpi.comm; print({'mpi4py', 'mpi4py.MPI', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
