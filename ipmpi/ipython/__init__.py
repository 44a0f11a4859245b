"""IPython extension with ``%px``, ``%%px``, ``%autopx`` and others; ``docs/magics.rst`` has them all.

``mec.activate()``, ``%load_ext ipmpi`` and ``%load_ext ipmpi.ipython`` load it.
"""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

from .magics import ParallelMagics
from .questions import questions_for_engines

__all__ = ["ParallelMagics", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; called by IPython."""
    magics = ParallelMagics(shell)
    shell.register_magics(magics)
    magics.load()
    if questions_for_engines not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(questions_for_engines)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Run cells locally again, and drop the active client; called by IPython."""
    magics = shell.magics_manager.registry.get("ParallelMagics")
    if magics is not None:
        magics.deactivate()
    if questions_for_engines in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(questions_for_engines)
