"""One MPI call of a rank, as its node agent reads it from the memory that both share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

ANY: Final = -1
"""A source or tag that is any: MPI libraries have different numbers for it."""
NOBODY: Final = -2
"""A peer that is ``MPI.PROC_NULL``."""


class MpiCall(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A call on a communicator of :func:`ipmpi.comm`, or of a task.

    Attributes:
        comm: the communicator: the same text at all its ranks.
        number: which collective of that communicator it is, from 1; 0 if it is none.
        name: of the call, as in mpi4py: ``Allreduce``.
        count: items of the buffer; None where there is no buffer, or it could not be told.
        dtype: the type of the items, such as ``float64`` or ``MPI_DOUBLE``; "" for Python objects.
        root: of a collective with a root.
        peer: destination or source of a message (:data:`ANY`, :data:`NOBODY`).
        tag: of the message (:data:`ANY`).
        file: where the user's code has called.
        line: the line there.
        function: the function there.
        since: seconds that it has lasted, or has taken.
        open: whether it has not returned.
    """

    comm: str
    number: int
    name: str
    count: int | None
    dtype: str
    root: int | None
    peer: int | None
    tag: int | None
    file: str
    line: int
    function: str
    since: float
    open: bool


def open_call(calls: Sequence[MpiCall]) -> MpiCall | None:
    """Return the newest of some calls that has not returned; None if all have. The newest is the last one."""
    return next((call for call in reversed(calls) if call.open), None)
