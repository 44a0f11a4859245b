"""Files in memory that are used again, between real processes: nobody's data change, whoever still has them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from real_clusters import Cluster

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

COUNT = 1_500_000
ROUNDS = 6

FORKED = f"""
asks, hears = os.pipe(), os.pipe()
child = os.fork()
if not child:
    os.read(asks[0], 1)
    os.write(hears[1], b"y" if np.array_equal(a, np.arange(7, 7 + {COUNT})) else b"n")
    os._exit(0)
del a
"""
"""A child that has the array of its parent looks at it when it is asked to."""


def numbers(first: int) -> np.ndarray[Any, Any]:
    """An array that is another one for each argument."""
    return np.arange(first, first + COUNT, dtype=np.int64)


@pytest.fixture(scope="module")
def cluster(flavour_named: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two ranks on one node."""
    from real_clusters import Cluster

    shared = Cluster(tmp_path_factory.mktemp("segments"), flavour_named("openmpi"))
    try:
        shared.start(2)
        yield shared
    finally:
        shared.stop()


@pytest.fixture
def mec(cluster: Cluster) -> Iterator[MultiEngineClient]:
    with cluster.mec() as mec:
        mec.reset()
        mec.execute("import numpy as np, os")
        yield mec


def use_again(mec: MultiEngineClient, targets: Any = "all") -> None:
    """Have all files used again that can be, in both directions."""
    for number in range(ROUNDS):
        mec.push({"other": numbers(-1000 - number)}, targets=targets)
        for back in mec.pull("other", targets=targets):
            assert np.array_equal(back, numbers(-1000 - number))


def sums(mec: MultiEngineClient, expression: str, targets: Any = "all") -> list[bool]:
    mec.execute(f"same = bool(np.array_equal({expression}, np.arange(7, 7 + {COUNT})))", targets=targets)
    found: list[bool] = mec.pull("same", targets=targets)
    return found


def bodies(pid: int) -> int:
    """Files with bodies that a process has open."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found += "memfd:ipmpi-body" in os.readlink(f"/proc/{pid}/fd/{name}")
    return found


@pytest.mark.parametrize(
    "keep",
    [
        pytest.param("kept = a", id="the array"),
        pytest.param("kept = a[:][::-1][::-1]", id="a view of a view"),
        pytest.param("kept = [memoryview(a).cast('B').cast('q')]; kept = kept[0]", id="a buffer"),
    ],
)
def test_what_ranks_have_of_a_push_stays_as_it_is(mec: MultiEngineClient, keep: str) -> None:
    mec.push({"a": numbers(7)})
    mec.execute(f"{keep}; del a")
    use_again(mec)
    assert sums(mec, "np.asarray(kept)") == [True, True]
    mec.execute("kept = None")


def test_so_does_what_a_forked_child_of_a_rank_has(mec: MultiEngineClient) -> None:
    mec.push({"a": numbers(7)})
    mec.execute(FORKED)
    use_again(mec)
    mec.execute("_ = os.write(asks[1], b'?'); said = os.read(hears[0], 1); _ = os.waitpid(child, 0)")
    assert mec.pull("said") == [b"y", b"y"]


def test_a_rank_that_was_stopped_finds_what_was_pushed_to_it(cluster: Cluster, mec: MultiEngineClient) -> None:
    pids = cluster.pids(mec)
    os.kill(pids[1], signal.SIGSTOP)
    try:
        late = mec.push({"a": numbers(7)}, targets=1, block=False)
        use_again(mec, targets=0)
    finally:
        os.kill(pids[1], signal.SIGCONT)
    late.get_result(timeout=60)
    assert sums(mec, "a", targets=1) == [True]


def test_a_command_that_waits_in_a_queue_has_its_own_data(mec: MultiEngineClient, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    before = mec.execute(f"_ = open({str(gate)!r}).read()", targets=1, block=False)
    waiting = mec.push({"a": numbers(7)}, targets=1, block=False)
    use_again(mec, targets=0)
    gate.write_text("go on")
    before.get_result(timeout=60)
    waiting.get_result(timeout=60)
    assert sums(mec, "a", targets=1) == [True]


def test_what_was_pulled_stays_as_it_is(mec: MultiEngineClient) -> None:
    mec.push({"a": numbers(7)})
    kept = [np.asarray(back)[::-1][::-1] for back in mec.pull("a")]
    gathered = mec.gather("a")
    use_again(mec)
    assert all(np.array_equal(back, numbers(7)) for back in kept)
    assert np.array_equal(gathered, np.concatenate([numbers(7)] * 2))


def test_idle_ranks_and_controllers_have_no_file_after_a_while(cluster: Cluster, mec: MultiEngineClient) -> None:
    """Ranks have no timer: they sleep for no longer than that."""
    from real_clusters import wait_for

    pids = list(cluster.pids(mec).values())
    use_again(mec)
    assert all(map(bodies, pids))
    mec.execute("del other")
    for pid in (*pids, *cluster.agents(), cluster.controller.pid):
        assert wait_for(lambda pid=pid: not bodies(pid), 60)  # type: ignore[misc]


def test_a_task_has_its_own_arguments_and_its_result_stays(cluster: Cluster, mec: MultiEngineClient) -> None:
    with cluster.tc() as tc:
        futures = [tc.submit(np.negative, numbers(first)) for first in range(12)]
        use_again(mec)
        results = [future.result(60) for future in futures]
        use_again(mec)
    assert all(np.array_equal(result, -numbers(first)) for first, result in enumerate(results))
