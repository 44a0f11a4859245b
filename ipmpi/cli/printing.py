"""Print reports, which people like to cut off with ``| head``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from ..client.display.screens import has_colours
from ..launch.doctor.diagnostics import Diagnostic, render


def show(text: str) -> None:
    """Print, and go on quietly if nobody reads any more: the exit code counts all the same."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def show_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Print diagnostics, as wide as the terminal is and in colours if it has them."""
    show(render(diagnostics, min(shutil.get_terminal_size().columns, 110), colours=has_colours()))
