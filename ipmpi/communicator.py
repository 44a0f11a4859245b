"""``ipmpi.comm()``: the communicator of all ranks, for user code in the processes of engines."""

from __future__ import annotations

from typing import Any

from .errors import LauncherError

_given: list[Any] = []


def comm() -> Any:
    """Return the communicator of all ranks of this engine's set, an ``mpi4py.MPI.Intracomm``.

    It is the same object as ``comm`` in the namespace of the engine, for modules that have no access to that. Its
    waits end when another rank of the same command fails, and when they are interrupted.

    Raises:
        LauncherError: this process is no engine, or shares no communicator with others.
    """
    if not _given:
        raise LauncherError(
            "ipmpi.comm() is for code that engines run, and this process is no engine that shares a communicator "
            "with others. Start engines with mpirun or srun and without --mpi=none; elsewhere use "
            "mpi4py.MPI.COMM_WORLD"
        )
    return _given[0]


def provide(communicator: Any) -> None:
    """Have :func:`comm` return this one."""
    _given[:] = [communicator]
