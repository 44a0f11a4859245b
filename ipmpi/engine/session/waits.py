"""Ending what other ranks wait for in MPI."""

from __future__ import annotations

from typing import Protocol


class Revoker(Protocol):
    """See :class:`ipmpi.engine.mpi.revoking.WorldRevoker`."""

    has_revoked: bool
    """Whether this rank has revoked MPI.COMM_WORLD, and it was not replaced."""

    def revoke(self) -> None:
        """End the calls of all ranks in MPI.COMM_WORLD; raises ClientError where that is not possible."""

    def replace(self) -> str:
        """Make a new one of it; collective. Return why that was not possible, or ""."""
