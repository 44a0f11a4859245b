"""The notebook that steers the heat equation in each language, run as when the pages are built."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def run_plate(need: Callable[[str, object], None], folder: Path, login: str | None = None) -> list[str]:
    """Run it on the controller of this process's IPYTHONDIR, or of ``login``; return what stands below its cells.

    The notebook itself compares the plate with that of one process.
    """
    for name in ("nbclient", "ipykernel", "matplotlib"):
        need(f"no {name}; 'make docs' installs it", importlib.util.find_spec(name))
    import nbformat

    notebook = nbformat.read(DOCS / "notebooks" / "plate.ipynb", as_version=4)
    (given,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert given.source == "login = None"
    given.source = f"login = {login!r}"
    path = folder / "plate.ipynb"
    nbformat.write(notebook, path)
    spec = importlib.util.spec_from_file_location("notebookruns", DOCS / "notebookruns.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where the kernel has its Unix sockets
        done = module.run(path, folder)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    return [
        "picture" if "image/png" in output.data else output.data.get("text/plain", "")
        for output in outputs
        if output.output_type in ("execute_result", "display_data")
    ]
