"""Functions that engines and peers run. They import this module, so it imports next to nothing."""

from __future__ import annotations

import sys
import time
from typing import Any


def nothing(*_: object) -> None:
    """Do nothing: what is left is the cost of the system."""


def pause(seconds: float) -> None:
    """Take a time without needing a core, so that more engines than cores do not slow each other down."""
    time.sleep(seconds)


def mpi_library() -> str:
    """The MPI library of this process, or an empty string."""
    module: Any = sys.modules.get("mpi4py.MPI")
    return "" if module is None else str(module.Get_library_version())


def doubles(size: int) -> Any:
    """An array of ``size`` bytes, every page of it written."""
    import numpy

    return numpy.arange(size // 8, dtype=numpy.float64)
