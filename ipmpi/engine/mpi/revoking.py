"""Ending the waits of ranks in MPI.COMM_WORLD by revoking it (mpi4py.MPI is an argument).

That takes Open MPI 5 with fault tolerance. An idle rank revokes the communicator, and all calls in it end with
MPI_ERR_REVOKED, also those of C libraries. It cannot be undone: afterwards MPI.COMM_WORLD of Python stands for
a new communicator, and the one of C is of no use any more.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from ...errors import ClientError
from .derived import become

_ENABLED: Final = "OMPI_MCA_mpi_ft_enable"
"""What ``mpiexec --with-ft ulfm`` sets."""

_MADE_WITHIN: Final = 3.0
"""Seconds for a new communicator. A rank that was inside the creation of one when it was revoked leaves Open MPI
unable to make any others, for ever: then nobody must wait for one."""

_NOT_HERE: Final = (
    "ranks that wait in plain MPI calls can be freed only under Open MPI 5 with fault tolerance (`ipcluster "
    "--fault-tolerance on`; on one machine it is the default), and this is {}: mec.restart() gives the set back"
)
_STUCK: Final = (
    "MPI makes no communicators any more, as a rank was freed in the middle of making one: mec.restart() gives "
    "the set back"
)


class WorldRevoker:
    """Revokes MPI.COMM_WORLD, and replaces it.

    Args:
        mpi: the module mpi4py.MPI.
        world: its COMM_WORLD as MPI has made it.
        parent: a duplicate, which is never revoked.

    Attributes:
        has_revoked: whether this rank has revoked it, and it was not replaced.
    """

    def __init__(self, mpi: Any, world: Any, parent: Any) -> None:
        self._mpi = mpi
        self._world = world
        self._parent = parent
        self.has_revoked = False
        # Asked now, as user code may change the environment.
        self._is_possible = os.environ.get(_ENABLED, "").lower() in ("1", "true", "yes")

    def revoke(self) -> None:
        """End the calls of all ranks in it.

        Raises:
            ClientError: this MPI cannot, or was started without fault tolerance.
        """
        if not self._is_possible:
            library = self._mpi.Get_library_version().split(",")[0].splitlines()[0]
            raise ClientError(_NOT_HERE.format(f"{library} without that"))
        self._world.Revoke()
        self.has_revoked = True

    def replace(self) -> str:
        """Have MPI.COMM_WORLD of Python stand for a new communicator, wherever user code has kept it.

        Collective, at a time when all ranks are free.

        Returns:
            Why that was not possible; "" if it was.
        """
        try:  # whether it is revoked is not asked: a rank that makes no MPI calls has not heard of it
            fresh, request = self._parent.Idup()
            until, pause = time.monotonic() + _MADE_WITHIN, 0.0001
            while not request.Test():
                if time.monotonic() > until:
                    return _STUCK
                time.sleep(pause)
        except self._mpi.Exception as error:
            return f"{str(error).strip().splitlines()[-1]}: mec.restart() gives the set back"
        fresh.Set_errhandler(self._mpi.ERRORS_RETURN)
        become(self._mpi, self._world, fresh)
        self.has_revoked = False
        return ""
