"""Settings of Sphinx, and the tables that are made from the code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import tables  # noqa: E402 - found through the line above

import ipmpi  # noqa: E402 - so is this

project = "ipmpi"
author = "the ipmpi developers"
copyright = "2026, the ipmpi developers"
version = release = ipmpi.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
autodoc_typehints = "none"


def setup(app: Any) -> None:
    """Write the tables before the sources are read."""
    app.connect("builder-inited", lambda _app: tables.write(DOCS / "_build" / "tables"))
