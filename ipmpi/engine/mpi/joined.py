"""The ranks of a program that has started MPI itself, or of which nobody has started MPI.

Nothing of the program's MPI is changed: what is sent here goes through duplicates of its communicator.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ...environment.mpienv import detect
from ...errors import ClientError
from .world import World


def join_program(comm: Any, environ: Mapping[str, str]) -> World:
    """Return the set of the ranks of ``comm``. Collective over it.

    Args:
        comm: a communicator of mpi4py. None: all ranks, if MPI has started or a launcher of MPI has started this
            process; else this process is alone.
        environ: its environment.

    Raises:
        ClientError: that is no communicator that can be used.
    """
    if comm is None:
        comm = _world(environ)
    if comm is None:
        return World(description="no MPI")
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not isinstance(comm, mpi.Intracomm):
        raise ClientError(
            f"attach(comm=...) takes a communicator of mpi4py, as MPI.COMM_WORLD or a part of it, and not {comm!r}"
        )
    if comm == mpi.COMM_NULL:
        raise ClientError("attach(comm=MPI.COMM_NULL): this rank is not in the communicator, so it is not steered")
    parent, shared = comm.Dup(), comm.Dup()
    node = parent.Split_type(mpi.COMM_TYPE_SHARED)
    leader = node.allreduce(parent.Get_rank(), op=mpi.MIN)
    leaders = list(parent.allgather(leader))
    node.Free()
    library = mpi.Get_library_version().splitlines()[0].split(",")[0].rstrip("\x00")
    multiple = mpi.Query_thread() == mpi.THREAD_MULTIPLE
    level = "MPI_THREAD_MULTIPLE" if multiple else "less than MPI_THREAD_MULTIPLE"
    return World(
        rank=parent.Get_rank(), size=parent.Get_size(), leaders=leaders, mpi=mpi,
        description=f"{library}, {level}", comm=parent, parent=parent, shared=shared,
    )  # fmt: skip


def alone(comm: Any, environ: Mapping[str, str]) -> World:
    """Return a world that knows its rank and its size, and joins nobody; not collective."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        comm = mpi.COMM_WORLD if comm is None else comm
        if isinstance(comm, mpi.Intracomm) and comm != mpi.COMM_NULL:
            return World(rank=comm.Get_rank(), size=comm.Get_size())
    launched = detect(environ)
    return World() if launched is None else World(rank=launched.rank, size=launched.size or launched.rank + 1)


def _world(environ: Mapping[str, str]) -> Any:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None and detect(environ) is not None:
        try:
            from mpi4py import MPI as mpi
        except ImportError:
            return None
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return None
    return mpi.COMM_WORLD
