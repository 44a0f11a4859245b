"""Printing of tables and reports, also to pipes that are closed early, as by ``| head``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from ..client.display.screens import has_colours
from ..launch.doctor.diagnostics import Diagnostic, render


def show(text: str) -> None:
    """Print, and ignore a closed pipe, so that the exit code is unaffected."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Keep Python from flushing again at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def show_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts, the first of which are the names of the columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def show_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Print diagnostics in the width of the terminal, and in colours if it has them."""
    show(render(diagnostics, min(shutil.get_terminal_size().columns, 110), colours=has_colours()))
