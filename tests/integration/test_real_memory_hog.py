"""User code that takes all memory that its process may have: the set goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

HOG = """
import os, resource, time
before = resource.getrlimit(resource.RLIMIT_AS)
with open('/proc/self/statm') as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
hog = [None] * 1_000_000
kept = 0
resource.setrlimit(resource.RLIMIT_AS, (size, before[1]))
try:
    for piece in (1 << 24, 1 << 20, 1 << 16, 1 << 12, 256):
        try:
            while True:
                hog[kept] = bytes(piece)
                kept += 1
        except (MemoryError, IndexError):
            pass
    os.close(os.open({told!r}, os.O_CREAT))
    until = time.monotonic() + 20
    while not os.path.exists({go!r}) and time.monotonic() < until:
        time.sleep(0.05)
finally:
    hog = None
    resource.setrlimit(resource.RLIMIT_AS, before)
"""
"""Up to the last few bytes, until a file is there; then it gives all back."""


@pytest.mark.parametrize("name", ["openmpi", pytest.param("mpich", marks=pytest.mark.mpich)])
def test_a_rank_0_without_memory_takes_nothing_down(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], tmp_path: Path, name: str
) -> None:
    from real_clusters import wait_for

    cluster = new_cluster(flavour_named(name), MALLOC_ARENA_MAX="1")  # no memory set aside for a thread
    cluster.start(2)
    mec = cluster.mec()
    told, go = tmp_path / "told", tmp_path / "go"
    held = mec.execute(HOG.format(told=str(told), go=str(go)), targets=[0], block=False)
    assert wait_for(told.exists, 30)
    # The agent, which passes on what goes to and comes from rank 1, has memory of its own.
    array = np.ones(2_000_000)
    pushed = mec.push({"a": array}, targets=[1], block=False)
    pulled = mec.pull("a", targets=[1], block=False)
    pushed.result(timeout=30)
    (arrived,) = pulled.result(timeout=30)
    go.touch()
    held.result(timeout=30)
    assert (arrived == array).all()
    assert mec.get_ids() == [0, 1]
