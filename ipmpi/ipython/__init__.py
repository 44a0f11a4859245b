"""IPython extension with the magics ``%px``, ``%result`` and ``%autopx``; it imports no client class.

``mec.activate()`` and ``%load_ext ipmpi.ipython`` load it.
"""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

from .magics import ParallelMagics

__all__ = ["ParallelMagics", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; called by IPython."""
    shell.register_magics(ParallelMagics(shell))


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Run cells locally again, and drop the active client; called by IPython."""
    magics = shell.magics_manager.registry.get("ParallelMagics")
    if magics is not None:
        magics.deactivate()
