"""Types cells into IPython, and writes down what stands on the screen then: ``capturerun.py SOURCE DEST ...``.

A source has cells, separated by lines ``# %%``. In a cell that ends with ``# ^C``, Ctrl-C is pressed as soon as
it has printed something.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from ipmpi import client

INTERRUPT = "# ^C"


class Screen(io.StringIO):
    """What has been printed."""

    is_interrupting = False
    """Whether Ctrl-C is pressed at the next output of ranks."""

    def write(self, text: str, /) -> int:
        """Print ``text``."""
        size = super().write(text)
        if self.is_interrupting and text.startswith("["):
            self.is_interrupting = False
            super().write("^C\n")
            # From another thread: whoever prints this is to return from it first.
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
        return size


def typed(cell: str, number: int) -> str:
    """A cell as it stands at IPython's prompt."""
    prompt = f"In [{number}]: "
    return prompt + cell.replace("\n", "\n" + "...: ".rjust(len(prompt)))


def session(shell: Any, cells: list[str], screen: Screen) -> str:
    """The text of a session."""
    for number, cell in enumerate(cells, 1):
        body = cell.strip("\n")
        screen.is_interrupting = body.endswith(INTERRUPT)
        body = body.removesuffix(INTERRUPT).rstrip("\n")
        print(typed(body, number))
        shell.run_cell(body, store_history=True)
        print()
    return "\n".join(line.rstrip() for line in screen.getvalue().rstrip().split("\n")) + "\n"


def main(pairs: list[Path]) -> None:
    """Run each source and write its session."""
    shell = InteractiveShell.instance(colors="NoColor")
    shell.history_manager.enabled = False
    with client.MultiEngineClient() as mec:
        shell.user_ns.update(mec=mec, client=client)
        mec.activate()
        mec.execute("comm = mpi.COMM_WORLD")
        for source, dest in zip(pairs[::2], pairs[1::2], strict=True):
            streams = sys.stdout, sys.stderr
            screen = Screen()
            sys.stdout = sys.stderr = screen
            shell.execution_count = 1
            try:
                text = session(shell, source.read_text("utf-8").split("# %%\n"), screen)
            finally:
                sys.stdout, sys.stderr = streams
            dest.write_text(text, "utf-8")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
