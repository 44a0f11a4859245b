"""What calls of polled communicators leave in the ring, with real MPI on one rank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mpi

PROGRAM = """
import json, sys, time
import numpy
from mpi4py import MPI
from ipmpi.engine.mpi.setcomm import SetCommunicator
from ipmpi.engine.rank.callring import CALLS, CallRing, read_calls
memory = memoryview(bytearray(CALLS))
shared = SetCommunicator(MPI, MPI.COMM_WORLD.Dup(), MPI.COMM_WORLD.Dup(), lambda: None, CallRing(memory))
comm = shared.comm
def found():
    calls = read_calls(memory, 500, time.monotonic_ns())
    return [[c.comm, c.number, c.name, c.count, c.dtype, c.root, c.peer, c.tag, c.function, c.open] for c in calls]
def user():
    data = numpy.zeros(8)
    comm.Barrier()
    comm.Bcast(data, root=0)
    comm.Allreduce(MPI.IN_PLACE, [data, MPI.DOUBLE])
    comm.Allreduce(data, numpy.zeros(8), op=MPI.MAX)
    comm.allreduce({"a": 1})
    comm.Gather(data, numpy.zeros(8), 0)
    comm.reduce(1, root=0)
    request = comm.Irecv(data, source=0, tag=3)
    comm.Send(data, 0, tag=3)
    request.Wait()
    comm.sendrecv(1, 0, source=MPI.ANY_SOURCE, recvtag=MPI.ANY_TAG)
    comm.send(1, MPI.PROC_NULL)
    part = comm.Split(0, 0)
    part.Barrier()
    part.Dup().Barrier()
    try:
        comm.Bcast(data, root=77)
    except MPI.Exception:
        pass
    comm.Allgatherv(data, [data, MPI.DOUBLE])
user()
print(json.dumps(found()))
"""


@pytest.fixture(scope="module")
def calls(root: Path) -> list[list[Any]]:
    environ = {
        **os.environ, "PYTHONPATH": str(root), "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    found: list[list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_each_call_of_user_code_is_there_once_with_what_it_was_given(calls: list[list[Any]]) -> None:
    told = [tuple(call[:8]) for call in calls]
    none = (None, None, None)
    assert told == [
        ("comm", 1, "Barrier", None, "", *none),
        ("comm", 2, "Bcast", 8, "float64", 0, None, None),
        ("comm", 3, "Allreduce", 8, "MPI_DOUBLE", *none),
        ("comm", 4, "Allreduce", 8, "float64", *none),
        ("comm", 5, "allreduce", None, "", *none),
        ("comm", 7, "Gather", 8, "float64", 0, None, None),
        ("comm", 8, "reduce", None, "", 0, None, None),
        ("comm", 0, "Irecv", 8, "float64", None, 0, 3),
        ("comm", 0, "Send", 8, "float64", None, 0, 3),
        ("comm", 0, "Wait (Irecv)", 8, "float64", None, 0, 3),
        ("comm", 0, "sendrecv", None, "", None, -1, -1),
        ("comm", 0, "send", None, "", None, -2, 0),
        ("comm", 10, "Split", None, "", *none),
        ("comm.Split#10@0", 1, "Barrier", None, "", *none),
        ("comm.Split#10@0", 2, "Dup", None, "", *none),
        ("comm.Split#10@0.Dup#2", 1, "Barrier", None, "", *none),
        ("comm", 11, "Bcast", 8, "float64", 77, None, None),
        ("comm", 12, "Allgatherv", None, "", *none),
    ]


def test_each_is_said_to_be_in_user_code_and_has_returned(calls: list[list[Any]]) -> None:
    assert {tuple(call[8:]) for call in calls} == {("user", False)}
