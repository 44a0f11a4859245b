"""A progress bar for long waits."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
import warnings
from types import TracebackType
from typing import Any, Final

from ...errors import ClientError

SILENT: Final = 1.0
"""Seconds of waiting before anything is shown."""

INTERVAL: Final = 0.2
"""Seconds between two updates."""


class Progress:
    """A context manager that shows how many tasks have ended, once the wait has taken a second.

    Args:
        total: number of tasks.
        wanted: False: show nothing. None: only on a terminal or in a notebook.

    Attributes:
        interval: seconds after which :meth:`update` is to be called again; None if nothing will be shown.

    Raises:
        ClientError: ``wanted`` is True, and tqdm is not installed.
    """

    def __init__(self, total: int, wanted: bool | None = None) -> None:
        self._total = total
        self._bar: Any = None
        self._start = time.monotonic()
        can = wanted is not False and total > 0 and (wanted or _somebody_looks())
        if can and not _has_tqdm():
            if wanted:
                raise ClientError("progress=True needs the package tqdm: pip install tqdm")
            can = False
        self.interval: float | None = INTERVAL if can else None

    def update(self, done: int) -> None:
        """Show that ``done`` tasks have ended."""
        if self.interval is None:
            return
        if self._bar is None:
            if time.monotonic() - self._start < SILENT:
                return
            self._bar = _new_bar(self._total)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if kind is None:
                self._bar.update(self._total - self._bar.n)
            self._bar.close()


class StatusLine:
    """A line on standard error that is replaced in place; only where somebody looks (a terminal, a notebook)."""

    def __init__(self) -> None:
        self._width = 0

    def show(self, text: str | None) -> None:
        """Replace the line; None removes it."""
        if text is None and not self._width:
            return
        if not _somebody_looks():
            return
        erase = f"\r{' ' * self._width}\r" if _in_notebook() else "\r\033[K"
        blank = erase if self._width else ""
        # One column is left free: a terminal would go to the next line, from which there is no way back.
        shown = "" if text is None else text[: max(shutil.get_terminal_size().columns - 1, 20)]
        self._width = len(shown)
        print(blank + shown, end="", file=sys.stderr, flush=True)

    def tell(self, text: str) -> None:
        """Print a line that stays."""
        self.show(None)
        print(text, file=sys.stderr, flush=True)


def _has_tqdm() -> bool:
    return importlib.util.find_spec("tqdm") is not None


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def _somebody_looks() -> bool:
    isatty = getattr(sys.stderr, "isatty", None)
    return _in_notebook() or bool(isatty is not None and isatty())


def _new_bar(total: int) -> Any:
    # Imported here: most waits are short, and the import is slow.
    if _in_notebook():
        with warnings.catch_warnings():
            # It takes the bar of text where ipywidgets is not installed, and warns of that.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(total=total, unit=" tasks", file=sys.stderr, smoothing=0.1)
