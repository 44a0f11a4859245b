"""The network between two parties is away for a while: nothing arrives, and nothing is closed.

``IPMPI_PARTITIONS=1,10,60,150`` is the long form; the times are spent side by side.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi import furl
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import CompositeError, KernelError
from ipmpi.furl import Furl
from tests.figures import report
from tests.security.cluster import controller, engines
from tests.security.relay import Relay

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

SECONDS = [float(text) for text in os.environ.get("IPMPI_PARTITIONS", "1,10").split(",")]
HERE = Path(__file__).parent
SILENCE = 60.0
AFTERWARDS = 60.0
"""Seconds after the end of a partition until all that waits has arrived; mostly the pause between two dials."""

pytestmark = pytest.mark.timeout(int(240 + 2 * max(SECONDS)))


def relayed(relay: Relay, real: Furl, path: Path) -> Path:
    furl.save(path, Furl(real.fingerprint, (relay.address,), real.role, real.secret))
    return path


def work_through(mec: MultiEngineClient, tc: TaskClient, relay: Relay, seconds: float) -> float:
    """Commands and tasks are under way and submitted while the network is away; how long all took after that."""
    mec.execute("seen = []")
    pending = [mec.execute("import time; time.sleep(0.5); seen.append(-1)", block=False)]
    tasks = [tc.submit(pow, number, 2) for number in range(200)]
    relay.passes.clear()
    end = time.monotonic() + seconds
    pending += [mec.execute(f"seen.append({number})", block=False) for number in range(20)]
    tasks += [tc.submit(pow, number, 2) for number in range(200, 400)]
    while time.monotonic() < end:
        time.sleep(end - time.monotonic())  # what is tested is time that passes
    relay.passes.set()
    for result in pending:
        result.get_result(timeout=AFTERWARDS)
    assert [task.result(AFTERWARDS) for task in tasks] == [number**2 for number in range(400)]
    waited = time.monotonic() - end
    assert mec.pull("seen") == [[-1, *range(20)]] * len(mec.get_ids()), "each command once, and in order"
    return waited


def side_by_side(one: Callable[[float], dict[str, Any]], name: str) -> None:
    with ThreadPoolExecutor(len(SECONDS)) as threads:
        for seconds, figures in zip(SECONDS, list(threads.map(one, SECONDS)), strict=True):
            report(f"partition, {name}", seconds=seconds, **figures)


@pytest.mark.parametrize("side", ["client", "engines"])
def test_whoever_reaches_the_controller_again_goes_on(tmp_path: Path, side: str) -> None:
    """Nothing is lost, and nothing runs twice."""

    def one(seconds: float) -> dict[str, Any]:
        home = tmp_path / f"{seconds:g}"
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(controller(home))
            files = {role: running.furl_file(role) for role in ("mec", "tc", "engine")}
            role = "mec" if side == "client" else "engine"
            relay = stack.enter_context(Relay(running.address(role)))
            for each in ("mec", "tc") if side == "client" else ("engine",):
                files[each] = relayed(relay, running.furl(each), home / f"relayed-{each}.furl")
            stack.enter_context(engines(home, 1, ["--furl-file", str(files["engine"])]))
            running.wait_engines(1)
            mec = stack.enter_context(MultiEngineClient(str(files["mec"])))
            tc = stack.enter_context(TaskClient(str(files["tc"])))
            waited = work_through(mec, tc, relay, seconds)
            assert mec.get_ids() == [0]
            return {"lost": 0, "all_there_after_s": waited}

    side_by_side(one, f"{side} and controller")


@contextlib.contextmanager
def two_nodes(cluster: Cluster, home: Path) -> Iterator[Relay]:
    """A set on two nodes, whose agents are connected by a relay."""
    port_file = home / "agent-port"
    with Relay(lambda: ("127.0.0.1", int(port_file.read_text()))) as relay:
        argv = cluster.command(2, "--with-ft", "ulfm", program=(str(HERE / "disguised_nodes.py"),))
        environ = {"IPMPI_TEST_LEADERS": "0,1", "IPMPI_TEST_RELAY": f"{relay.address[1]}:{port_file}"}
        cluster.launch(argv, **environ)
        cluster.wait_for_engines(2)
        assert relay.connections == 1
        yield relay


@pytest.mark.slow
@pytest.mark.mpi
def test_nodes_of_a_set(flavour_named: Callable[[str], Flavour], tmp_path: Path) -> None:
    """Up to ``SILENCE``, nothing is lost. After it, the ranks of the other node are; who waits hears of that."""
    from real_clusters import Cluster

    def one(seconds: float) -> dict[str, Any]:
        home = tmp_path / f"{seconds:g}"
        home.mkdir(mode=0o700)
        cluster = Cluster(home, flavour_named("openmpi"))
        try:
            with two_nodes(cluster, home) as relay:
                mec, tc = cluster.mec(), cluster.tc()
                if seconds < SILENCE:
                    waited = work_through(mec, tc, relay, seconds)
                    assert mec.get_ids() == [0, 1]
                    return {"lost": 0, "all_there_after_s": waited}
                return parted(mec, tc, relay, seconds)
        finally:
            cluster.stop()

    side_by_side(one, "two nodes of a set")


def parted(mec: MultiEngineClient, tc: TaskClient, relay: Relay, seconds: float) -> dict[str, Any]:
    """The other node is away for so long that it is lost."""
    began = time.monotonic()
    relay.passes.clear()
    pending = mec.execute("x = id", block=False)
    tasks = [tc.submit(pow, number, 2) for number in range(200)]
    with contextlib.suppress(CompositeError, KernelError):
        pending.get_result(timeout=seconds + AFTERWARDS)
    heard = time.monotonic() - began
    assert [task.result(AFTERWARDS) for task in tasks] == [number**2 for number in range(200)]
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    relay.passes.set()
    return {"lost": 2 - len(mec.get_ids()), "heard_of_after_s": heard}
