"""The heat equation in Python, C and Fortran, steered while it runs: the same physics, steered in the same way."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ipmpi.client import Simulation
from ipmpi.errors import CompositeError

INTEGRATION = Path(__file__).resolve().parents[1] / "integration"
sys.path.insert(0, str(INTEGRATION))
from heatsolution import field, solution  # noqa: E402 - beside this file
from platenotebook import run_plate  # noqa: E402 - beside this file
from real_clusters import Cluster, Flavour  # noqa: E402 - found through the line above
from toolchains import EXAMPLES, ROOT, Toolchain, checked  # noqa: E402 - beside this file

if TYPE_CHECKING:
    from subprocess import Popen

pytestmark = [pytest.mark.slow, pytest.mark.mpi]
BAD = Path(__file__).with_name("bad.c")
STEERING = EXAMPLES / "steer_heat.py"
SAID = r"""[\w.]+ is at step (\d+), nu = 1\.0
.*
40 steps with nu = 0\.5 later:
.*
changed before step (\d+), ended before step (\d+)
"""
RANKS, FEW = 8, 4
FOR_EVER = 10**9
TRAPS = "-ffpe-trap=invalid,zero,overflow"
ENDS_WITHIN = 30


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Cluster]:
    """A controller for programs that are not started by a flavour of the tests."""
    cluster = Cluster(tmp_path / "c", Flavour("none", sys.executable, ""))
    try:
        yield cluster
    finally:
        cluster.stop()


def launch(cluster: Cluster, chain: Toolchain, ranks: int, *words: object, **environ: str) -> Popen[bytes]:
    """Start a program that finds this controller; returns when its ranks are there."""
    process = cluster.launch(chain.command(ranks, *words), **chain.environ(cluster.home, **environ))
    cluster.wait_for_engines(ranks)
    return process


def simulation(cluster: Cluster) -> Simulation:
    return Simulation(cluster.files["multiengine_furl_file"])


@pytest.fixture(params=["python", "c", "fortran"])
def heat(request: pytest.FixtureRequest, toolchain_named: Callable[[str], Toolchain], tmp_path: Path) -> list[Any]:
    """The program in each language: its ranks, its toolchain, and the words that start it."""
    if request.param == "python":
        wheel = toolchain_named("wheel")
        return [FEW, wheel, wheel.python, EXAMPLES / "heat.py"]
    chain = toolchain_named("debian")
    if request.param == "c":
        return [RANKS, chain, chain.c(EXAMPLES / "heat.c", tmp_path / "heat")]
    # With these traps, a division by zero in a command would end the program if the bridge let it.
    return [FEW, chain, chain.fortran(EXAMPLES / "heat.f90", tmp_path / "heat", TRAPS)]


def test_a_change_in_flight_is_as_if_it_had_been_programmed(heat: list[Any], controller: Cluster) -> None:
    ranks = heat.pop(0)
    owned = f"{64 // ranks + 2}"
    program = launch(controller, heat[0], ranks, *heat[1:], FOR_EVER, controller.home / "T.bin")
    with simulation(controller) as sim:
        # Where an error of arithmetic in a command would end the program, see TRAPS.
        shapes = sim.engines.execute("import numpy as np; bad = 1 / np.zeros(1); print(*T.shape)")
        assert {each["stdout"] for each in shapes} in ({f"{owned} 66\n"}, {f"66 {owned}\n"})
        step = sim.pause()
        assert np.array_equal(sim.engines.array("T").gather(), solution(step)), "each block is where it belongs"
    said = checked([sys.executable, str(STEERING), "0.5"], env=controller.environ)
    found = re.fullmatch(SAID, said, re.DOTALL)
    assert found, said
    assert program.wait(ENDS_WITHIN) == 0, controller.output()
    changed_at, ended_at = int(found[2]), int(found[3])
    assert int(found[1]) == changed_at == ended_at - 40
    assert np.array_equal(field(controller.home / "T.bin"), solution(ended_at, changed_at, 0.5))


@pytest.mark.parametrize("heat", ["c", "fortran"], indirect=True)
def test_the_notebook_steers_each_language(
    heat: list[Any], controller: Cluster, need: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the pages, which steers the program in Python there."""
    ranks = heat.pop(0)
    program = launch(controller, heat[0], ranks, *heat[1:], FOR_EVER)
    monkeypatch.setenv("IPYTHONDIR", str(controller.home))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shown = run_plate(need, controller.home)
    assert program.wait(ENDS_WITHIN) == 0, controller.output()
    plate = "((64, 64), dtype('float64'))"
    assert shown == [f"('heat', {ranks}, 1.0)", plate, "picture", "['execute', 'execute', 'set']"]


def test_with_mpich_too_and_a_record_repeats_the_run(
    toolchain_named: Callable[[str], Toolchain], controller: Cluster, tmp_path: Path
) -> None:
    chain = toolchain_named("mpich")
    heat = chain.c(EXAMPLES / "heat.c", tmp_path / "heat")
    program = launch(controller, chain, 2, heat, FOR_EVER, tmp_path / "T.bin")
    with simulation(controller) as sim:
        sim.pause()
        sim.engines.execute("T[1, 1:-1] = 2")
        sim.nu = 0.5
        sim.record().save(tmp_path / "record")
        ended_at = sim.stop()
    assert program.wait(ENDS_WITHIN) == 0, controller.output()
    words = (heat, ended_at, tmp_path / "again.bin")
    said = chain.run(2, *words, home=tmp_path, IPMPI_REPLAY=str(tmp_path / "record"))
    assert not said
    again = field(tmp_path / "again.bin")
    assert np.array_equal(again, field(tmp_path / "T.bin"))
    assert again[0, 5] == 2, "the last thing that was done"


SENTENCES = """
ipmpi_tick was called before ipmpi_attach
ipmpi_attach was called before MPI_Init
ipmpi_array was called before ipmpi_attach
ipmpi_attach was called with MPI_COMM_NULL
ipmpi_attach was called in another thread than the one that has called MPI_Init
ipmpi_attach was called twice
rank 0: the name is NULL
rank 0: no name: 'no name' cannot be a name in Python: use letters, digits and _
rank 0: A: the address is NULL
rank 0: B: the shape is NULL
rank 0: C: ndim is 99: it can be 0 to 15
rank 0: D: its shape is (3, -4): no length can be negative
rank 0: E: an array of shape (9223372036854775807, 9223372036854775807) and strides
rank 0: F: NumPy knows no dtype 'quadruple'; IPMPI_DOUBLE is 'f8', a C int is 'i4'
rank 0: G: the dtype is NULL, or a type of Fortran that NumPy does not have
rank 0: halo: 'halo' has another meaning for arrays: call it otherwise
rank 0: x: the address is NULL
rank 0: step: 'step' cannot be the name of a parameter: it is a name of steering itself
rank 0: H: there is no array with this name: call ipmpi_array first
rank 0: T: the offset is NULL
rank 0: T: in dimension 0, 3 elements with 0 of the halo at each end, from 2, are no part of 3
rank 0: U: there is nothing with this name
ipmpi_tick was called in another thread than ipmpi_attach
rank 0: gone: its memory was freed without ipmpi_forget("gone"), so the name is gone
ipmpi_attach was called after MPI_Finalize
"""


def test_what_is_wrong_in_c_ends_in_a_sentence_and_the_program_goes_on(
    toolchain_named: Callable[[str], Toolchain], controller: Cluster, tmp_path: Path
) -> None:
    chain = toolchain_named("debian")
    program = launch(controller, chain, 1, chain.c(BAD, tmp_path / "bad", "-Wno-nonnull"))
    with simulation(controller) as sim:
        assert (
            sim.engines.execute("T[0, 0] = 5; print(T.sum(), T.shape, first[()])")[0]["stdout"]
            == "5.0 (3, 4) 5.0\n"
        )
        with pytest.raises(CompositeError) as caught:
            sim.engines.pull("gone")
        assert [kind for kind, _, _ in caught.value.elist] == [NameError]
        sim.stop()
    assert program.wait(ENDS_WITHIN) == 0, controller.output()
    said = controller.output()
    for sentence in SENTENCES.strip().split("\n"):
        assert said.count(f"ipmpi: {sentence}") == 1, f"{sentence}\n{said}"
