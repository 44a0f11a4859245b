"""Replacing methods of mpi4py's classes (mpi4py.MPI is an argument)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any


def replace_method(cls: type, name: str, around: Callable[[Any], Callable[..., Any]]) -> bool:
    """Replace a method that ``cls`` itself defines, also for subclasses; return whether that was possible.

    mpi4py's classes refuse new attributes, so it is done in the dictionary of the class.

    Args:
        cls: the class.
        name: the name of the method.
        around: returns the replacement of the original method.
    """
    members = next((found for found in gc.get_referents(cls.__dict__) if isinstance(found, dict)), None)
    plain = None if members is None else members.get(name)
    if members is None or plain is None:
        return False
    members[name] = around(plain)
    import ctypes  # imported here, as most ranks do not need it

    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))
    return True
