"""Arrays of programs with a loop: spread as the program says, seen at one step, drawn while it runs."""

from __future__ import annotations

import importlib.util
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipmpi.client import MultiEngineClient

sys.path.insert(0, str(Path(__file__).parent))
from real_clusters import Cluster, Flavour, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

PROGRAM = str(Path(__file__).with_name("published_program.py"))


@pytest.fixture(scope="module", params=["openmpi", pytest.param("mpich", marks=pytest.mark.mpich)])
def running(
    request: pytest.FixtureRequest,
    flavour_named: Callable[[str], Flavour],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[MultiEngineClient, Callable[[], None]]]:
    """A client, and what ends the program."""
    cluster = Cluster(tmp_path_factory.mktemp(request.param), flavour_named(request.param))
    try:
        program = cluster.launch(cluster.command(4, program=(PROGRAM,), args=["1000000", "0.002"]))
        cluster.wait_for_engines(4)
        mec = cluster.mec()
        assert wait_for(lambda: mec.execute("there = 'wrong' in globals()") and all(mec.pull("there")), 10)
        yield mec, lambda: os.killpg(program.pid, signal.SIGTERM)
    finally:
        cluster.stop()


@pytest.fixture
def mec(running: tuple[MultiEngineClient, Callable[[], None]]) -> MultiEngineClient:
    return running[0]


def whole(step: int) -> Any:
    """The array before a step."""
    row, column = np.ogrid[:24, :24]
    return step + 1e-3 * row + 1e-6 * column


def test_an_array_is_spread_as_the_program_says_and_seen_at_one_step(mec: MultiEngineClient) -> None:
    seen = set()
    for name in ("u", "by_cart"):
        array = mec.array(name)
        assert [block.offset for block in array.blocks] == [(0, 0), (0, 12), (12, 0), (12, 12)]
        for _ in range(3):
            elements, step = array.at_step()
            np.testing.assert_allclose(elements, whole(step), rtol=1e-12)
            seen.add(step)
    assert len(seen) > 2, "the program goes on in between"
    assert mec.array("u").max().position == (23, 23)
    elements, step = mec.array("line").at_step(slice(None, None, 12))
    np.testing.assert_allclose(elements, step + 1e-3 * np.arange(0, 48, 12))
    with pytest.raises(ValueError, match="the blocks of engines 0 and 1 overlap"):
        mec.array("wrong")
    assert mec.array("u", axis=0).shape == (56, 14)


def test_ranks_of_a_program_combine_what_they_have(mec: MultiEngineClient) -> None:
    assert mec.reduce("line.size") == 48
    spread = mec.array("u").redistribute(axis=0, to="rows")
    elements = spread.gather()
    np.testing.assert_allclose(elements, whole(round(float(elements[0, 0]))), rtol=1e-12)


def test_a_picture_follows_the_program_until_it_ends(
    running: tuple[MultiEngineClient, Callable[[], None]], tmp_path: Path, need: Callable[[str, object], None]
) -> None:
    need("no matplotlib here", importlib.util.find_spec("matplotlib"))
    mec, end = running
    path = tmp_path / "u.png"
    sim = mec.simulation()
    changes = len(sim.record().changes)
    live = sim.plot("u", 0.02, ranks=True, file=str(path))
    titles = set()

    def has_followed() -> bool:
        titles.add(live.figure.axes[0].get_title())
        return live.count >= 4 and len(titles) >= 3

    assert wait_for(has_followed, 60), live
    assert len(sim.record().changes) == changes, "to look at it changes nothing"
    assert all(title.startswith("u before step ") for title in titles - {""}), titles
    assert struct.unpack(">4x4s", path.read_bytes()[8:16]) == (b"IHDR",)
    end()
    assert live.wait(60), live
    assert "has ended" in repr(live)
    assert f"in {path}" in repr(live)
    assert os.listdir(tmp_path) == ["u.png"]
