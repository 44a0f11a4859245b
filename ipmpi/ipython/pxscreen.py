"""What a cell that runs on engines shows while its user waits."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from ..client.display.blocks import Block
from ..client.display.live import LiveView
from ..client.display.pictures import pictures_here
from ..client.display.render import Fold, Renderer
from ..client.display.screens import has_colours, is_terminal, width
from ..client.session.progress import StatusLine
from ..client.session.results import PendingResult

SHOW_ALL: Final = "%pxresult --all shows all"


def is_notebook(shell: Any) -> bool:
    """Return whether the shell belongs to a kernel, so that its output goes to a notebook or the like."""
    return hasattr(shell, "kernel")


def colours_of(shell: Any) -> bool:
    """Return whether output is coloured."""
    return is_notebook(shell) or has_colours()


def width_of(shell: Any) -> int:
    """Return the width of the screen in characters."""
    return 120 if is_notebook(shell) else width()


class PxScreen:
    """A screen for :class:`~ipmpi.client.session.callwait.CallWait` that also shows output while it comes.

    Args:
        shell: IPython's.
        pending: the result whose output is shown.
        stream: whether it is; else only the status and advice are.
        fold: how equal output is put together.
        ranks: the engines whose displays are shown; None for all.
    """

    def __init__(
        self, shell: Any, pending: PendingResult[Any], stream: bool, fold: Fold, ranks: Sequence[int] | None
    ) -> None:
        self._came: queue.SimpleQueue[Sequence[Block]] = queue.SimpleQueue()
        self._is_terminal = not is_notebook(shell) and is_terminal()
        colours, columns = colours_of(shell), width_of(shell)
        pictures = pictures_here(Renderer(fold, colours, columns, show_all=SHOW_ALL), ranks=ranks)
        self._live = LiveView(
            write, fold=fold, colours=colours, is_terminal=self._is_terminal, width=columns, display=pictures.live,
            show_all=SHOW_ALL,
        )  # fmt: skip
        self._line = StatusLine()
        self.has_shown = False
        """Whether output has come."""
        if stream:
            for output in pending.outputs:
                output.listen(self._came.put)

    def status(self, text: str | None) -> None:
        """Show a line that replaces the one before; None removes it."""
        if self._is_terminal:
            self._live.status(text)
        else:
            self._line.show(text)

    def tell(self, text: str) -> None:
        """Show a line that stays."""
        self.status(None)
        if self._live.due is not None:
            self._live.tick(self._live.due)
        print(f"ipmpi: {text}", file=sys.stderr, flush=True)

    def settle(self) -> None:
        """Show all that has come, and leave nothing that could be replaced: the user is asked for something."""
        self.status(None)
        self.finish()

    def wait(self, seconds: float) -> None:
        """Let so much time pass, or less if something has come."""
        due = self._live.due
        if due is not None:
            seconds = min(seconds, max(due - time.monotonic(), 0.0))
        try:
            came = self._came.get(timeout=seconds)
        except queue.Empty:
            came = ()
        self._show(came)

    def wake(self) -> None:
        """End a :meth:`wait`; called in any thread."""
        self._came.put(())

    def finish(self) -> None:
        """Show what is left."""
        while not self._came.empty():
            self._show(self._came.get())
        self._live.finish(time.monotonic())

    def _show(self, came: Sequence[Block]) -> None:
        now = time.monotonic()
        self.has_shown = self.has_shown or bool(came)
        self._live.feed(came, now)
        self._live.tick(now)


def write(text: str) -> None:
    """Print text as it is, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
