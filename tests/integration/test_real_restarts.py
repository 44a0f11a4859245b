"""Ranks that wait inside MPI for ever are restarted, with the names of the last snapshot."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.errors import ClientError, CommandTimeout, CompositeError, EngineLost, PeerError

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]
ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1")
MPIS = [pytest.param("openmpi", id="openmpi"), pytest.param("mpich", id="mpich", marks=pytest.mark.mpich)]


@pytest.fixture(scope="module", params=MPIS)
def mec(
    request: pytest.FixtureRequest,
    flavour_named: Callable[[str], Flavour],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MultiEngineClient]:
    """A client of four ranks that ipcluster has started, and does not start again when they crash."""
    mpi, home = flavour_named(request.param), tmp_path_factory.mktemp("home")
    with subprocess.Popen(
        [mpi.python, "-m", "ipmpi.cli.ipcluster", "-n", "4", "--restarts", "0", *LOOPBACK],
        env={**os.environ, **mpi.environ, "IPYTHONDIR": str(home), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            screen = ""
            while "kill -INT" not in screen:
                line = process.stdout.readline()
                assert line, screen
                screen += line
            with MultiEngineClient(str(home / "security" / "ipcontroller-mec.furl")) as client:
                yield client
        finally:
            process.terminate()
            screen += process.stdout.read()
            assert process.wait(30) == 0, screen
    assert not list(home.glob("log/*/*-ids*")), "nothing is left of the restarts"


def pids(mec: MultiEngineClient) -> list[int]:
    mec.execute("import os; pid = os.getpid()")
    found: list[int] = mec.pull("pid")
    return found


STUCK = """
from mpi4py import MPI
if MPI.COMM_WORLD.rank:
    wrong
else:
    MPI.COMM_WORLD.Barrier()
"""


def test_a_set_that_waits_for_a_failed_rank_comes_back_in_seconds(mec: MultiEngineClient) -> None:
    mec.execute("step, numbers = 812, (i for i in range(3))")
    snapshot = mec.snapshot()
    assert snapshot is not None
    assert {"step"} <= set(snapshot.names)
    assert snapshot.left_out["numbers"] == dict.fromkeys(range(4), "a generator object cannot be pickled")
    before = pids(mec)
    pending = mec.execute(STUCK, block=False)
    while pending.done_ids != [1, 2, 3]:
        time.sleep(0.01)
    waiting = mec.execute("1", targets=0, block=False)
    restarted = mec.restart()
    assert restarted.engines == [0, 1, 2, 3]
    assert restarted.seconds < 30, "it takes a second or two on a quiet machine"
    with pytest.raises(CompositeError) as caught:
        pending.get_result()
    assert [kind for kind, _, _ in caught.value.elist] == [EngineLost, NameError, NameError, NameError]
    assert "engine 0 (rank 0, pid " in str(caught.value)
    assert "is gone: it is restarted, as a client has asked for" in str(caught.value)
    with pytest.raises(CompositeError) as caught:
        waiting.get_result()
    assert "it is restarted, as a client has asked for" in str(caught.value)
    assert not set(before) & set(pids(mec))
    mec.execute("total = mpi.COMM_WORLD.allreduce(step)")
    assert mec.pull("total") == [4 * 812] * 4


def test_a_call_ends_when_a_failed_rank_makes_the_others_wait(mec: MultiEngineClient) -> None:
    """In less than 5 s, with a sentence that says who waits where and what to do."""
    with pytest.raises(CompositeError) as caught:
        mec.execute(STUCK)
    assert [kind for kind, _, _ in caught.value.elist] == [PeerError, NameError, NameError, NameError]
    assert re.search(
        r"PeerError: engines 1-3 failed, and nothing ends this rank's wait: \[0\] waits for other ranks in "
        r"MPI_Barrier at <ipmpi \d+>:6: they would end it, an interrupt cannot\. mec\.restart\(\) gives ",
        str(caught.value),
    )
    mec.restart()
    mec.execute("total = mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull("total") == [4] * 4


def test_a_call_whose_time_is_up_is_interrupted(
    mec: MultiEngineClient, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CompositeError) as caught:
        mec.execute("import time\nwhile id != 3: time.sleep(10)", timeout=0.5)
    assert [kind for kind, _, _ in caught.value.elist] == [CommandTimeout] * 3
    assert caught.value.finished == [3]
    assert "CommandTimeout: it was interrupted after 0.5 s" in str(caught.value)
    told = capsys.readouterr().err
    assert "time.sleep(10)') has not ended within 0.5 s: interrupting engines 0-2" in told
    within = mec.with_options(timeout=0.5)
    with pytest.raises(CompositeError) as caught:
        within.apply(time.sleep, 100)
    assert [kind for kind, _, _ in caught.value.elist] == [CommandTimeout] * 4


def test_a_call_is_cancelled_and_no_other(mec: MultiEngineClient) -> None:
    first = mec.execute("import time; time.sleep(100)", targets=[0, 1], block=False)
    second = mec.execute("second = True", targets=[1, 2], block=False)
    third = mec.execute("'third'", targets=[1, 2], block=False)
    assert second.cancel()
    assert first.cancel()
    with pytest.raises(CompositeError) as caught:
        second.get_result()
    assert "[1:execute]: KeyboardInterrupt: execute('second = True') had not begun" in str(caught.value)
    with pytest.raises(CompositeError):
        first.get_result()
    assert not first.cancel(), "it has ended"
    with contextlib.suppress(CompositeError):  # the failure of the first one has cleared the queue
        third.get_result()


def test_a_call_that_does_not_react_has_its_set_restarted(mec: MultiEngineClient) -> None:
    mec.on_timeout = "restart"
    try:
        with pytest.raises(CompositeError) as caught:
            mec.execute("from mpi4py import MPI\nif id == 2: MPI.COMM_WORLD.Barrier()", timeout=0.5)
    finally:
        mec.on_timeout = "interrupt"
    assert [kind for kind, _, _ in caught.value.elist] == [EngineLost]
    mec.wait_for_engines(4, timeout=60)
    assert mec.get_ids() == [0, 1, 2, 3]


def test_the_next_restart_is_like_the_first(mec: MultiEngineClient) -> None:
    """Also while ranks hold the GIL; and it is no failure that would be counted."""
    before = pids(mec)
    holds = "import ctypes; ctypes.PyDLL(None).sleep(100)"
    mec.execute(holds, block=False)
    assert mec.restart(restore=False).restored is None
    assert not set(before) & set(pids(mec))
    assert "step" not in mec.keys(targets=0)[0]
    assert "step" in mec.restore().names


def test_a_snapshot_before_the_walltime_and_no_restart_then(mec: MultiEngineClient, tmp_path: Path) -> None:
    """The batch system's warning reaches the job script, too, which starts nothing any more."""
    mec.push({"step": 1})
    mec.snapshot("step", folder=tmp_path, before_walltime=60)
    mec.push({"step": 2})
    os.kill(pids(mec)[1], signal.SIGUSR1)
    until = time.monotonic() + 30
    while len(list(tmp_path.glob("*/*.snapshot"))) < 4:
        assert time.monotonic() < until
        time.sleep(0.05)
    mec.push({"step": 3})
    mec.restore(folder=tmp_path)
    assert mec.pull("step") == [2] * 4
    with pytest.raises(
        ClientError, match="cannot be restarted, and nothing has ended: the batch system has warned"
    ):
        mec.restart()


def test_a_set_that_was_started_by_hand_stays(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    mec = new_cluster(flavour_named("openmpi")).start(2)
    before = pids(mec)
    with pytest.raises(ClientError, match="by hand, as with `mpirun ipengine`, so nobody would start it again"):
        mec.restart()
    assert pids(mec) == before
