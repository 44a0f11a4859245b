"""Compiles programs in C, C++ and Fortran as the pages say, and runs them."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

MPIS = [pytest.param("debian", id="debian"), pytest.param("mpich", id="mpich", marks=pytest.mark.mpich)]
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "steering"
STRICT = ("-O2", "-Wall", "-Wextra", "-Werror")
SAME_NUMBERS = ("-ffp-contract=off",)
"""No processor computes a * b + c with one rounding, and another one with two."""


def checked(words: Sequence[str], **options: object) -> str:
    """What a command prints, which has to succeed."""
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100,
        check=False, **options,
    )  # type: ignore[call-overload] # fmt: skip
    assert not done.returncode, f"{' '.join(words)}\n{done.stdout}"
    return str(done.stdout)


@functools.cache
def config(python: str, options: tuple[str, ...]) -> str:
    """What ``ipmpi-steer-config`` of this interpreter prints."""
    return checked([python, "-m", "ipmpi.cli.steerconfig", *options], env={**os.environ, "PYTHONPATH": str(ROOT)})


@dataclass(frozen=True)
class Toolchain:
    """An MPI with compilers, and the Python that its programs load."""

    python: str
    mpicc: str
    mpicxx: str
    mpifort: str
    launcher: tuple[str, ...]
    launch_environ: Mapping[str, str]

    def works(self) -> bool:
        """Whether the C compiler can be used."""
        try:
            return not subprocess.run([self.mpicc, "--version"], capture_output=True, check=False).returncode
        except OSError:
            return False

    def config(self, *options: str) -> list[str]:
        """What ``ipmpi-steer-config`` says."""
        return config(self.python, options).split()

    def libpython(self) -> list[str]:
        """The library of Python, or an empty list."""
        return self.config("--libpython")

    def c(self, source: Path, program: Path, *options: str) -> Path:
        """Compile a program in C."""
        flags = [*STRICT, *SAME_NUMBERS, "-std=c99", "-pedantic", *options, *self.config("--cflags")]
        checked([self.mpicc, *flags, str(source), *self.config("--sources", "--libs"), "-o", str(program)])
        return program

    def fortran(self, source: Path, program: Path, *options: str) -> Path:
        """Compile a program in Fortran."""
        bridge = program.with_suffix(".bridge.o")
        checked([self.mpicc, *STRICT, *self.config("--cflags", "--sources"), "-c", "-o", str(bridge)])
        flags = [*STRICT, *SAME_NUMBERS, "-std=f2018", "-J", str(program.parent), *options]
        files = [*self.config("--fortran-sources"), str(source), str(bridge)]
        checked([self.mpifort, *flags, *files, *self.config("--libs"), "-o", str(program)])
        return program

    def command(self, n: int, *words: object) -> list[str]:
        """What starts ``n`` ranks."""
        return [*self.launcher, "-n", str(n), *map(str, words)]

    def environ(self, home: Path, **more: str) -> dict[str, str]:
        """Variables for ranks that find no cluster but one in ``home``."""
        ours = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(home), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **self.launch_environ, **ours, **more}

    def run(self, n: int, *words: object, home: Path, **environ: str) -> str:
        """What ``n`` ranks print."""
        return checked(self.command(n, *words), env=self.environ(home, **environ), cwd=home)
