"""Clients are told why the engines of a real cluster ended, as far as ``ipcluster`` knows."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

import ipmpi
from ipmpi import errors

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

PATIENCE = 60.0


def test_the_exit_code_of_mpiexec_reaches_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    here = {"client_ip": "127.0.0.1", "engine_ip": "127.0.0.1"}
    with ipmpi.Cluster("local", n=2, echo=None, restarts=1, **here) as cluster:
        mec, tc = cluster.multiengine(), cluster.task()
        pids = [int(pid) for pid in mec.execute("import os; pid = os.getpid()") and mec.pull("pid")]
        first = tc.submit(end_once, str(tmp_path / "ended"))
        assert first.result(timeout=PATIENCE) == "survived"
        told = capsys.readouterr().err
        where = re.escape(f"on {os.uname().nodename})")
        assert re.search(rf"engine [01] \(rank [01], pid ({pids[0]}|{pids[1]}) {where}", told), told
        why = r"mpiexec ended \(exit code 3\); rank [01] \(pid \d+( on .*)?\) called MPI_Abort with code 3"
        assert re.search(rf"All engines have ended: {why}\. They are started again", told), told
        with pytest.raises(errors.CompositeError) as caught:
            mec.execute("import os; os._exit(3)", targets=0)
        # How it ended is told by the kernel, unless its launcher was asked first on one that forgets it then.
        how = "(with exit code 3, as by|, and how is not known: a crash, MPI_Abort, or out of memory)"
        lost = rf"engine 0 \(rank 0, pid \d+ {where} is gone: its process ended ?{how}"
        assert re.search(lost, str(caught.value))
        assert mec.get_ids() == [1], "the other one stays"
        mec.execute("from mpi4py import MPI; MPI.COMM_WORLD.Abort(3)", targets=1, block=False)
        # prterun, which has let one end by itself, knows nothing of the other one's code.
        why = r"mpiexec ended \(exit code [03]\); rank 1 \(pid \d+( on .*)?\) called MPI_Abort with code 3"
        with pytest.raises(errors.ConnectionError, match=rf"was stopped: All engines have ended: {why}"):
            ask_until_the_goodbye(mec)


def ask_until_the_goodbye(mec: ipmpi.client.MultiEngineClient) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        mec.get_ids()


def end_once(path: str) -> str:
    """End all ranks the first time that the function runs anywhere."""
    import os

    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "survived"
    from mpi4py import MPI

    MPI.COMM_WORLD.Abort(3)
    return "never"
