"""MPI_Comm_spawn with an Open MPI that uses shared memory only (mpi4py.MPI is an argument).

On one machine the ranks have no network transport, so that they open no port. For Open MPI, spawned processes are
another job, which its shared memory does not reach: they start, and their parents get MPI_ERR_INTERN without a
reason, or wait forever.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from ipmpi.engine.mpi.methods import replace_method
from ipmpi.errors import KernelError

_METHODS: Final = ("Spawn", "Spawn_multiple")
_WITHIN_ONE_JOB: Final = frozenset({"self", "sm", "vader"})
"""Transports that reach the processes of one job only."""


def refuse_spawn(mpi: Any, environ: Mapping[str, str]) -> bool:
    """Make MPI_Comm_spawn raise KernelError if its processes cannot be reached; return whether that is so.

    Args:
        mpi: the module mpi4py.MPI, of Open MPI.
        environ: the environment of this process.
    """
    transports = environ.get("OMPI_MCA_btl", "")
    names = {name.strip() for name in transports.split(",")}
    if environ.get("OMPI_MCA_pml", "").strip() != "ob1" or not names <= _WITHIN_ONE_JOB:
        return False
    text = (
        f"the processes of MPI_Comm_spawn could not be reached: ranks on one machine use shared memory alone "
        f"(OMPI_MCA_btl={transports}), and Open MPI joins further processes by TCP. Nothing was started. Start "
        f"ipcluster with OMPI_MCA_btl={transports},tcp in its environment; each rank then listens on all "
        "addresses of its machine. To run calculations on the present engines: client.TaskClient"
    )

    def refusing(plain: Any) -> Any:
        @functools.wraps(plain)
        def refused(*_args: object, **_kwargs: object) -> None:
            raise KernelError(text)

        return refused

    return all([replace_method(mpi.Intracomm, name, refusing) for name in _METHODS])
