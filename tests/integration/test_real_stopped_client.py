"""A client that is stopped in the middle of an answer costs others nothing, and a pulled array is one state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pytest

from ipmpi import client, limits

if TYPE_CHECKING:
    from real_clusters import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

SIZE = 16_000_000
"""Doubles in the array that a client is stopped in the middle of: far more than all windows and buffers."""

AT_ONCE = 1.0
"""Seconds for an answer, on a machine that has nothing else to do."""

QUICK = 0.02
"""Seconds that an answer takes on such a machine, at the most, if nothing is in its way."""


@pytest.fixture(scope="module")
def cluster(flavour_named: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two engines, each by itself."""
    from real_clusters import Cluster

    shared = Cluster(tmp_path_factory.mktemp("stopped"), flavour_named("openmpi"))
    try:
        for number in range(2):
            shared.launch([sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none"])
            shared.wait_for_engines(number + 1)
        yield shared
    finally:
        shared.stop()


@pytest.fixture
def other(cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
    """Another process, which does what is written to it, a statement a line."""
    program = "import sys\nfor line in sys.stdin: exec(line)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=cluster.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def tell(process: subprocess.Popen[str], *statements: str) -> None:
    pipe: IO[str] | None = process.stdin
    assert pipe is not None
    pipe.write("\n".join(statements) + "\n")
    pipe.flush()


def says(process: subprocess.Popen[str]) -> str:
    pipe: IO[str] | None = process.stdout
    assert pipe is not None
    return pipe.readline().strip()


def stop_in_the_middle(process: subprocess.Popen[str], mec: client.MultiEngineClient) -> None:
    """Stop it when engine 0 has begun to send it something."""
    until = time.monotonic() + 30
    while "sending" not in mec.queue_status(0)[0][1]:
        assert time.monotonic() < until
    os.kill(process.pid, signal.SIGSTOP)
    # Between two results of tasks there may be none on its way, and two may be copied before one has left.
    while not (sending := mec.queue_status(0)[0][1].get("sending")):
        assert time.monotonic() < until
    assert all("client" in one or "mec" in one or "tc" in one for one in sending)


def how_long(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.fixture
def at_once(cluster: Cluster) -> float:
    """``AT_ONCE``, or more on a machine that is busy, as the slowest of some calls shows that nothing holds up."""
    mec = cluster.mec()
    slowest = max(how_long(lambda: mec.execute("b = 1")) for _ in range(20))
    return AT_ONCE * max(1.0, slowest / QUICK)


def test_a_client_that_is_stopped_in_a_pull(
    cluster: Cluster, other: subprocess.Popen[str], at_once: float
) -> None:
    mec = cluster.mec()
    mec.execute(f"import numpy as np; a = np.ones({SIZE})", 0)
    tell(
        other, "from ipmpi import client",
        f"mec = client.MultiEngineClient({cluster.files['multiengine_furl_file']!r})",
        "a, = mec.pull('a', targets=0); print(a.sum(), flush=True)",
    )  # fmt: skip
    stop_in_the_middle(other, mec)
    assert how_long(lambda: mec.execute("a[:] = 2", 0)) < at_once
    assert how_long(lambda: mec.execute("b = 1")) < at_once
    with cluster.tc() as tc:
        assert how_long(lambda: [tc.submit(abs, -1).result(10) for _ in range(4)]) < 2 * at_once
    os.kill(other.pid, signal.SIGCONT)
    assert says(other) == f"{SIZE:.1f}"


def test_an_answer_is_given_up_where_there_is_no_memory_for_a_copy(
    cluster: Cluster, other: subprocess.Popen[str], at_once: float
) -> None:
    mec = cluster.mec()
    mec.execute(f"import numpy as np; a = np.ones({SIZE})", 0)
    without = (
        "import ipmpi.engine.rank.largeanswers as d; there = d.available_bytes; d.available_bytes = lambda: 0"
    )
    mec.execute(without, 0)
    tell(
        other, "from ipmpi import client",
        f"mec = client.MultiEngineClient({cluster.files['multiengine_furl_file']!r})",
        "pull = mec.pull('a', targets=0, block=False); pull.wait(); error = pull.exception()",
        "print(type(error.elist[0][1]).__name__, str(error.elist[0][1]).splitlines()[0], flush=True)",
        "print(mec.pull('a', targets=0)[0].sum(), flush=True)",
    )  # fmt: skip
    stop_in_the_middle(other, mec)
    waited = how_long(lambda: mec.execute("a[:] = 2", 0))
    assert limits.ANSWER_STUCK - 1 < waited < 3 * limits.ANSWER_STUCK
    assert how_long(lambda: mec.execute("d.available_bytes = there", 0)) < at_once
    os.kill(other.pid, signal.SIGCONT)
    told = says(other)
    assert told.startswith("ConnectionError the answer of engine 0 to pull('a') did not arrive")
    assert "others waited for the engine" in told
    assert says(other) == f"{2 * SIZE:.1f}"


def test_a_client_that_is_stopped_with_large_results_under_way(
    cluster: Cluster, other: subprocess.Popen[str], at_once: float
) -> None:
    mec = cluster.mec()
    tell(
        other, "from ipmpi import client",
        f"tc = client.TaskClient({cluster.files['task_furl_file']!r})",
        "made = tc.map(lambda n: bytes(1_000_000), range(300))",
        "print(sum(len(one) for one in made), flush=True)",
    )  # fmt: skip
    stop_in_the_middle(other, mec)
    for _ in range(5):
        assert how_long(lambda: mec.execute("b = 1")) < at_once
    with cluster.tc() as tc:
        assert how_long(lambda: [tc.submit(abs, -1).result(10) for _ in range(4)]) < 4 * at_once
    os.kill(other.pid, signal.SIGCONT)
    assert says(other) == "300000000"


@pytest.mark.parametrize("targets", ["0", "[0, 1]"])
def test_a_client_that_is_stopped_in_a_push(
    cluster: Cluster, other: subprocess.Popen[str], at_once: float, targets: str
) -> None:
    """The push gives way, and what it says comes true in the end, in the order in which it was said."""
    mec = cluster.mec()
    mec.execute("seen = []; a = None")
    tell(
        other, "import numpy as np", "from ipmpi import client",
        f"mec = client.MultiEngineClient({cluster.files['multiengine_furl_file']!r})",
        f"a = np.ones({4 * SIZE}); print('now', flush=True)",
        f"pushed = mec.push({{'a': a}}, targets={targets}, block=False)",
        f"after = mec.execute('seen.append(a is not None)', targets={targets}, block=False)",
        "pushed.result(); after.result(); print('done', flush=True)",
    )  # fmt: skip
    assert says(other) == "now"
    until = time.monotonic() + 30
    while "push" not in str(mec.queue_status(0)):
        assert time.monotonic() < until
    os.kill(other.pid, signal.SIGSTOP)
    assert "push" in str(mec.queue_status(0)), "it is over, so this shows nothing"
    for _ in range(3):
        assert how_long(lambda: mec.execute("seen.append('other')")) < at_once
    os.kill(other.pid, signal.SIGCONT)
    assert says(other) == "done"
    assert mec.pull("seen", targets=0)[0] == ["other"] * 3 + [True]


def test_a_pulled_array_is_one_state(cluster: Cluster) -> None:
    mec = cluster.mec()
    mec.push({"a": np.zeros(1_000_000), "small": np.zeros(10_000)}, 0)
    with cluster.tc() as tc, mec.reserve(1):
        for _ in range(200):
            tc.run(client.StringTask("a += 1; small += 1"))
        states = set()
        while tc.queue_status()["scheduled"] or tc.queue_status()["pending"]:
            a, small = mec.pull(("a", "small"), targets=0)[0]
            assert (a == a[0]).all()
            (small,) = mec.pull("small", targets=0)
            assert (small == small[0]).all()
            states.add(float(a[0]))
        assert len(states) > 1
