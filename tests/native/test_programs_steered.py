"""The heat equation in Python, C and Fortran, steered while it runs: the same physics, steered in the same way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.protocol import operations

INTEGRATION = Path(__file__).resolve().parents[1] / "integration"
sys.path.insert(0, str(INTEGRATION))
from heatsolution import field, solution  # noqa: E402 - beside this file
from real_clusters import Cluster, Flavour, wait_for  # noqa: E402 - found through the line above
from toolchains import EXAMPLES, Toolchain  # noqa: E402 - beside this file

if TYPE_CHECKING:
    from subprocess import Popen

pytestmark = [pytest.mark.slow, pytest.mark.mpi]
RANKS = 8
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


def steer(mec: MultiEngineClient, action: str, number: int = 0) -> list[Any]:
    return list(mec._command(operations.Steer(action, number), action, (), None, True))


@pytest.fixture(params=["python", "c", "fortran"])
def heat(request: pytest.FixtureRequest, toolchain_named: Callable[[str], Toolchain], tmp_path: Path) -> list[Any]:
    """The program in each language: its toolchain, and the words that start it."""
    if request.param == "python":
        wheel = toolchain_named("wheel")
        return [wheel, wheel.python, EXAMPLES / "heat.py"]
    chain = toolchain_named("debian")
    if request.param == "c":
        return [chain, chain.c(EXAMPLES / "heat.c", tmp_path / "heat")]
    # With these traps, a division by zero in a command would end the program if the bridge let it.
    return [chain, chain.fortran(EXAMPLES / "heat.f90", tmp_path / "heat", TRAPS)]


def test_a_change_in_flight_is_as_if_it_had_been_programmed(heat: list[Any], controller: Cluster) -> None:
    program = launch(controller, heat[0], RANKS, *heat[1:], FOR_EVER, controller.home / "T.bin")
    mec = controller.mec()
    (changed_at,) = {state["step"] for state in steer(mec, "pause")}
    assert mec.pull("params", targets=0) == [{"nu": 1.0}]
    blocks = mec.execute("import numpy as np; bad = 1 / np.zeros(1); print(*T.shape)")
    assert {each["stdout"] for each in blocks} in ({"10 66\n"}, {"66 10\n"})
    mec.execute("params['nu'] = 0.5")
    steer(mec, "step", 40)
    assert wait_for(lambda: {state["step"] for state in steer(mec, "state")} == {changed_at + 40}, ENDS_WITHIN)
    steer(mec, "stop")
    assert program.wait(ENDS_WITHIN) == 0, controller.output()
    assert np.array_equal(field(controller.home / "T.bin"), solution(changed_at + 40, changed_at, 0.5))
