"""``ipmpi.comm()``: the communicator of all ranks, for user code in the processes of engines."""

from __future__ import annotations

from typing import Any, NamedTuple

from .errors import LauncherError


class Shared(NamedTuple):
    """What the ranks of this process's set share.

    Attributes:
        comm: the communicator of all ranks, for user code.
        mpi: the module mpi4py.MPI.
        whole: one of all ranks that the set began with, whose numbers are those that the controller knows.
    """

    comm: Any
    mpi: Any
    whole: Any


_given: list[Shared] = []


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
    return _given[0].comm


def shared() -> Shared | None:
    """Return what the ranks of this process's set share; None if they share no communicator."""
    return _given[0] if _given else None


def provide(communicator: Any, mpi: Any, whole: Any) -> None:
    """Have :func:`comm` and :func:`shared` return these; see :class:`Shared`."""
    _given[:] = [Shared(communicator, mpi, whole)]
