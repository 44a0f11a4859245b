"""What is wrong, given to clients of a real controller: it is refused, and the controller never notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_values import KINDS
from test_bad_input import CLEAR, ROWS, SURFACE, World, attempt, kind_of, parameters, usual

from ipmpi.client import StringTask
from tests.in_process import InProcess, in_process


@pytest.fixture(scope="module")
def cluster() -> Iterator[InProcess]:
    with in_process(4) as running:
        yield running


@pytest.fixture
def world(cluster: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # where no furl file is
    world = World.__new__(World)
    world.mec, world.tc, world.session = cluster.mec(), cluster.tc(), cluster.session("monitor")  # type: ignore[assignment]
    world.mec.push({"a": 1, "b": 2})
    world.tc.run(StringTask("1"))
    return world


@pytest.mark.parametrize("call", dict.fromkeys(call for call, _ in ROWS))
def test_a_controller_lives_through_all_that_is_wrong(cluster: InProcess, world: World, call: str) -> None:
    for name in parameters(call):
        for value in KINDS[kind_of(call, name)].wrong:
            function = world.bound(call)
            with pytest.raises(CLEAR):
                attempt(function, SURFACE[call], {**usual(call, name), name: value})
    world.works()
    assert cluster.is_alive
    assert cluster.registered() == 4
    world.mec.close()
    world.tc.close()
    world.session.close()
