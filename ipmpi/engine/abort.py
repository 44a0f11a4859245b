"""MPI_Abort that does not return, as the standard has it (layer L2; mpi4py.MPI is handed in).

MPICH's asks the launcher to end all ranks and returns at once. User code would go on, and its command be answered
as a success, in the milliseconds before the launcher's signal comes.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
from typing import Any, Final

_log: Final = logging.getLogger("ipmpi")


def never_return_from_abort(mpi: Any) -> bool:
    """Have ``Abort`` of all communicators end this process where MPI's own returns; whether that was possible.

    mpi4py's classes refuse new attributes, so the method is replaced in the dictionary of the class itself.
    """
    members = next((found for found in gc.get_referents(mpi.Comm.__dict__) if isinstance(found, dict)), None)
    plain = None if members is None else members.get("Abort")
    if members is None or plain is None:
        return False

    @functools.wraps(plain)
    def abort(comm: Any, errorcode: int = 0) -> None:
        _log.error("MPI_Abort was called on this rank, with code %d", errorcode)  # MPICH's own words get lost
        plain(comm, errorcode)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(errorcode & 0xFF or 1)

    members["Abort"] = abort
    import ctypes

    ctypes.pythonapi.PyType_Modified(ctypes.py_object(mpi.Comm))
    return True
