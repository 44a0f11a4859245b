"""The figures of pages, drawn by running the sessions of these pages on four ranks."""

from __future__ import annotations

import doctest
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
INK = {"light": "#222832", "dark": "#ced6dd"}
"""Colours of text and lines on the theme's background in both modes."""


class Session(doctest.DocTestRunner):
    """Runs what is typed. Whether the output is as shown is asked by a test, not here."""

    def report_failure(self, *_unused: Any) -> None:
        """Say nothing."""

    def report_unexpected_exception(self, _out: Any, _test: Any, example: doctest.Example, exc_info: Any) -> None:
        """End the build: there is no figure."""
        raise RuntimeError(f"the figure of {_test.name}: {example.source.strip()!r} failed") from exc_info[1]


def session(page: Path) -> doctest.DocTest:
    """What the page types, up to the line that saves the figure."""
    found = doctest.DocTestParser().get_doctest(page.read_text("utf-8"), {}, page.name, str(page), 0)
    last = next(number for number, each in enumerate(found.examples) if "savefig" in each.source)
    del found.examples[last:]
    return found


class Figures:
    """The figure of a page, for light and for dark pages, which are kept until the page or its program change.

    Args:
        folder: where they are kept.
        name: that of the file which the session saves, without its ending.
        page: its session saves ``figure``.
        program: what the session expects in its current folder.
    """

    def __init__(self, folder: Path, name: str, page: Path, program: Path | None = None) -> None:
        self._folder = folder
        self._page = page
        self._program = program
        self._names = {f"{name}-{mode}.png": ink for mode, ink in INK.items()}
        self._stamp = folder / f"{name}.sha256"

    def is_stale(self) -> bool:
        """Whether they have to be drawn."""
        there = self._stamp.exists() and all((self._folder / name).exists() for name in self._names)
        return not there or self._stamp.read_text("utf-8") != self._source()

    def make(self, cluster: Path) -> None:
        """Run the session, and save its figure; a cluster runs in ``cluster``."""
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
        from matplotlib.lines import Line2D
        from matplotlib.text import Text

        self._folder.mkdir(parents=True, exist_ok=True)
        if self._program is not None:
            shutil.copy(self._program, cluster)
        typed = session(self._page)
        try:
            Session(verbose=False).run(typed, out=lambda _text: None, clear_globs=False)
        finally:
            for client in ("mec", "tc"):
                if client in typed.globs:
                    typed.globs[client].close()
        figure = typed.globs["figure"]
        for name, ink in self._names.items():
            for drawn in (*figure.findobj(Text), *figure.findobj(Line2D)):
                drawn.set_color(ink)
            new = self._folder / f"{os.getpid()}-{name}"
            figure.savefig(new, dpi=140, transparent=True)
            new.replace(self._folder / name)
        plt.close(figure)
        self._stamp.write_text(self._source(), "utf-8")

    def _source(self) -> str:
        files = [self._page, Path(__file__), *([] if self._program is None else [self._program])]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
