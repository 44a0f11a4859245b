"""Hiding the launcher's environment variables from child processes.

An MPI program that user code starts would take itself for the engine's rank and wait in MPI_Init forever. So once
MPI has started, the variables about this rank are removed from the environment. Frameworks that read them in this
process (``os.environ["SLURM_LOCALID"]``) still find them by name.
"""

from __future__ import annotations

import os
from typing import Any

from ipmpi.environment import mpienv


class _Environ(type(os.environ)):  # type: ignore[misc, unused-ignore]
    """``os.environ`` with some variables that can be read by name, but are not iterated or inherited."""

    _hidden: dict[str, str]

    def __getitem__(self, key: Any) -> Any:
        try:
            return super().__getitem__(key)
        except KeyError:
            if key in self._hidden:
                return self._hidden[key]
            raise

    def __delitem__(self, key: Any) -> None:
        was_hidden = self._hidden.pop(key, None) is not None
        try:
            super().__delitem__(key)
        except KeyError:
            if not was_hidden:
                raise


def hide_rank_variables() -> list[str]:
    """Hide the launcher's variables; return their names."""
    environ: Any = os.environ
    hidden = {name: environ[name] for name in mpienv.rank_variables(environ)}
    for name in hidden:
        del environ[name]
    if isinstance(environ, _Environ):
        environ._hidden.update(hidden)
    else:
        environ.__class__ = _Environ
        environ._hidden = hidden
    return sorted(hidden)
