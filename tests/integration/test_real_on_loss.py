"""A rank is killed: all are started again with their names, and later all end, as was chosen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.errors import CompositeError, EngineLost

if TYPE_CHECKING:
    from real_clusters import Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]
ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = ("--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1")
MPIS = [pytest.param("openmpi", id="openmpi"), pytest.param("mpich", id="mpich", marks=pytest.mark.mpich)]
WAITS = "mpi.COMM_WORLD.Barrier() if id == 0 else __import__('time').sleep(300)"


def pids(mec: MultiEngineClient) -> list[int]:
    mec.execute("import os; pid = os.getpid()")
    found: list[int] = mec.pull("pid")
    return found


def killed(mec: MultiEngineClient, engine: int) -> str:
    """Kill an engine while all run a command; return what its client is told."""
    pid = pids(mec)[engine]
    pending = mec.execute(WAITS, block=False)
    mec.queue_status()  # answered when the controller has the command
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(CompositeError) as caught:
        pending.get_result()
    assert [kind for kind, _, _ in caught.value.elist] == [EngineLost] * 3
    return str(caught.value)


@pytest.mark.parametrize("name", MPIS)
def test_all_are_started_again_and_later_all_end(
    flavour_named: Callable[[str], Flavour], tmp_path: Path, name: str
) -> None:
    mpi = flavour_named(name)
    with subprocess.Popen(
        [mpi.python, "-m", "ipmpi.cli.ipcluster", "-n", "3", "--on-loss", "restart", *LOOPBACK],
        env={**os.environ, **mpi.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        screen = ""
        try:
            while "kill -INT" not in screen:
                line = process.stdout.readline()
                assert line, screen
                screen += line
            with MultiEngineClient(str(tmp_path / "security" / "ipcontroller-mec.furl")) as mec:
                assert mec.on_loss() == dict.fromkeys(range(3), "restart")
                mec.push({"step": 812})
                mec.snapshot()
                mec.push({"step": 813})
                before = pids(mec)
                told = killed(mec, 1)
                assert f"engine 1 (rank 1, pid {before[1]} on " in told
                assert "is gone: it was killed by SIGKILL" in told
                mec.wait_for_engines(3, timeout=60)
                assert mec.get_ids() == [0, 1, 2]
                assert mec["step"] == [812] * 3, "nobody has restored it"
                assert not set(before) & set(pids(mec))
                assert mec.on_loss("abort") == dict.fromkeys(range(3), "abort")
                killed(mec, 2)
            assert process.wait(60) == 1
        finally:
            process.terminate()
            screen += process.stdout.read()
    expected = r"Engine 1 was lost: it was killed by SIGKILL.*\. The engines have ended, and are"
    assert re.search(expected, screen), screen
    assert "engine 2 was lost: it was killed by SIGKILL" in screen
    assert "on_loss='abort': all engines of that set have ended." in screen
