"""Methods of mpi4py's classes, replaced (mpi4py.MPI is handed in)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any


def replace_method(cls: type, name: str, around: Callable[[Any], Callable[..., Any]]) -> bool:
    """Replace a method that ``cls`` itself defines, for its subclasses too; whether that was possible.

    mpi4py's classes refuse new attributes, so it is done in the dictionary of the class.

    Args:
        cls: the class.
        name: of the method.
        around: gets the plain method, and returns what to put in its place.
    """
    members = next((found for found in gc.get_referents(cls.__dict__) if isinstance(found, dict)), None)
    plain = None if members is None else members.get(name)
    if members is None or plain is None:
        return False
    members[name] = around(plain)
    import ctypes  # costs on a thousand ranks, of which most need none

    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))
    return True
