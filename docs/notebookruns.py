"""The example notebooks with their outputs, from running them on four ranks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
SECONDS = 60
"""In which each cell has to end."""


def run(path: Path, folder: Path) -> Any:
    """Run a notebook on the cluster of this process's IPYTHONDIR, and return it with its outputs.

    Args:
        path: of the notebook.
        folder: the kernel's current folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed that has no tag ``raises-exception``.
    """
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(path, as_version=4)
    # The kernel listens on Unix sockets, and not on the network.
    NotebookClient(
        notebook, config=Config(KernelManager={"transport": "ipc"}), kernel_name="python3", timeout=SECONDS,
        resources={"metadata": {"path": str(folder)}}, coalesce_streams=True,
    ).execute()  # fmt: skip
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_blank(output)]
    return notebook


def _is_blank(output: Any) -> bool:
    """Whether it is a line that said who was waited for, and was erased."""
    return output.output_type == "stream" and not output.text.strip()


class NotebookRuns:
    """Notebooks with their outputs, which are kept until notebooks change.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = folder / "notebooks.sha256"

    def is_stale(self) -> bool:
        """Whether they have to be run."""
        there = self._stamp.exists() and all((self._folder / path.name).exists() for path in NOTEBOOKS)
        return not there or self._stamp.read_text("utf-8") != self._source()

    def make(self, cluster: Path) -> None:
        """Run them; a cluster runs in the folder ``cluster``."""
        import nbformat

        self._folder.mkdir(parents=True, exist_ok=True)
        for path in NOTEBOOKS:
            new = self._folder / f"{os.getpid()}-{path.name}"
            nbformat.write(run(path, cluster), new)
            new.replace(self._folder / path.name)
        self._stamp.write_text(self._source(), "utf-8")

    def on_source_read(self, _app: object, page: str, source: list[str]) -> None:
        """Sphinx has read a page: give it the notebook with its outputs."""
        path = DOCS / f"{page}.ipynb"
        if path in NOTEBOOKS:
            source[0] = (self._folder / path.name).read_text("utf-8")

    def _source(self) -> str:
        digest = hashlib.sha256(Path(__file__).read_bytes())
        for path in NOTEBOOKS:
            digest.update(path.read_bytes())
        return digest.hexdigest()
