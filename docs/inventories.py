"""What the pages of other projects are called, for links to them.

Sphinx usually fetches each project's inventory during the build, which then needs a network. The few names that
these pages use are kept in ``inventories/*.txt`` instead, one per line, in the format of Sphinx's own inventories:
name, domain and role, priority, address ($ stands for the name), title (- stands for the name).
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "inventories"
SITES = {
    "python": "https://docs.python.org/3",
    "numpy": "https://numpy.org/doc/stable",
    "mpi4py": "https://mpi4py.readthedocs.io/en/stable",
    "ipython": "https://ipython.readthedocs.io/en/stable",
}


def packed(name: str) -> bytes:
    """The inventory of one project in the form that Sphinx reads."""
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n# zlib:\n"
    return head.encode() + zlib.compress((SOURCES / f"{name}.txt").read_bytes())


def mapping(folder: Path) -> dict[str, tuple[str, str]]:
    """Write all inventories into a folder.

    Returns:
        What ``intersphinx_mapping`` is to be: the site and the file of each project.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SITES:
        # Several builds may run at a time.
        new = folder / f"{name}.{os.getpid()}"
        new.write_bytes(packed(name))
        new.replace(folder / f"{name}.inv")
    return {name: (site, str(folder / f"{name}.inv")) for name, site in SITES.items()}
