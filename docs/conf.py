"""Settings of Sphinx. Tables, inventories and figures are made from the code before the pages are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
MADE = DOCS / "_build"
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import fourranks  # noqa: E402 - found through the line above, as the next ones
import inventories  # noqa: E402
import tables  # noqa: E402
from captures import Captures  # noqa: E402
from figures import Figures  # noqa: E402
from notebookruns import NotebookRuns  # noqa: E402

import ipmpi  # noqa: E402 - from this checkout

project = "ipmpi"
author = "the ipmpi developers"
copyright = "2026, the ipmpi developers"
version = release = ipmpi.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
# The list beside a page has room for the name of a method, and not for its class as well.
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"
# Help texts of the commands have -- and quotes to be typed.
smartquotes = False
# They come with their outputs, see ``make``.
nb_execution_mode = "off"
nb_merge_streams = True

intersphinx_mapping = inventories.mapping(MADE / "inventories")

# The button copies what one types, and neither prompts nor output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "ipmpi"
html_static_path = ["_static"]
html_css_files = ["ipmpi.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}
# These pages have none below them that a sidebar could show.
ALONE = (
    *("index", "tutorial", "interfaces", "output", "from-ipython-kernel"),
    *("glossary", "contributing", "changelog"),
)
html_sidebars: dict[str, list[str]] = {page: [] for page in ALONE}


notebooks = NotebookRuns(MADE / "notebooks")


def make(_app: Any) -> None:
    """Make what the pages include; a cluster is started only for what has changed."""
    tables.write(MADE / "tables")
    docs, figures = Path(__file__).parent, MADE / "figures"
    parts = (
        Captures(MADE / "captures"),
        Figures(figures, "heat", docs / "tutorial.rst", docs / "tutorial" / "heat.py"),
        Figures(figures, "arrays", docs / "howto" / "arrays.rst"),
        notebooks,
    )
    stale = [part for part in parts if part.is_stale()]
    if stale:
        with fourranks.cluster() as folder:
            for part in stale:
                part.make(folder)


def setup(app: Any) -> None:
    """Have that made before the pages are read."""
    app.connect("builder-inited", make)
    app.connect("source-read", notebooks.on_source_read)
