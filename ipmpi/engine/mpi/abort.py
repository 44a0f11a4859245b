"""An MPI_Abort that does not return, as the standard requires (mpi4py.MPI is an argument).

MPICH's asks the launcher to end all ranks and returns at once. User code would continue, and its command might
succeed, in the milliseconds before the launcher's signal.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from ipmpi.engine.mpi.methods import replace_method

_log: Final = logging.getLogger("ipmpi")


def never_return_from_abort(mpi: Any) -> bool:
    """Make ``Abort`` of all communicators end this process; return whether that was possible."""

    def ending(plain: Any) -> Callable[..., None]:
        @functools.wraps(plain)
        def abort(comm: Any, errorcode: int = 0) -> None:
            # MPICH's own message is lost.
            _log.error("MPI_Abort was called on this rank, with code %d", errorcode)
            plain(comm, errorcode)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(errorcode & 0xFF or 1)

        return abort

    return replace_method(mpi.Comm, "Abort", ending)


def note_aborts(mpi: Any, note: Callable[[int], object]) -> bool:
    """Have ``note`` called with the code before an ``Abort`` of any communicator; return whether that is possible.

    The launcher may kill this process together with the others, so that its exit status does not tell.
    """

    def noting(plain: Any) -> Callable[..., None]:
        @functools.wraps(plain)
        def abort(comm: Any, errorcode: int = 0) -> None:
            note(errorcode)
            plain(comm, errorcode)

        return abort

    return replace_method(mpi.Comm, "Abort", noting)
