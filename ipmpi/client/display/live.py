"""Output as it comes, folded in short windows, with progress bars and a status line in place (no I/O).

A rank's lines keep their order. What a rank has written without ending the line is *open*: on a terminal the open
lines of all ranks, folded, stand below the others and are replaced in place, and below them the status line.
Elsewhere only the last state of a line is written, when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .blocks import DISPLAY, Block
from .escapes import safe, uncoloured
from .lineorder import Line, lines_of, merged
from .openlines import OpenLines, folded_bars
from .ranksets import label
from .render import Fold, Renderer

WINDOW: Final = 0.05
"""Seconds that a line waits for equal ones of other ranks, after the windows of the node agents."""

LINES_AT_ONCE: Final = 400
LINES_PER_SECOND: Final = 200
"""Lines that are shown at once, and for how long ones that go on: nobody can read more, and a terminal that draws
more makes its user wait."""

_BARS: Final = 6
"""Open lines that are shown, of the different ones."""

_CLEAR: Final = "\r\033[J"


class LiveView:
    """Shows blocks while they come.

    It is told what has come and what time it is, and writes through ``write`` only. It is not thread-safe.

    Args:
        write: writes a str to the screen.
        fold: as in :class:`~ipmpi.client.display.render.Renderer`.
        colours: whether to use ANSI colours, and to let those of ranks pass.
        is_terminal: whether what was written can be replaced in place.
        width: of the screen, in characters.
        display: shows a display block, or returns the text to be written for it.
        show_all: where to find lines that were left out.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        fold: Fold = "exact",
        colours: bool = False,
        is_terminal: bool = False,
        width: int = 80,
        display: Callable[[Block], str | None] | None = None,
        show_all: str = "result.stdout has all",
    ) -> None:
        self._write = write
        self._renderer = Renderer(fold, colours, width, None)
        self._is_terminal = is_terminal
        self._display = display
        self._show_all = show_all
        self._waiting: list[Block] = []
        self._since: float | None = None
        self._open = OpenLines()
        self._status = ""
        self._below = ""
        self._height = 0
        self._budget = float(LINES_AT_ONCE)
        self._budget_at: float | None = None
        self._hidden: tuple[int, set[int]] = (0, set())

    @property
    def wrote_below(self) -> bool:
        """Whether open lines or a status line stand below the others now."""
        return bool(self._height)

    @property
    def due(self) -> float | None:
        """When :meth:`tick` has something to do; None while nothing waits."""
        return None if self._since is None else self._since + WINDOW

    def feed(self, blocks: Iterable[Block], now: float) -> None:
        """More has come at the time ``now``, in seconds of any clock that only goes forward."""
        came = list(blocks)
        if not came:
            return
        self._waiting += came
        if self._since is None:
            self._since = now
        self.tick(now)

    def tick(self, now: float) -> None:
        """Write what has waited long enough."""
        due = self.due
        if due is not None and now >= due:
            self._flush(now)

    def status(self, text: str | None) -> None:
        """Show a line below all others, in place of the one before; None for none. Only on a terminal."""
        self._status = text or ""
        if self._is_terminal:
            self._redraw([])

    def finish(self, now: float | None = None) -> None:
        """All has come: write what waits, and lines that were never ended; the status line goes."""
        self._status = ""
        self._flush(self._budget_at or 0.0 if now is None else now)
        rest = [Block(kind, engines, text + "\n") for kind, engines, text in self._open.take_all()]
        lines = self._folded(rest)
        self._redraw([*map(self._renderer.line, lines), *self._note()])

    # --- what has waited -----------------------------------------------------------------------------------------

    def _flush(self, now: float) -> None:
        blocks, self._waiting, self._since = self._waiting, [], None
        part: list[Block] = []
        for block in blocks:
            if block.kind != DISPLAY:
                part.append(block)
                continue
            # It may be shown by other means than `write`: nothing may stand below, and what came before is first.
            self._replace(self._texts(part, now), [])
            part = []
            text = self._renderer.render([block]) if self._display is None else self._display(block)
            if text:
                self._replace([text], [])
        self._redraw(self._texts(part, now))

    def _texts(self, blocks: Sequence[Block], now: float) -> list[str]:
        lines = self._folded(self._open.completed(blocks))
        shown = self._affordable(lines, now)
        made = self._note() if shown else []
        made += map(self._renderer.line, lines[:shown])
        if shown < len(lines):
            count, engines = self._hidden
            hidden = lines[shown:]
            self._hidden = count + len(hidden), engines.union(*(line.engines for line in hidden))
        return made

    def _folded(self, blocks: Sequence[Block]) -> list[Line]:
        return merged(lines_of(blocks), self._renderer.fold) if blocks else []

    def _affordable(self, lines: Sequence[Line], now: float) -> int:
        if self._budget_at is not None:
            self._budget += max(now - self._budget_at, 0) * LINES_PER_SECOND
        self._budget_at = now
        self._budget = min(self._budget, LINES_AT_ONCE)
        shown = min(len(lines), int(self._budget))
        self._budget -= shown
        return shown

    def _note(self) -> list[str]:
        count, engines = self._hidden
        if not count:
            return []
        self._hidden = 0, set()
        return [f"{label(engines)} ... {count:,} lines not shown here: {self._show_all} ...\n"]

    # --- the screen ----------------------------------------------------------------------------------------------

    def _redraw(self, texts: Sequence[str]) -> None:
        self._replace(texts, self._lines_below() if self._is_terminal else [])

    def _replace(self, texts: Sequence[str], below: Sequence[str]) -> None:
        """Write ``texts``, and ``below`` in place of what stands below."""
        text = "\n".join(below)
        if not texts and text == self._below:
            return
        up = f"\033[{self._height - 1}A" if self._height > 1 else ""
        clear = f"{up}{_CLEAR}" if self._height else ""
        self._below, self._height = text, len(below)
        self._write(f"{clear}{''.join(texts)}{text}")

    def _lines_below(self) -> list[str]:
        bars = folded_bars(self._open.current(), self._renderer.fold)
        width = self._renderer.width - 1
        lines = [f"{label(engines)} {text}" for engines, text in bars[:_BARS]]
        if len(bars) > _BARS:
            rest = label(engine for engines, _ in bars[_BARS:] for engine in engines)
            lines.append(f"{rest} ... {len(bars) - _BARS} others")
        if self._status:
            lines.append(self._status)
        # Not longer than the screen, or they could not be replaced; a cut could go through a colour.
        return [uncoloured(safe(line.replace("\n", " "))).expandtabs()[:width] for line in lines]
