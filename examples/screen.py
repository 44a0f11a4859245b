"""What the examples share: tidy output, and one question to the engines.

This file is not about ipmpi; read ``helloworld.py`` first.
"""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO

BOLD, DIM, GREEN, RED, PLAIN = "\033[1m", "\033[2m", "\033[0;32m", "\033[0;31m", "\033[0m"


class Screen:
    """Prints an example's progress: coloured on a terminal, plain text through a pipe or with NO_COLOR set.

    Attributes:
        figure: the sentence of the last :meth:`result`, for a summary table.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colours = terminal and "NO_COLOR" not in os.environ
        self.figure = ""

    def paint(self, colour: str, text: str) -> str:
        """Return the text in a colour, or as it is when the output is not a terminal."""
        return f"{colour}{text}{PLAIN}" if self.colours else text

    def __call__(self, text: str) -> None:
        """Print one line of progress."""
        self._line("  " + text)

    def heading(self, text: str) -> None:
        """Print the title of a section."""
        self._line("\n" + self.paint(BOLD, text))

    def typed(self, code: str) -> None:
        """Show a line that a person would type in IPython."""
        self._line(self.paint(DIM, "  >>> ") + self.paint(BOLD, code))

    def result(self, figure: str, passed: bool) -> bool:
        """Print how the check ended, remember the figure, and return ``passed``."""
        self.figure = figure
        self._line(f"  {self.verdict(passed)}: {figure}")
        return passed

    def verdict(self, passed: bool) -> str:
        """Return the word for a check: ``passed`` or ``FAILED``."""
        return self.paint(GREEN, "passed") if passed else self.paint(RED, "FAILED")

    def _line(self, text: str) -> None:
        # Flushed at once, so that a pipe or a log file shows progress while the example still runs.
        print(text, file=self.stream, flush=True)


def ranks_in_order(mec: Any) -> list[int]:
    """Return the engine ids in the order of their MPI ranks.

    Raises:
        RuntimeError: the engines do not all belong to one communicator, so that they cannot talk MPI.
    """
    # `mpi` is the module mpi4py.MPI on every engine of an MPI launch, and None on any other.
    mec.execute("world = (mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size) if mpi else (0, 1)")
    ids, worlds = mec.get_ids(), mec.pull("world")
    if sorted(worlds) != [(rank, len(ids)) for rank in range(len(ids))]:
        raise RuntimeError(
            f"this example needs engines that share one MPI communicator, and the {len(ids)} engines here say "
            f"(rank, size) = {worlds}. Start a cluster of one MPI launch: ipcluster -n 4 --mpi=mpi4py"
        )
    return [ids[worlds.index((rank, len(ids)))] for rank in range(len(ids))]
