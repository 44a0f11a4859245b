"""New communicators of some ranks, made by these ranks alone (mpi4py.MPI is an argument)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def create(mpi: Any, parent: Any, ranks: Sequence[int], tag: int, name: str, *, has_lost: bool) -> Any:
    """Return a new communicator. Collective over ``ranks``; call it when all of them have arrived.

    With Open MPI 5, ranks that know that a rank of ``parent`` has died leave ``MPI_Comm_create_group`` with an
    error, while those that do not know wait in it forever. ``MPI_Comm_create_from_group`` has no parent.

    Args:
        mpi: the module mpi4py.MPI.
        parent: a communicator that has all these ranks.
        ranks: ranks of ``parent``, in the order of the new communicator.
        tag: one that no other creation of the same ranks uses at the same time.
        name: likewise.
        has_lost: whether the parent has ranks that do not take part in anything any more; the same at all ranks.

    Raises:
        mpi.Exception: there is no communicator left.
    """
    whole = parent.Get_group()
    group = whole.Incl(list(ranks))
    try:
        if has_lost and _open_mpi(mpi.Get_library_version()) >= 5:
            return mpi.Intracomm.Create_from_group(group, f"ipmpi {name} {tag}")
        return parent.Create_group(group, tag)
    finally:
        group.Free()
        whole.Free()


def _open_mpi(library: str) -> int:
    """Return the release of Open MPI; 0 for other libraries."""
    found = re.match(r"Open MPI v(\d+)", library)
    return 0 if found is None else int(found[1])
