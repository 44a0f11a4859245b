"""One command of ``%px``: waiting for it, and showing its output, values and errors."""

from __future__ import annotations

import tokenize
from collections.abc import Callable, Sequence
from typing import Any

from IPython.core.displayhook import DisplayHook

from ..client.display.blocks import DISPLAY, STDERR, STDOUT, Block
from ..client.display.pictures import pictures_here
from ..client.display.render import MAX_LINES, Renderer
from ..client.display.showing import groups_of, write_outputs
from ..client.session.callwait import Ways
from ..client.session.results import PendingResult
from ..errors import WaitInterrupted
from .pxoptions import PxOptions
from .pxscreen import SHOW_ALL, PxScreen, colours_of, width_of, write

AGAIN = "%pxresult waits for it and shows it"


def ends_with_semicolon(code: str) -> bool:
    """Whether IPython would show no value of such a cell."""
    try:
        hook: Any = DisplayHook  # which has no types
        return bool(hook.semicolon_at_end_of_expression(code))
    except (tokenize.TokenError, SyntaxError):
        return False  # not Python: the engines say so, or it has lines for IPython


class PxRun:
    """A command that has been sent to engines.

    Args:
        shell: IPython's.
        pending: its result.
        options: how it is shown; no field that matters here is None.
        ranks: the engines whose displays are shown; None for all.
        kill: ends engines.
        values: whether values are shown.
    """

    def __init__(
        self,
        shell: Any,
        pending: PendingResult[Any],
        options: PxOptions,
        ranks: Sequence[int] | None,
        kill: Callable[[list[int]], object] | None = None,
        values: bool = True,
    ) -> None:
        self._shell = shell
        self._pending = pending
        self._options = options
        self._ranks = ranks
        self._kill = kill
        self._values = values

    def wait_and_show(self) -> Any:
        """Wait, show all that the command has printed and its values, and return its result.

        Raises:
            CompositeError: it failed on engines.
            WaitInterrupted: Ctrl-C ended the wait, or the engines finished in spite of it.
        """
        mode = self._options.on_interrupt
        ways = Ways(
            self._options.progress_after,
            "ranks" if mode == "kill" else mode,
            self._kill if mode == "kill" else None,
        )
        fold, stream = self._options.fold or "exact", bool(self._options.stream)
        screen = PxScreen(self._shell, self._pending, stream, fold, self._ranks)
        stopped: WaitInterrupted | None = None
        try:
            self._pending.watch(screen, AGAIN, ways)
        except WaitInterrupted as interrupted:
            if interrupted.detached:
                raise
            stopped = interrupted
        finally:
            screen.finish()
        return self._show(screen.has_shown, stopped)

    def _show(self, is_streamed: bool, stopped: WaitInterrupted | None) -> Any:
        error = self._pending.exception()
        result = None if error is not None else self._pending.r
        blocks = [] if is_streamed else self._blocks(result)
        renderer = self._renderer()
        pictures = pictures_here(renderer, ranks=self._ranks)
        groups = groups_of(getattr(result, "outputs", {})) if self._values else {}
        displays = [(block.engines, block.formats) for block in blocks if block.kind == DISPLAY]
        write_outputs(blocks, displays, groups, renderer, pictures, write)
        if error is not None:
            raise error
        if stopped is not None:
            raise stopped
        return result

    def _renderer(self) -> Renderer:
        options = self._options
        return Renderer(
            options.fold or "exact", colours_of(self._shell), width_of(self._shell),
            None if options.everything else MAX_LINES,
            group_outputs=options.group_outputs or "type",
            show_all=SHOW_ALL,
        )  # fmt: skip

    def _blocks(self, result: Any) -> list[Block]:
        blocks = [block for output in self._pending.outputs for block in output.blocks]
        if blocks:
            return blocks
        found = [each for each in result or () if isinstance(each, dict)]
        return [
            Block(kind, (each["id"],), each[name])
            for kind, name in ((STDOUT, "stdout"), (STDERR, "stderr"))
            for each in found
            if each.get(name)
        ]
