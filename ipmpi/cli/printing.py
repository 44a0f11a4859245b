"""Print reports, which people like to cut off with ``| head`` (layer L5)."""

from __future__ import annotations

import os
import sys


def show(text: str) -> None:
    """Print, and go on quietly if nobody reads any more: the exit code counts all the same."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
