"""Large objects through a real controller: its memory, its attention, and clients that die halfway."""

from __future__ import annotations

import gc
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pytest

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

MAY_GROW_KIB = 300 * 1024


def memory_available() -> int:
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("gigabytes", [1, 4])
def test_one_large_object_to_all(
    flavour_named: Callable[[str], Flavour],
    new_cluster: Callable[..., Cluster],
    capsys: pytest.CaptureFixture[str],
    gigabytes: int,
) -> None:
    """The controller does not keep it, and answers others meanwhile."""
    from real_clusters import memory_kib

    size = gigabytes * 10**9
    # Once here, once in the memory that the ranks share.
    if memory_available() < 2 * size + 4 * 10**9:
        pytest.skip(f"{memory_available() >> 30} GiB of memory are free: too little for {gigabytes} GB twice")
    cluster = new_cluster(flavour_named("openmpi"))
    mec = cluster.start(4)
    other = cluster.mec()
    other.queue_status()
    before = memory_kib(cluster.controller.pid, "VmRSS")
    data = numpy.zeros(size, dtype=numpy.uint8)
    data[:: 10**6] = 7
    sent = threading.Event()
    waits: list[float] = []

    def ask() -> None:
        while not sent.is_set():
            start = time.perf_counter()
            other.queue_status()
            waits.append(time.perf_counter() - start)
            sent.wait(0.01)

    asker = threading.Thread(target=ask)
    asker.start()
    start = time.perf_counter()
    try:
        mec.push({"a": data})
    finally:
        took = time.perf_counter() - start
        sent.set()
        asker.join()
    grown = memory_kib(cluster.controller.pid, "VmHWM") - before
    with capsys.disabled():
        print(
            f"\n{gigabytes} GB to 4 ranks: {took:.2f} s, {size / took / 1e9:.2f} GB/s; controller grew by "
            f"{grown / 1024:.0f} MiB; {len(waits)} queue_status: median {statistics.median(waits) * 1e3:.1f} ms, "
            f"longest {max(waits) * 1e3:.1f} ms"
        )
    assert grown < MAY_GROW_KIB
    assert statistics.median(waits) < 0.1
    assert max(waits) < 0.25
    mec.execute("n, s = a.nbytes, int(a[::10**6].sum())")
    assert mec.pull(("n", "s")) == [[size, 7 * (size // 10**6)]] * 4


def test_memory_of_what_was_pushed_before_is_given_back(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    from real_clusters import memory_kib

    cluster = new_cluster(flavour_named("openmpi"))
    mec = cluster.start(2)
    pids = cluster.pids(mec)
    for _ in range(6):
        mec.push({"a": numpy.zeros(100_000_000, dtype=numpy.uint8)})
        mec.execute("a[:] = 1")
    mec.execute("del a")
    for pid in pids.values():
        assert memory_kib(pid, "VmRSS") < 300 * 1024
    mec.execute("import os; left = [l for l in map(str, os.listdir('/proc/self/fd'))]; n = len(left)")
    assert max(mec.pull("n")) < 60


CLIENT = """
import sys, numpy
from ipmpi.client import MultiEngineClient
mec = MultiEngineClient(sys.argv[1])
if sys.argv[2] == "push":
    pending = mec.push({"big": numpy.ones(500_000_000, dtype=numpy.uint8)}, block=False)
else:
    pending = mec.pull("data", block=False)
print("sent", flush=True)
pending.get_result()
print("done", flush=True)
"""


@pytest.mark.parametrize("what", ["push", "pull"])
def test_a_client_that_dies_halfway_blocks_nobody(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], what: str
) -> None:
    from real_clusters import memory_kib

    cluster = new_cluster(flavour_named("openmpi"))
    mec = cluster.start(2)
    mec.execute("import numpy; data = numpy.ones(300_000_000, dtype=numpy.uint8)")
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, cluster.files["multiengine_furl_file"], what],
        env=cluster.environ, stdout=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        assert client.stdout is not None
        assert client.stdout.readline() == "sent\n"
        # The engines are in the middle of it: they run the command of the other client, or are about to.
        mec.queue_status()
        os.kill(client.pid, signal.SIGKILL)
    # A push whose data will not come fails, and clears the queue: that may be the end of a barrier, not more.
    mec.execute("pass", block=False).wait(60)
    mec.execute("x = 1", block=False).get_result(timeout=60)
    assert mec.pull("x") == [1, 1]
    assert mec.queue_status() == [(i, {"queue": [], "pending": "None"}) for i in range(2)]
    assert memory_kib(cluster.controller.pid, "VmHWM") < MAY_GROW_KIB


def test_memory_of_results_is_free_as_soon_as_they_are_dropped(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    from real_clusters import wait_for

    def mapped() -> int:
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        return sum(
            "memfd:ipmpi-body" in line[-1] or "memfd:ipmpi-body" in line[-2] for line in lines if line[1][3] == "p"
        )

    mec = new_cluster(flavour_named("openmpi")).start(2)
    mec.execute("import numpy; a = numpy.ones(20_000_000, numpy.uint8)")
    gc.collect()
    before = mapped()
    gc.disable()
    try:
        results = mec.pull("a")
        pending = mec.pull("a", block=False)
        assert all(array.sum() == 20_000_000 for array in pending.get_result() + results)
        assert mapped() > before
        del results, pending
        assert wait_for(lambda: mapped() <= before, 20), "nothing of them is mapped"
    finally:
        gc.enable()
