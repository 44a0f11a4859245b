"""The figure of the tutorial, drawn by running the tutorial's session on four ranks."""

from __future__ import annotations

import doctest
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "tutorial.rst"
PROGRAM = DOCS / "tutorial" / "heat.py"
NAMES = ("heat-light.png", "heat-dark.png")
INK = {"heat-light.png": "#222832", "heat-dark.png": "#ced6dd"}
"""Colours of text and lines on the theme's background in both modes."""


class Session(doctest.DocTestRunner):
    """Runs what is typed. Whether the output is as shown is asked by a test, not here."""

    def report_failure(self, *_unused: Any) -> None:
        """Say nothing."""

    def report_unexpected_exception(self, _out: Any, _test: Any, example: doctest.Example, exc_info: Any) -> None:
        """End the build: there is no figure."""
        raise RuntimeError(f"the tutorial's figure: {example.source.strip()!r} failed") from exc_info[1]


def session(page: Path) -> doctest.DocTest:
    """What the page types, up to the line that saves the figure."""
    found = doctest.DocTestParser().get_doctest(page.read_text("utf-8"), {}, page.name, str(page), 0)
    last = next(number for number, each in enumerate(found.examples) if "savefig" in each.source)
    del found.examples[last:]
    return found


class Figures:
    """The figures, which are kept until the page or its program change.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = folder / "heat.sha256"

    def is_stale(self) -> bool:
        """Whether they have to be drawn."""
        there = self._stamp.exists() and all((self._folder / name).exists() for name in NAMES)
        return not there or self._stamp.read_text("utf-8") != self._source()

    def make(self, cluster: Path) -> None:
        """Run the session, and save its figure for light and for dark pages; a cluster runs in ``cluster``."""
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
        from matplotlib.lines import Line2D
        from matplotlib.text import Text

        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROGRAM, cluster)
        typed = session(PAGE)
        try:
            Session(verbose=False).run(typed, out=lambda _text: None, clear_globs=False)
        finally:
            for client in ("mec", "tc"):
                if client in typed.globs:
                    typed.globs[client].close()
        figure = typed.globs["figure"]
        for name in NAMES:
            for ink in (*figure.findobj(Text), *figure.findobj(Line2D)):
                ink.set_color(INK[name])
            new = self._folder / f"{os.getpid()}-{name}"
            figure.savefig(new, dpi=140, transparent=True)
            new.replace(self._folder / name)
        plt.close(figure)
        self._stamp.write_text(self._source(), "utf-8")

    def _source(self) -> str:
        return hashlib.sha256(PAGE.read_bytes() + PROGRAM.read_bytes() + Path(__file__).read_bytes()).hexdigest()
