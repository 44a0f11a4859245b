"""IPython's side of ipmpi: ``%px``, ``%result`` and ``%autopx`` (knows no client class).

``mec.activate()`` loads this, and so does ``%load_ext ipmpi.ipython``.
"""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

from .magics import ParallelMagics

__all__ = ["ParallelMagics", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; IPython calls this."""
    shell.register_magics(ParallelMagics(shell))


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Let cells run here again, and forget the client; IPython calls this."""
    magics = shell.magics_manager.registry.get("ParallelMagics")
    if magics is not None:
        magics.deactivate()
