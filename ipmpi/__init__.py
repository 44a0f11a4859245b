"""Steer MPI ranks on a supercomputer from an IPython session, and farm tasks over the same engines.

    >>> from ipmpi import client
    >>> mec = client.MultiEngineClient()            # doctest: +SKIP
    >>> mec.execute('print("Hello World")')         # doctest: +SKIP

Importing this package needs no MPI and starts nothing.
"""

from __future__ import annotations

from . import ownpath as ownpath  # before any import that a file in the current folder could shadow

# isort: split

import importlib
from typing import Any

from .communicator import comm
from .errors import CompositeError, TaskRejectError

__all__ = ["CompositeError", "TaskRejectError", "__version__", "comm"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import ``ipmpi.Cluster`` when it is first used: engines and controllers do not need it."""
    if name == "Cluster":
        return importlib.import_module("ipmpi.cluster").Cluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """Load the magics; IPython calls this for ``%load_ext ipmpi``."""
    shell.extension_manager.load_extension("ipmpi.ipython")


def unload_ipython_extension(shell: Any) -> None:
    """Unload the magics; IPython calls this for ``%unload_ext ipmpi``."""
    shell.extension_manager.unload_extension("ipmpi.ipython")
