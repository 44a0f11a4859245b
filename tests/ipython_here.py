"""IPython in the process of a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def ipython(folder: Path, patch: pytest.MonkeyPatch, *, with_ipmpi: bool = True) -> Iterator[Any]:
    """A shell of its own, with its files in ``folder``, and with our extension or without."""
    from IPython.core.interactiveshell import InteractiveShell

    from ipmpi.ipython import unload_ipython_extension

    patch.setenv("IPYTHONDIR", str(folder))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    if with_ipmpi:
        shell.extension_manager.load_extension("ipmpi")
    yield shell
    if with_ipmpi:
        unload_ipython_extension(shell)
    InteractiveShell.clear_instance()
