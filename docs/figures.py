"""The figure of the tutorial, drawn by running the tutorial's session on four ranks."""

from __future__ import annotations

import doctest
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def cluster() -> Iterator[None]:
    """Four ranks, in an IPYTHONDIR and a current folder of their own, which has the tutorial's program."""
    import ipmpi

    variable, here = os.environ.get("IPYTHONDIR"), os.getcwd()
    with tempfile.TemporaryDirectory(prefix="ipmpi-docs-") as folder:
        shutil.copy(PROGRAM, folder)
        os.environ["IPYTHONDIR"] = folder
        os.chdir(folder)
        try:
            with ipmpi.Cluster("local", n=4, client_ip="127.0.0.1", echo=None) as started:
                started.wait(60)
                yield
        finally:
            os.chdir(here)
            if variable is None:
                del os.environ["IPYTHONDIR"]
            else:
                os.environ["IPYTHONDIR"] = variable


def draw(folder: Path) -> None:
    """Run the session, and save its figure for light and for dark pages."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    typed = session(PAGE)
    with cluster():
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
        new = folder / f"{os.getpid()}-{name}"
        figure.savefig(new, dpi=140, transparent=True)
        new.replace(folder / name)
    plt.close(figure)


def write(folder: Path) -> None:
    """Draw, unless the page and its program are those of the last time."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "heat.sha256"
    source = hashlib.sha256(PAGE.read_bytes() + PROGRAM.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    there = stamp.exists() and all((folder / name).exists() for name in NAMES)
    if not there or stamp.read_text("utf-8") != source:
        draw(folder)
        stamp.write_text(source, "utf-8")
