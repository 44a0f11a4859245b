"""Steer MPI ranks on a supercomputer from an IPython session, and farm tasks over the same engines.

    >>> from ipmpi import client
    >>> mec = client.MultiEngineClient()            # doctest: +SKIP
    >>> mec.execute('print("Hello World")')         # doctest: +SKIP

Importing this package needs no MPI and starts nothing.
"""

from __future__ import annotations

from .errors import CompositeError, TaskRejectError

__all__ = ["CompositeError", "TaskRejectError", "__version__"]
__version__ = "0.1.0"
