"""Programs with the bridge that nobody steers, or that cannot be steered: they run as ever."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from heatsolution import field, solution
from toolchains import EXAMPLES, MPIS, checked

if TYPE_CHECKING:
    from toolchains import Toolchain

pytestmark = [pytest.mark.slow, pytest.mark.mpi]
WITHOUT_IPMPI = os.path.realpath(sys.executable)
Run = Callable[..., str]
NOWHERE = "/nowhere/libpython3.so"

TICKS = """
#include <ipmpi_steer.h>
#include <cstdio>
#include <vector>
int main()
{
    std::vector<double> T(12);
    const std::int64_t shape[] = {3, 4}, count = 2000000;
    MPI_Init(nullptr, nullptr);
    ipmpi_attach(MPI_COMM_WORLD);
    if (ipmpi_array("T", T.data(), 2, shape, nullptr, IPMPI_DOUBLE)) return 1;
    double began = MPI_Wtime();
    for (std::int64_t each = 0; each < count; each++)
        if (ipmpi_tick(each)) break;
    std::printf("%.1f ns\\n", (MPI_Wtime() - began) / count * 1e9);
    MPI_Finalize();
}
"""


@pytest.fixture(scope="module")
def debian(toolchain_named: Callable[[str], Toolchain]) -> Toolchain:
    return toolchain_named("debian")


@pytest.fixture(scope="module")
def heat(
    toolchain_named: Callable[[str], Toolchain], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The example in C, compiled with an MPI."""

    @functools.cache
    def built(name: str) -> Path:
        return toolchain_named(name).c(EXAMPLES / "heat.c", tmp_path_factory.mktemp(name) / "heat")

    return built


@pytest.fixture
def run(toolchain_named: Callable[[str], Toolchain], heat: Callable[[str], Path], tmp_path: Path) -> Run:
    """Runs 50 steps of it: ``run(mpi, ranks, file, ...)`` returns what it prints."""
    return lambda mpi, n, *words, **environ: toolchain_named(mpi).run(
        n, heat(mpi), 50, *words, home=tmp_path, **environ
    )


@pytest.mark.parametrize("mpi", MPIS)
def test_without_python_a_program_runs_as_ever(mpi: str, run: Run, tmp_path: Path) -> None:
    said = run(mpi, 3, "T.bin", 20, 2.5, IPMPI_LIBPYTHON=NOWHERE)
    assert np.array_equal(field(tmp_path / "T.bin"), solution(50, 20, 2.5))
    assert said.count("ipmpi: this run cannot be steered: Python cannot be loaded: /nowhere/libpython3.so: ") == 1
    assert said.count("\n") == 1


@pytest.mark.parametrize("mpi", MPIS)
def test_an_mpi4py_for_another_mpi_is_not_loaded(mpi: str, run: Run, tmp_path: Path) -> None:
    other, name = ("mpich", "Open MPI") if mpi == "debian" else ("openmpi", "MPICH Version")
    said = run(mpi, 2, "T.bin", MPI4PY_MPIABI=other)
    assert f"cannot be steered: the program runs on {name}" in said
    assert f"as MPI4PY_MPIABI={other} says" in said
    assert np.array_equal(field(tmp_path / "T.bin"), solution(50))


def test_switched_off_it_loads_nothing_and_says_nothing(run: Run, tmp_path: Path) -> None:
    assert not run("debian", 2, "T.bin", IPMPI_STEERING="off", IPMPI_LIBPYTHON=NOWHERE)
    assert np.array_equal(field(tmp_path / "T.bin"), solution(50))


def test_a_python_without_ipmpi_is_said_to_have_none(run: Run, tmp_path: Path) -> None:
    said = run("debian", 2, "T.bin", IPMPI_PYTHON=WITHOUT_IPMPI, PYTHONPATH="")
    why = "Python cannot load ipmpi (ModuleNotFoundError: No module named 'ipmpi')"
    assert said.count(f"cannot be steered: {why}. Install it there, or set IPMPI_PYTHON to an interpreter") == 1
    assert np.array_equal(field(tmp_path / "T.bin"), solution(50))


def test_where_one_rank_has_no_python_no_other_one_waits(
    debian: Toolchain, heat: Callable[[str], Path], tmp_path: Path
) -> None:
    script = tmp_path / "rank"
    script.write_text(f'#!/bin/sh\n[ $OMPI_COMM_WORLD_RANK = 1 ] && export IPMPI_LIBPYTHON={NOWHERE}\nexec "$@"\n')
    script.chmod(0o755)
    said = debian.run(2, script, heat("debian"), 50, "T.bin", home=tmp_path)
    assert said.count("this run cannot be steered: Python cannot be loaded") == 1
    assert np.array_equal(field(tmp_path / "T.bin"), solution(50))


def test_in_cpp_a_tick_without_anybody_costs_less_than_a_microsecond(
    debian: Toolchain, tmp_path: Path, need: Callable[[str, object], None]
) -> None:
    need("no C++ compiler; apt-get install g++", shutil.which("g++"))
    (tmp_path / "ticks.cpp").write_text(TICKS)
    flags, libs, bridge = debian.config("--cflags"), debian.config("--libs"), tmp_path / "bridge.o"
    checked([debian.mpicc, *flags, *debian.config("--sources"), "-O2", "-c", "-o", str(bridge)])
    words = ["-std=c++11", "-pedantic-errors", "-Wall", "-Wextra", "-Wno-cast-function-type", *flags]
    checked(
        [debian.mpicxx, *words, str(tmp_path / "ticks.cpp"), str(bridge), *libs, "-o", str(tmp_path / "ticks")]
    )
    assert float(debian.run(1, tmp_path / "ticks", home=tmp_path).split()[0]) < 1000


def test_fortran_computes_the_same(debian: Toolchain, tmp_path: Path) -> None:
    program = debian.fortran(EXAMPLES / "heat.f90", tmp_path / "heat")
    said = debian.run(3, program, 50, "T.bin", 20, 2.5, home=tmp_path)
    assert not said
    assert np.array_equal(field(tmp_path / "T.bin"), solution(50, 20, 2.5))


def test_cmake_finds_the_package_and_builds_c_and_fortran(
    debian: Toolchain, tmp_path: Path, need: Callable[[str, object], None]
) -> None:
    need("no cmake; apt-get install cmake", shutil.which("cmake"))
    command = tmp_path / "ipmpi-steer-config"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH={EXAMPLES.parents[1]} exec {debian.python} -m ipmpi.cli.steerconfig "$@"\n'
    )
    command.chmod(0o755)
    where = [f"-Dipmpi_steer_DIR={debian.config('--cmakedir')[0]}", f"-DIPMPI_STEER_CONFIG={command}"]
    environ = {**os.environ, "CC": "gcc", "FC": "gfortran"}
    build = tmp_path / "build"
    for words in (["-S", EXAMPLES, "-B", build, *where], ["--build", build]):
        done = subprocess.run(["cmake", *words], env=environ, capture_output=True, text=True, timeout=100)
        assert not done.returncode, done.stdout + done.stderr
    for name in ("heat_c", "heat_fortran"):
        debian.run(2, build / name, 50, f"{name}.bin", home=tmp_path)
        assert np.allclose(field(tmp_path / f"{name}.bin"), solution(50), rtol=1e-12, atol=0)


def test_a_rank_that_attaches_in_a_thread_does_not_keep_the_others_waiting(
    toolchain_named: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    chain = toolchain_named("debian")
    program = chain.c(Path(__file__).with_name("one_in_a_thread.c"), tmp_path / "one", "-pthread")
    said = chain.run(3, program, home=tmp_path)
    sentence = "ipmpi_attach was called in another thread than the one that has called MPI_Init"
    assert said == f"ipmpi: {sentence}; the program goes on\n"
